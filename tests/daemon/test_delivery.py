# SPDX-License-Identifier: MIT
"""The built file at the client (spec, section 7), the worker's release, and clients that leave."""

import email.utils
import hashlib
import json
import mmap
import os
import re
import signal
import socket
import time
import urllib.request

import pytest

import peers
from conftest import check_error, descriptors_of, wait_until
from peers import SLOW, environment, random_bytes

BUILD_HEAD = "X-Velox-Build: true\r\nContent-Type: application/json\r\n"


def deliver(stack, path, front=None, **ask):
    front = stack.php_asks_for_build(front=front, **ask)
    stack.velox.accept().answer(json.dumps({"path": path, "logs": ""}))
    return front


# ---- the file ------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 65527, 65528, 65529, 2 * 65528, 1 << 20, 64 << 20])
@pytest.mark.parametrize("keep", [False, True])
def test_the_file_arrives_byte_for_byte(stack, size, keep):
    content = random_bytes(size)
    front = deliver(stack, stack.artifact(content), keep=keep)
    answer = front.read_answer()
    assert answer.status == 200 and answer.get("Content-Length") == str(size)
    assert answer.body == content
    assert answer.ended and answer.app_status == 0 and answer.end_reserved == b"\0\0\0"
    assert all(len(each.content) <= 65528 for each in answer.records)
    if keep:
        assert front.is_silent()
        stack.check_serves_next(front)
    else:
        assert front.read_record() is None


def sparse_file(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
        for at in range(0, size, size // 16):
            file.seek(at)
            file.write(random_bytes(4096, at))
    return path


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_a_gigabyte_arrives_and_costs_no_memory(start, address):
    from ports import unused_port
    stack = start(**({"listen": {"fastcgi": f"127.0.0.1:{unused_port()}"}} if address == "tcp" else {}))
    path = sparse_file(stack.root + "/big", 1 << 30)
    front = deliver(stack, path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as expected:
        position = 0

        def compare(content):
            nonlocal position
            assert content == expected[position:position + len(content)], f"differs after byte {position}"
            position += len(content)

        answer = front.read_answer(sink=compare)
    assert position == 1 << 30 and answer.ended
    stack.sidecar.assert_grew_less(0, 16 << 10)


def test_several_downloads_run_at_once(stack):
    contents = [random_bytes(3 << 20, seed) for seed in range(8)]
    fronts = [deliver(stack, stack.artifact(content)) for content in contents]
    for front, content in zip(fronts, contents):
        assert front.read_answer().body == content


def test_a_client_that_reads_slowly_costs_no_memory_and_holds_up_nobody(stack):
    content = random_bytes(16 << 20)
    path = stack.artifact(content)
    slow = [deliver(stack, path) for _ in range(10)]
    begun = [front.read_head()[1] for front in slow]
    before = stack.sidecar.peak_memory_kb()
    quick = deliver(stack, path)
    assert quick.read_answer().body == content
    stack.sidecar.assert_grew_less(before, 4096)
    assert begun[0] + slow[0].read_answer().stdout == content


def test_the_file_may_be_removed_once_the_download_runs(stack):
    """Velox removes what it built when its own cache is full."""
    content = random_bytes(8 << 20)
    path = stack.artifact(content)
    front = deliver(stack, path)
    _, got = front.read_head()
    os.unlink(path)
    rest = front.read_answer()
    assert got + rest.stdout == content and rest.ended


def test_a_file_that_turns_out_shorter_is_a_visible_cut(stack):
    """END_REQUEST before Content-Length is reached breaks the client's transfer at once."""
    content = random_bytes(32 << 20)
    path = stack.artifact(content)
    front = deliver(stack, path, keep=True)
    head, got = front.read_head()
    os.truncate(path, 1 << 20)
    rest = front.read_answer()
    assert len(got + rest.stdout) < len(content)
    assert content.startswith((got + rest.stdout)[:1 << 20])
    assert rest.ended
    front.wait_closed()
    wait_until(lambda: [line for line in stack.sidecar.log() if line["level"] == "error"], "an error line")


# ---- the head --------------------------------------------------------------------------------------

def test_the_head_of_a_download(stack):
    content = b"built binary"
    path = stack.artifact(content)
    os.utime(path, ns=(1, 1700000000123456789))
    request = stack.build_request()
    front = stack.php_asks_for_build(request)
    call = stack.velox.accept()
    time.sleep(0.06)
    call.answer(json.dumps({"path": path}))
    answer = front.read_answer()
    assert answer.get("Status") == "200 OK"
    assert answer.get("Content-Type") == "application/octet-stream"
    assert answer.get("Content-Length") == str(len(content))
    assert answer.get("ETag") == '"%x-%x"' % (1700000000123456789, len(content))
    assert answer.get("Last-Modified") == email.utils.formatdate(1700000000, usegmt=True)
    assert answer.get("Accept-Ranges") == "bytes"
    assert answer.get("Content-Disposition") == 'attachment; filename="roadrunner-linux-amd64"'
    assert answer.get("X-Build-Request-ID") == json.loads(request)["request_id"]
    assert answer.get("X-Cache-Status") == "MISS"
    assert re.fullmatch(r"\d+\.\d", answer.get("X-Build-Time"))
    assert answer.get("X-Cache-Age") is None
    assert len(answer.head) < 800
    assert b"\n" not in answer.head.replace(b"\r\n", b"")


@pytest.mark.parametrize("platform,name", [
    ({"os": "linux", "arch": "arm64"}, "roadrunner-linux-arm64"),
    ({"os": "windows", "arch": "amd64"}, "roadrunner-windows-amd64.exe"),
    ({"os": "darwin", "arch": "arm64"}, "roadrunner-darwin-arm64"),
    ({"os": "a" * 32, "arch": "9" * 32}, "roadrunner-" + "a" * 32 + "-" + "9" * 32),
    (None, "roadrunner"),
    (..., "roadrunner"),
])
def test_the_file_name(stack, platform, name):
    answer = stack.build(request=stack.build_request(target_platform=platform))
    assert answer.get("Content-Disposition") == f'attachment; filename="{name}"'


def test_the_longest_head_of_ours_stays_small(stack):
    answer = stack.build(request=stack.build_request(
        request_id="x" * 64, target_platform={"os": "o" * 32, "arch": "a" * 32}))
    assert len(answer.head) < 800


def test_headers_that_described_the_json_or_the_connection_are_dropped(stack):
    names = ["Content-Type", "Content-Length", "Content-Range", "Content-Language", "Content-Location",
             "Content-MD5", "Digest", "ETag", "Last-Modified", "Accept-Ranges", "Transfer-Encoding", "Connection",
             "Keep-Alive", "TE", "Trailer", "Upgrade", "X-Velox-Build", "X-Accel-Redirect", "X-Sendfile",
             "X-LIGHTTPD-send-file"]
    request = stack.build_request()
    values = {name: "dropped" for name in names}
    values["Content-Length"] = str(len(request))
    lines = "".join(f"{spelled}: {values[name]}\r\n" for name in names
                    for spelled in ({name, name.lower(), name.upper()} if name != "Content-Length" else {name}))
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(lines.encode() + b"Status: 200 OK\r\n\r\n" + request)
    worker.wait_closed()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.body == b"built"
    assert "dropped" not in answer.head.decode()
    for name in names[:2] + ["ETag", "Last-Modified", "Accept-Ranges", "Status"]:
        assert len(answer.get_all(name)) == 1


def test_every_other_header_of_php_passes(stack):
    head = ("Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX-Powered-By: PHP/8.2\r\nCache-Control: private\r\n"
            "Vary: Origin\r\nx-odd:  spaced  \r\nContent-Security-Policy: default-src 'none'\r\n"
            "X-Velox-Builder: kept\r\n")
    answer = stack.build(head=head)
    assert answer.get_all("Set-Cookie") == ["a=1; Path=/", "b=2"]
    assert answer.get("X-Powered-By") == "PHP/8.2" and answer.get("Cache-Control") == "private"
    assert answer.get("Vary") == "Origin" and answer.get("X-Odd") == "spaced"
    assert answer.get("Content-Security-Policy") == "default-src 'none'"
    assert answer.get("X-Velox-Builder") == "kept"


def test_a_content_disposition_of_php_wins(stack):
    answer = stack.build(head="Content-Disposition: attachment; filename=\"mine.bin\"\r\n")
    assert answer.get("Content-Disposition") == 'attachment; filename="mine.bin"'


OURS = {"content-disposition", "content-length", "etag", "x-build-request-id", "x-cache-status", "x-build-time"}


@pytest.mark.parametrize("exposed", [None, "X-Mine", "X-Mine, ETag"])
def test_a_script_of_another_origin_may_read_our_headers(stack, exposed):
    head = "Access-Control-Allow-Origin: https://app.example\r\n"
    if exposed:
        head += f"Access-Control-Expose-Headers: {exposed}\r\n"
    answer = stack.build(head=head)
    assert answer.get("Access-Control-Allow-Origin") == "https://app.example"
    listed = [name.strip().lower() for value in answer.get_all("Access-Control-Expose-Headers")
              for name in value.split(",")]
    assert {"content-disposition", "x-build-request-id", "x-cache-status", "x-build-time"} <= set(listed)
    if exposed:
        assert "x-mine" in listed


def test_without_cors_nothing_is_exposed(stack):
    assert stack.build().get("Access-Control-Expose-Headers") is None


def test_a_folded_header_of_php_makes_no_new_header(stack):
    """What a fold is turned into is open, but a line of its own it must not become."""
    answer = stack.build(head="X-A: 1\r\n Content-Type: text/html\r\n")
    assert answer.status == 200 and answer.body == b"built"
    assert answer.get("Content-Type") == "application/octet-stream"


@pytest.mark.parametrize("line", ["X-A: 1\rX-Evil: 2\r\n", "X-A: a\0b\r\n", "no colon\r\n", ": no name\r\n",
                                  "Content-Type : text/html\r\n", "X-A: 1\n X-Evil: 2\n", "\tX-Evil: 2\r\n"])
def test_odd_lines_of_php_make_no_new_header_and_no_control_character(stack, line):
    answer = stack.build(head=line)
    assert answer.status == 200 and answer.body == b"built"
    assert answer.get("X-Evil") is None and answer.get("Content-Type") == "application/octet-stream"
    assert not re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n)", answer.head)


def test_the_build_time_is_the_builds(stack):
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    time.sleep(0.25)
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert 0.2 <= float(front.read_answer().get("X-Build-Time")) <= 0.4 * SLOW


# ---- which files -----------------------------------------------------------------------------------

def make_bad(stack, kind):
    """The path that Velox answers with."""
    root, folder = stack.root, stack.folder
    outside = os.path.join(folder, "outside")
    with open(outside, "wb") as file:
        file.write(b"secret")
    good = stack.artifact(b"built", "kinds/good")
    at = os.path.join(root, "kinds", kind.replace(" ", "-"))
    if os.path.lexists(at):
        os.unlink(at)
    if kind == "missing":
        return at
    if kind == "outside":
        return outside
    if kind == "the root's name longer":
        os.makedirs(root + "x", exist_ok=True)
        with open(root + "x/rr", "wb") as file:
            file.write(b"secret")
        return root + "x/rr"
    if kind == "dots":
        return f"{root}/kinds/../kinds/good"
    if kind == "dots that leave":
        return f"{root}/../outside"
    if kind == "relative":
        return "kinds/good"
    if kind == "the root itself":
        return root
    if kind == "directory":
        return os.path.dirname(good)
    if kind == "trailing slash":
        return good + "/"
    if kind == "fifo":
        os.mkfifo(at)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(at)
    elif kind == "absolute link inside":
        os.symlink(good, at)
    elif kind == "link out":
        os.symlink("../../outside", at)
    elif kind == "absolute link out":
        os.symlink(outside, at)
    elif kind == "link to a device":
        os.symlink("/dev/zero", at)
    elif kind == "link to itself":
        os.symlink(os.path.basename(at), at)
    elif kind == "folder link out":
        os.symlink(folder, at)
        return at + "/outside"
    elif kind == "magic link":
        return "/proc/self/root" + good
    return at


@pytest.mark.parametrize("kind", [
    "missing", "outside", "the root's name longer", "dots", "dots that leave", "relative", "the root itself",
    "directory", "trailing slash", "fifo", "socket", "absolute link inside", "link out", "absolute link out",
    "link to a device", "link to itself", "folder link out", "magic link"])
def test_a_path_that_is_no_artifact_is_500(stack, kind):
    path = make_bad(stack, kind)
    request = stack.build_request()
    front = stack.php_asks_for_build(request)
    stack.velox.accept().answer(json.dumps({"path": path}))
    answer = front.read_answer()
    check_error(answer, 500, "artifact_unavailable", request_id=json.loads(request)["request_id"])
    assert b"secret" not in answer.stdout
    assert stack.folder.encode() not in answer.body, "a path of this machine was sent"
    assert wait_until(lambda: [line for line in stack.sidecar.log() if line["level"] in ("warn", "error")],
                      "a line with the reason")


@pytest.mark.parametrize("path", ["/etc/passwd\\u0000", "PATH\\u0000", "PATH\\n", "\\u0000"])
def test_a_path_with_odd_bytes_is_refused(stack, path):
    good = stack.artifact(b"built")
    answer = stack.build('{"path":"' + path.replace("PATH", good) + '"}')
    assert (answer.status, json.loads(answer.body)["error"]) in (
        (500, "artifact_unavailable"), (502, "velox_unavailable"))


def test_a_relative_link_that_stays_inside_is_followed(stack):
    stack.artifact(b"built", "links/target/rr")
    os.symlink("target/rr", stack.root + "/links/rr")
    os.symlink("links", stack.root + "/links-too")
    for path in ("/links/rr", "/links-too/rr"):
        answer = stack.build(json.dumps({"path": stack.root + path}))
        assert answer.body == b"built"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_500(stack):
    path = stack.artifact(b"built")
    os.chmod(path, 0)
    answer = stack.build(json.dumps({"path": path}))
    check_error(answer, 500, "artifact_unavailable")


def test_several_roots(start):
    stack = start(artifact={"root": "{folder}/one, {folder}/two"})
    for name in ("one", "two"):
        os.makedirs(f"{stack.folder}/{name}/deep", exist_ok=True)
        with open(f"{stack.folder}/{name}/deep/rr", "wb") as file:
            file.write(name.encode())
        assert stack.build(json.dumps({"path": f"{stack.folder}/{name}/deep/rr"})).body == name.encode()
    check_error(stack.build(), 500, "artifact_unavailable")


def test_a_path_map_of_whole_components(start):
    stack = start(artifact={"path_map": "/srv/velox={folder}/artifacts, /srv/other=/nowhere"})
    stack.artifact(b"built", "x/rr")
    assert stack.build(json.dumps({"path": "/srv/velox/x/rr"})).body == b"built"
    check_error(stack.build(json.dumps({"path": "/srv/veloxx/x/rr"})), 500, "artifact_unavailable")
    check_error(stack.build(json.dumps({"path": "/srv/velox/../velox/x/rr"})), 500, "artifact_unavailable")
    # A path that is not mapped is taken as it is.
    assert stack.build().body == b"built"


# ---- the worker is free at once --------------------------------------------------------------------

def answer_builds_ideally(address):
    """Forks a process that does nothing but what is measured: it closes when END_REQUEST is there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address.removeprefix("unix:"))
    listener.listen(16)
    pid = os.fork()
    if pid == 0:
        while True:
            connection, _ = listener.accept()
            while not connection.recv(65536).endswith(peers.end_request()):
                pass
            connection.close()
    listener.close()
    return pid


def release_time(worker, content):
    packet = peers.stream(peers.STDOUT, content) + peers.end_request()
    worker.connection.sendall(packet)
    sent_at = time.monotonic()
    return worker.wait_closed() - sent_at


def release_times(stack, count, ideal_address):
    """Ours and, taken in turns, those of the ideal; sorted."""
    ours, ideal = [], []
    for _ in range(count):
        front = stack.ask()
        worker = stack.fpm.accept()
        worker.read_request()
        ours.append(release_time(worker, BUILD_HEAD.encode() + b"\r\n" + stack.build_request()))
        stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built", "release")}))
        assert front.read_answer().body == b"built"
        control = peers.Worker(peers.connect(ideal_address))
        ideal.append(release_time(control, b"x" * 200))
        control.close()
        worker.close()
    return sorted(ours), sorted(ideal)


def test_the_worker_is_let_go_within_a_millisecond_of_its_end_request(stack):
    """The 99th of 100 under 1 ms. On a machine so busy that a process which only closes the connection
    needs more than half of that, the limit is twice what that one needs. The best of three runs counts,
    and under a checker a hundred times as much is allowed."""
    address = f"unix:{stack.folder}/ideal.sock"
    ideal_pid = answer_builds_ideally(address)
    told = []
    try:
        for _ in range(3):
            ours, ideal = release_times(stack, 100, address)
            limit = max(0.001, 2 * ideal[98]) * (100 if stack.sidecar.is_watched() else 1)
            if ours[98] < limit:
                return
            told.append(f"{ours[98] * 1e3:.2f} ms, ideally {ideal[98] * 1e3:.2f} ms")
    finally:
        os.kill(ideal_pid, signal.SIGKILL)
        os.waitpid(ideal_pid, 0)
        os.unlink(address.removeprefix("unix:"))
    raise AssertionError(f"99th of 100: {told}")


# ---- the client leaves -------------------------------------------------------------------------------

@pytest.mark.parametrize("manner", ["close", "abort", "abort on a kept connection"])
def test_a_client_that_leaves_ends_the_post_within_100_ms(stack, manner):
    front = stack.php_asks_for_build(keep="kept" in manner)
    call = stack.velox.accept()
    left_at = time.monotonic()
    if manner == "close":
        front.close()
    else:
        front.send(peers.record(peers.ABORT_REQUEST, 1))
    assert call.wait_closed() - left_at < 0.1 * SLOW
    if "abort" in manner:
        answer = front.read_answer()
        assert answer.ended and answer.app_status == 0 and answer.stdout == b""
    if "kept" in manner:
        stack.check_serves_next(front)
    assert stack.sidecar.wait_log("client left")["stage"] == "build"
    assert stack.velox.is_idle(0.05)


@pytest.mark.parametrize("manner", ["close", "reset", "half-close"])
def test_a_client_that_leaves_over_tcp_ends_the_post_within_100_ms(start, manner):
    from ports import unused_port
    stack = start(listen={"fastcgi": f"127.0.0.1:{unused_port()}"})
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    left_at = time.monotonic()
    if manner == "close":
        front.close()
    elif manner == "reset":
        front.reset()
    else:
        front.connection.shutdown(socket.SHUT_WR)
    assert call.wait_closed() - left_at < 0.1 * SLOW


def test_half_closing_a_unix_socket_leaves_the_build_running(stack):
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    front.connection.shutdown(socket.SHUT_WR)
    assert not call.closed.wait(peers.A_MOMENT)
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


def test_a_client_that_leaves_between_attempts_ends_them(start):
    stack = start(retry={"initial_delay": "200ms", "max_delay": "200ms"})
    front = stack.php_asks_for_build()
    stack.velox.accept().answer(status=503, body="")
    stack.sidecar.wait_log("build retry")
    front.close()
    stack.sidecar.wait_log("client left")
    assert stack.velox.is_idle(0.3)


def test_a_client_that_leaves_while_its_build_waits_drops_it(start):
    stack = start(velox={"max_concurrent_builds": 1})
    first = stack.php_asks_for_build()
    call = stack.velox.accept()
    second = stack.php_asks_for_build()
    assert second.is_silent()
    second.close()
    assert stack.sidecar.wait_log("client left")["stage"] == "queue"
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert first.read_answer().body == b"built"
    assert stack.velox.is_idle(0.05)


def test_a_client_that_leaves_during_capture_closes_the_worker(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout(BUILD_HEAD + "\r\n{")
    assert front.is_silent(0.02)
    front.close()
    worker.wait_closed()
    assert stack.velox.is_idle(0.02)


def test_a_client_that_leaves_during_the_download_is_noticed(stack):
    path = stack.artifact(random_bytes(16 << 20))
    front = deliver(stack, path)
    front.read_head()
    front.close()
    assert stack.sidecar.wait_log("client left")["stage"] == "stream"
    assert wait_until(lambda: not any(path == link for link in open_files(stack.sidecar.child())), "the file's close")
    stack.check_serves()


def open_files(pid):
    links = []
    for name in descriptors_of(pid):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass
    return links


def test_an_abort_during_the_download_keeps_the_connection(stack):
    front = deliver(stack, stack.artifact(random_bytes(16 << 20)), keep=True)
    front.read_head()
    front.send(peers.record(peers.ABORT_REQUEST, 1))
    assert front.read_answer().ended
    stack.check_serves_next(front)


@pytest.mark.parametrize("build", [False, True])
def test_no_descriptor_is_left_after_many_exchanges(stack, build):
    def one():
        if build:
            front = deliver(stack, path)
            assert front.read_answer().body == b"built"
            front.close()
        else:
            stack.check_serves()

    path = stack.artifact(b"built")
    one()
    child = stack.sidecar.child()
    # One connection to Velox may stay open for the next build.
    before = len(descriptors_of(child))
    for _ in range(20):
        one()
    wait_until(lambda: len(descriptors_of(child)) <= before + 1, "descriptors to be closed")


def test_nothing_reaches_the_front_before_the_head(stack):
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    assert front.is_silent()
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


def test_a_client_that_never_reads_is_cut_at_stall_timeout(start):
    stack = start(listen={"stall_timeout": "200ms"})
    front = deliver(stack, stack.artifact(random_bytes(16 << 20)))
    front.read_head()
    stack.sidecar.wait_log("client left")
    try:
        rest = front.read_answer()
        assert len(rest.stdout) < 15 << 20
    except peers.PeerClosed:
        pass


def test_a_client_that_reads_slowly_is_not_cut_at_stall_timeout(start):
    stack = start(listen={"stall_timeout": "200ms"})
    content = random_bytes(4 << 20)
    front = deliver(stack, stack.artifact(content))
    got = front.read_head()[1]
    for _ in range(8):
        time.sleep(0.05)
        front.source.buffer += front.connection.recv(65536)
    rest = front.read_answer()
    assert got + rest.stdout == content and rest.ended


# ---- with the stand-in ------------------------------------------------------------------------------

def test_a_real_exchange_with_the_stand_in(start, standin, folder):
    stack = start(velox={"server_url": standin}, artifact={"root": f"{folder}/built"})
    request = stack.build_request(standin={"size": 5000000, "delay_ms": 50})
    front = stack.php_asks_for_build(request)
    answer = front.read_answer()
    (build,) = json.load(urllib.request.urlopen(standin + "/standin/log"))["builds"]
    assert answer.status == 200
    assert hashlib.sha256(answer.body).hexdigest() == build["sha256"]
    assert float(answer.get("X-Build-Time")) >= 0


@pytest.mark.parametrize("behaviour,status", [("success_true", 200), ("slow", 200), ("success_false", 500),
                                              ("no_path", 502), ("empty", 502)])
def test_behaviours_of_the_stand_in(start, standin, folder, behaviour, status):
    stack = start(velox={"server_url": standin}, artifact={"root": f"{folder}/built"})
    front = stack.php_asks_for_build(stack.build_request(standin={"behaviour": behaviour}))
    assert front.read_answer().status == status


def test_the_stand_in_sees_a_cancelled_build(start, standin, folder):
    stack = start(velox={"server_url": standin}, artifact={"root": f"{folder}/built"})

    def state():
        builds = json.load(urllib.request.urlopen(standin + "/standin/log"))["builds"]
        return builds[0]["state"] if builds else None

    front = stack.php_asks_for_build(stack.build_request(standin={"behaviour": "hang"}))
    wait_until(lambda: state() == "running", "the build")
    front.close()
    wait_until(lambda: state() == "cancelled", "its end")
