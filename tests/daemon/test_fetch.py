# SPDX-License-Identifier: MIT
"""artifact_url: files of a Velox on another machine, streamed through while they arrive."""

import email.utils
import hashlib
import json
import os
import ssl
import subprocess
import threading
import time

import pytest

import peers
from conftest import SharedStack, Stack, check_error, make_folder, wait_until
from peers import SLOW, Velox, environment, random_bytes

MODIFIED = 1700000000
DATE = email.utils.formatdate(MODIFIED, usegmt=True)


class SharedRemote(SharedStack):
    def get(self):
        if self.stack is None:
            source = Velox()
            self.stack = Stack(make_folder(), {"artifact": {"artifact_url": source.url + "/files{path}"}})
            self.stack.source = source
        return self.stack

    def drop(self):
        source = self.stack.source if self.stack else None
        try:
            super().drop()
        finally:
            if source:
                source.close()


@pytest.fixture(scope="module")
def shared_remote():
    shared = SharedRemote()
    yield shared
    shared.drop()


@pytest.fixture
def remote(request, start, shared_remote):
    """remote(section={…}): a stack whose files lie behind a scripted HTTP server, stack.source. Tests that change nothing
    share one."""
    sources = []
    is_shared = False

    def starter(tls=None, **changes):
        nonlocal is_shared
        if tls is None and not changes:
            is_shared = True
            stack = shared_remote.get()
            stack.sidecar.mark_log()
            request.node.stacks.append(stack)
            return stack
        source = Velox(tls=tls)
        sources.append(source)
        changes.setdefault("artifact", {}).setdefault("artifact_url", source.url + "/files{path}")
        stack = start(**changes)
        stack.source = source
        return stack

    yield starter
    for source in sources:
        source.close()
    if is_shared:
        stack = shared_remote.get()
        request.node.stacks.remove(stack)
        stack.tidy()
        stack.source.tidy()
        if getattr(request.node, "failed", False):
            shared_remote.drop()


def head(length=None, status="200 OK", etag='"v1"', modified=DATE, extra=()):
    lines = [f"HTTP/1.1 {status}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if etag:
        lines.append(f"ETag: {etag}")
    if modified:
        lines.append(f"Last-Modified: {modified}")
    return ("\r\n".join(lines + list(extra)) + "\r\n\r\n").encode()


def part_head(first, total, **named):
    return head(total - first, "206 Partial Content", extra=[f"Content-Range: bytes {first}-{total - 1}/{total}"], **named)


def ask(stack, path=None, front=None, **named):
    """A build whose file is not here; the front, and the GET at the source unless there is to be none."""
    front = stack.php_asks_for_build(front=front, **named)
    stack.velox.accept().answer(json.dumps({"path": path or stack.root + "/far/rr"}))
    return front


def send(call, content):
    """In the background; the sidecar may close before it has read all."""
    def run():
        try:
            call.send(content)
        except OSError:
            pass
    threading.Thread(target=run, daemon=True).start()


def begin(stack, content, sent=None, **named):
    """The source has sent its head and `sent` bytes."""
    front = ask(stack)
    call = stack.source.accept()
    call.send(head(len(content), **named) + (content if sent is None else content[:sent]))
    return front, call


# ---- the file ------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 1, 65528, 300_000, 5 << 20])
@pytest.mark.parametrize("keep", [False, True])
def test_the_file_arrives_byte_for_byte(remote, size, keep):
    stack = remote()
    content = random_bytes(size)
    front = ask(stack, keep=keep)
    call = stack.source.accept()
    assert call.method == "GET" and call.target == "/files" + stack.root + "/far/rr"
    assert call.get("Range") is None and call.get("Authorization") is None
    send(call, head(size) + content)
    answer = front.read_answer()
    assert answer.status == 200 and answer.body == content and answer.ended
    assert answer.get("Content-Length") == str(size) and answer.get("ETag") == '"v1"'
    assert answer.get("Last-Modified") == DATE and answer.get("X-Cache-Status") == "MISS"
    assert answer.get("Accept-Ranges") == "bytes"
    assert stack.sidecar.wait_log("build completed")["file_size"] == size
    assert stack.sidecar.wait_log("artifact sent")["bytes"] == size
    if keep:
        stack.check_serves_next(front)


def test_what_the_source_does_not_tell_is_not_told(remote):
    stack = remote()
    front, _ = begin(stack, b"built", etag=None, modified=None)
    answer = front.read_answer()
    assert answer.body == b"built" and answer.get("ETag") is None and answer.get("Last-Modified") is None
    front, _ = begin(stack, b"built", etag='W/"weak"')
    assert front.read_answer().get("ETag") == '"%x-%x"' % (MODIFIED * 10**9, 5)
    front, _ = begin(stack, b"built", etag='"a\x01b"', modified="never")
    answer = front.read_answer()
    assert answer.get("ETag") is None and answer.get("Last-Modified") is None


def test_bytes_arrive_while_the_source_still_sends(remote):
    stack = remote()
    content = random_bytes(100_000)
    front, call = begin(stack, content, 10)
    got = front.read_head()[1]
    while len(got) < 10:
        got += front.read_record().content
    assert got == content[:10]
    call.send(content[10:20])
    assert front.read_stdout(10) == content[10:20]
    call.send(content[20:])
    assert front.read_answer().stdout == content[20:]


def test_a_file_that_is_here_is_not_fetched(remote):
    stack = remote()
    assert stack.build().body == b"built"
    assert stack.source.is_idle(0.02)


@pytest.mark.parametrize("path", ["/elsewhere/rr", "ROOT/../far/rr", "far/rr", "ROOT/", "ROOT/far/", "ROOT/far/.", "ROOT/out",
                                  "ROOT/fifo", "ROOT/loop", "ROOT/file/rr", "ROOTx/rr", "ROOT/far\0rr"])
def test_only_what_would_be_allowed_here_is_fetched(remote, path):
    stack = remote()
    if not os.path.lexists(stack.root + "/out"):
        os.symlink("../nothing", stack.root + "/out")
        os.symlink("loop", stack.root + "/loop")
        os.mkfifo(stack.root + "/fifo")
    stack.artifact(b"x", "file")
    front = ask(stack, path.replace("ROOT", stack.root))
    check_error(front.read_answer(), 500, "artifact_unavailable")
    assert stack.source.is_idle(0.01)


def test_the_path_is_encoded(remote):
    stack = remote(artifact={"path_map": "/srv/velox={folder}/artifacts"})
    for path, target in (("/a b?c#d%e", "/a%20b%3Fc%23d%25e"), ("//x/./ü", "/x/%C3%BC"), ("/%2e%2e/x", "/%252e%252e/x"),
                         ("/l\r\nHost: evil", "/l%0D%0AHost%3A%20evil"), ("/@:8080", "/%40%3A8080"), ("/...", "/...")):
        front = ask(stack, "/srv/velox" + path)
        call = stack.source.accept()
        assert call.target == "/files/srv/velox" + target
        call.answer(b"built")
        assert front.read_answer().body == b"built"


def test_a_template_may_have_a_query(remote):
    source = Velox()
    try:
        stack = remote(artifact={"artifact_url": source.url + "/get?file={path}&again={path}"})
        front = ask(stack, stack.root + "/a&b")
        call = source.accept()
        assert call.target == f"/get?file={stack.root}/a%26b&again={stack.root}/a%26b"
        call.answer(b"built")
        assert front.read_answer().body == b"built"
    finally:
        source.close()


def test_ranges_and_conditions(remote):
    stack = remote()
    content = random_bytes(3 << 20)

    def get(**headers):
        front = ask(stack, pairs=environment(extra=[("HTTP_" + name, value) for name, value in headers.items()]))
        call = stack.source.accept()
        send(call, head(len(content)) + content)
        return front.read_answer()

    answer = get(RANGE="bytes=1000000-")
    assert answer.status == 206 and answer.body == content[1000000:]
    assert answer.get("Content-Range") == f"bytes 1000000-{len(content) - 1}/{len(content)}"
    answer = get(RANGE="bytes=5-9", IF_RANGE='"v1"')
    assert answer.status == 206 and answer.body == content[5:10]
    answer = get(RANGE="bytes=5-9", IF_RANGE='"v0"')
    assert answer.status == 200 and answer.body == content
    assert get(IF_NONE_MATCH='"v1"').status == 304
    assert get(RANGE=f"bytes={len(content)}-").status == 416
    stack.check_serves()


# ---- memory and backpressure ---------------------------------------------------------------------------

def send_counted(call, content, counter):
    """In the background, as fast as it is taken."""
    def run():
        view = memoryview(content)
        try:
            while counter[0] < len(content):
                counter[0] += call.connection.send(view[counter[0]:counter[0] + 65536])
        except OSError:
            pass
    threading.Thread(target=run, daemon=True).start()


def test_a_slow_client_costs_no_memory_and_holds_up_the_source(remote):
    stack = remote()
    content = random_bytes(64 << 20)
    front, call = begin(stack, content, 0)
    sent = [0]
    send_counted(call, content, sent)
    got = front.read_head()[1]
    before = stack.sidecar.peak_memory_kb()

    def settled():
        first = sent[0]
        time.sleep(0.05)
        return sent[0] == first and first

    # Sockets and pipe are full.
    stopped = wait_until(settled, "the source to be held up")
    assert stopped < 32 << 20
    quick, _ = begin(stack, b"built")
    assert quick.read_answer().body == b"built"
    rest = front.read_answer()
    assert got + rest.stdout == content and rest.ended
    stack.sidecar.assert_grew_less(before, 4096)


def test_many_slow_clients_cost_little_memory(remote):
    stack = remote(sidecar={"threads": 1})
    content = random_bytes(4 << 20)
    before = None
    for _ in range(65):
        front = ask(stack)
        send(stack.source.accept(), head(len(content)) + content)
        front.read_head()
        before = before or stack.sidecar.peak_memory_kb()
    stack.check_serves()
    stack.sidecar.assert_grew_less(before, 7 << 10)


def test_many_at_once(remote):
    stack = remote()
    contents = [random_bytes(2 << 20, seed) for seed in range(8)]
    fronts = []
    for number, content in enumerate(contents):
        front = ask(stack, f"{stack.root}/far/{number}")
        call = stack.source.accept()
        send_counted(call, head(len(content)) + content, [0])
        fronts.append(front)
    for front, content in zip(fronts, contents):
        assert front.read_answer().body == content


@pytest.mark.parametrize("moment", ["head", "body", "full"])
def test_a_client_that_leaves_ends_the_fetch_within_100_ms(remote, moment):
    stack = remote()
    content = random_bytes(32 << 20)
    front = ask(stack)
    call = stack.source.accept()
    if moment != "head":
        call.send(head(len(content)) + content[:10])
        front.read_head()
    if moment == "full":
        send_counted(call, content[10:], [0])
        time.sleep(0.05)
    left_at = time.monotonic()
    front.close()
    assert call.wait_closed() - left_at < 0.1 * SLOW
    assert stack.sidecar.wait_log("client left")["stage"] == ("build" if moment == "head" else "stream")
    assert not stack.sidecar.log("the fetch of a built file broke off")


def test_no_descriptor_is_left(remote):
    stack = remote()

    def one():
        front, _ = begin(stack, b"built")
        assert front.read_answer().body == b"built"
        front.close()

    one()
    before = len(os.listdir(f"/proc/{stack.sidecar.child()}/fd"))
    for _ in range(10):
        one()
    wait_until(lambda: len(os.listdir(f"/proc/{stack.sidecar.child()}/fd")) <= before + 1, "descriptors to be closed")


# ---- cuts ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("etag,modified,condition", [('"v1"', DATE, '"v1"'), (None, DATE, DATE), ('W/"v1"', None, None),
                                                     (None, None, None)])
def test_a_cut_is_resumed(remote, etag, modified, condition):
    stack = remote()
    content = random_bytes(2 << 20)
    front, call = begin(stack, content, 1_000_000, etag=etag, modified=modified)
    call.cut()
    again = stack.source.accept()
    first = int(again.get("Range").removeprefix("bytes=").removesuffix("-"))
    assert 0 < first <= 1_000_000 and again.get("If-Range") == condition
    again.send(part_head(first, len(content), etag=etag, modified=modified) + content[first:])
    answer = front.read_answer()
    assert answer.body == content and answer.ended
    assert stack.sidecar.log("fetch retry")


def test_many_cuts_are_resumed_as_long_as_it_goes_on(remote):
    stack = remote(retry={"max_attempts": 2})
    content = random_bytes(1_000_000)
    front, call = begin(stack, content, 1000)
    for _ in range(5):
        call.cut()
        call = stack.source.accept()
        first = int(call.get("Range")[6:-1])
        call.send(part_head(first, len(content)) + content[first:first + 100_000])
    call.send(content[first + 100_000:])
    assert front.read_answer().body == content


def test_a_source_that_gives_the_range_piece_by_piece(remote):
    stack = remote()
    content = random_bytes(100_000)
    front, call = begin(stack, content, 1000)
    call.cut()
    call = stack.source.accept()
    first = int(call.get("Range")[6:-1])
    call.send(head(1000, "206 Partial Content", extra=[f"Content-Range: bytes {first}-{first + 999}/{len(content)}"])
              + content[first:first + 1000])
    call = stack.source.accept()
    assert call.get("Range") == f"bytes={first + 1000}-"
    call.send(part_head(first + 1000, len(content)) + content[first + 1000:])
    assert front.read_answer().body == content


CHANGED = {
    "whole": lambda first, content: head(len(content), etag='"v2"') + content,
    "another tag": lambda first, content: part_head(first, len(content), etag='"v2"') + content[first:],
    "another date": lambda first, content: part_head(first, len(content), etag=None,
                                                     modified=email.utils.formatdate(MODIFIED + 1, usegmt=True))
    + content[first:],
    "another size": lambda first, content: part_head(first, len(content) + 1) + content[first:] + b"x",
    "another place": lambda first, content: part_head(first - 1, len(content)) + content[first - 1:],
    "no range": lambda first, content: head(len(content) - first, "206 Partial Content") + content[first:],
    "416": lambda first, content: head(0, "416 Range Not Satisfiable"),
    "404": lambda first, content: head(0, "404 Not Found"),
    "302": lambda first, content: head(0, "302 Found", extra=["Location: /files/other"]),
}


@pytest.mark.parametrize("change", CHANGED)
def test_another_file_is_not_glued_on(remote, change):
    stack = remote()
    content = random_bytes(1 << 20)
    named = {"etag": None} if change == "another date" else {}
    front, call = begin(stack, content, 500_000, **named)
    call.cut()
    again = stack.source.accept()
    first = int(again.get("Range")[6:-1])
    send(again, CHANGED[change](first, bytes(len(content))))
    answer = front.read_answer()
    assert answer.status == 200 and len(answer.body) < len(content)
    assert answer.body == content[:len(answer.body)]
    front.wait_closed()
    assert stack.sidecar.wait_log("the fetch of a built file broke off")["level"] == "error"
    assert "error" not in stack.sidecar.wait_log("artifact became shorter or unreadable while being sent")
    stack.check_serves()


def test_a_source_that_does_not_come_back_is_a_visible_cut(remote):
    stack = remote(retry={"max_attempts": 2})
    content = random_bytes(1 << 20)
    front, call = begin(stack, content, 500_000)
    call.cut()
    stack.source.accept().cut()
    answer = front.read_answer()
    assert len(answer.body) < len(content) and answer.body == content[:len(answer.body)]
    front.wait_closed()
    assert stack.sidecar.wait_log("the fetch of a built file broke off")


# ---- before the first byte -----------------------------------------------------------------------------------

@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "410 Gone", "301 Moved", "204 No Content", "206 Partial",
                                    "401 Unauthorized"])
@pytest.mark.parametrize("body", [b"", b"<html>", bytes(200_000)])
def test_a_source_that_does_not_have_it(remote, status, body):
    stack = remote()
    front = ask(stack)
    call = stack.source.accept()
    send(call, head(len(body), status, extra=[f"Location: {stack.velox.url}/x"]) + (b"" if status[:3] == "204" else body))
    message = check_error(front.read_answer(), 500, "artifact_unavailable")
    assert status[:3] in message and stack.root not in message and stack.source.url not in message
    line = stack.sidecar.wait_log("the built file cannot be fetched")
    assert line["level"] == "error" and line["file_path"] == stack.root + "/far/rr"
    assert stack.source.is_idle(0.02) and stack.velox.is_idle(0.01)


@pytest.mark.parametrize("trouble", ["503", "cut", "cut in the head", "cut in the first bytes"])
def test_trouble_at_the_source_is_tried_again(remote, trouble):
    stack = remote()
    content = random_bytes(5000)
    front = ask(stack)
    call = stack.source.accept()
    if trouble == "503":
        call.send(head(0, "503 Busy"))
    else:
        if trouble == "cut in the head":
            call.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        elif trouble == "cut in the first bytes":
            call.send(head(len(content)))
        call.cut()
    call = stack.source.accept()
    call.send(head(len(content)) + content)
    assert front.read_answer().body == content


def test_a_source_that_cannot_be_reached(remote):
    from ports import unused_port
    stack = remote(artifact={"artifact_url": f"http://127.0.0.1:{unused_port()}{{path}}"})
    front = ask(stack)
    check_error(front.read_answer(), 500, "artifact_unavailable")
    assert len(stack.sidecar.log("fetch retry")) == 2


@pytest.mark.parametrize("hang", ["before the head", "after the head"])
def test_a_source_that_hangs_is_bounded_by_build_timeout(remote, hang):
    stack = remote(velox={"build_timeout": f"{300 * SLOW:.0f}ms"})
    front = ask(stack)
    call = stack.source.accept()
    if hang == "after the head":
        call.send(head(1000))
    check_error(front.read_answer(), 504, "timeout")
    call.wait_closed()


def test_the_stream_is_not_bounded_by_build_timeout(remote):
    stack = remote(velox={"build_timeout": f"{200 * SLOW:.0f}ms"})
    front, call = begin(stack, b"built", 1)
    front.read_head()
    time.sleep(0.3 * SLOW)
    call.send(b"uilt")
    assert front.read_answer().stdout.endswith(b"uilt")


def test_a_slow_source_is_not_the_fronts_fault(remote):
    stack = remote(listen={"stall_timeout": f"{100 * SLOW:.0f}ms"})
    front, call = begin(stack, b"built", 1)
    front.read_head()
    time.sleep(0.4 * SLOW)
    call.send(b"uilt")
    assert front.read_answer().ended


def test_a_compressed_answer_is_refused(remote):
    stack = remote()
    front = ask(stack)
    call = stack.source.accept()
    assert call.get("Accept-Encoding") == "identity"
    send(call, head(5, extra=["Content-Encoding: gzip"]) + b"built")
    check_error(front.read_answer(), 500, "artifact_unavailable")


# ---- collected first -------------------------------------------------------------------------------------------

def chunked(content, end=True):
    pieces = [content[at:at + 50_000] for at in range(0, len(content), 50_000)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
@pytest.mark.parametrize("manner", ["chunked", "closed"])
def test_an_answer_without_a_length_is_collected_first(remote, size, manner):
    stack = remote()
    content = random_bytes(size)
    front = ask(stack)
    call = stack.source.accept()
    if manner == "chunked":
        call.send(head(extra=["Transfer-Encoding: chunked"]))
        call.send(chunked(content, end=False))
        assert front.is_silent(0.03)
        call.send(b"0\r\n\r\n")
    else:
        call.send(head(extra=["Connection: close"]) + content)
        call.cut()
    answer = front.read_answer()
    assert answer.status == 200 and answer.get("Content-Length") == str(size) and answer.body == content
    assert answer.get("ETag") == '"v1"'


def test_a_collected_file_is_begun_again_after_a_cut(remote):
    stack = remote()
    content = random_bytes(200_000)
    front = ask(stack)
    call = stack.source.accept()
    call.send(head(extra=["Transfer-Encoding: chunked"]) + chunked(content[::-1], end=False))
    call.cut()
    again = stack.source.accept()
    assert again.get("Range") is None
    again.send(head(extra=["Transfer-Encoding: chunked"]) + chunked(content))
    assert front.read_answer().body == content


def test_max_spooled_body_holds_for_it(remote):
    stack = remote(php_fpm={"max_spooled_body": "100K"})
    front = ask(stack)
    call = stack.source.accept()
    send(call, head(extra=["Transfer-Encoding: chunked"]) + chunked(bytes(200_000), end=False))
    message = check_error(front.read_answer(), 500, "artifact_unavailable")
    assert "max_spooled_body" in message
    call.wait_closed()


def test_a_disk_that_cannot_be_written_to(remote):
    stack = remote(php_fpm={"spool_directory": "/proc"})
    front = ask(stack)
    send(stack.source.accept(), head(extra=["Transfer-Encoding: chunked"]) + chunked(b"built"))
    check_error(front.read_answer(), 500, "artifact_unavailable")
    assert stack.sidecar.wait_log("the built file cannot be fetched")["detail"]


def test_equal_builds_share_one_fetch(remote):
    stack = remote()
    content = random_bytes(3 << 20)
    request = stack.build_request()
    fronts = [stack.php_asks_for_build(request) for _ in range(3)]
    wait_until(lambda: len(stack.sidecar.log("build shared")) == 2, "them to be shared")
    stack.velox.accept().answer(json.dumps({"path": stack.root + "/far/rr"}))
    call = stack.source.accept()
    call.send(head(len(content)) + content[:1_000_000])
    call.cut()
    again = stack.source.accept()
    first = int(again.get("Range")[6:-1])
    again.send(part_head(first, len(content)) + content[first:])
    for front in fronts:
        assert front.read_answer().body == content
    assert stack.source.is_idle(0.02) and stack.velox.is_idle(0.01)


def test_a_build_that_streams_already_is_not_shared(remote):
    stack = remote()
    request = stack.build_request()
    front = stack.php_asks_for_build(request)
    stack.velox.accept().answer(json.dumps({"path": stack.root + "/far/rr"}))
    call = stack.source.accept()
    call.send(head(5) + b"bu")
    front.read_head()
    other = stack.php_asks_for_build(request)
    stack.velox.accept().answer(json.dumps({"path": stack.root + "/far/rr"}))
    stack.source.accept().send(head(5) + b"built")
    assert other.read_answer().body == b"built"
    call.send(b"ilt")
    assert front.read_answer().ended


# ---- around it ---------------------------------------------------------------------------------------------------

def test_over_scgi(remote):
    from ports import unused_port
    import socket
    port = unused_port()
    stack = remote(listen={"scgi": f"127.0.0.1:{port}"})
    content = random_bytes(300_000)
    pairs = b"CONTENT_LENGTH\x000\x00SCGI\x001\x00REQUEST_METHOD\0GET\0SCRIPT_NAME\0/x\0REQUEST_URI\0/x\0"
    stack.sidecar.wait_log("ready")
    connection = socket.create_connection(("127.0.0.1", port), timeout=peers.DEADLINE)
    connection.sendall(b"%d:%s," % (len(pairs), pairs))
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"X-Velox-Build: 1\r\n\r\n" + stack.build_request())
    stack.velox.accept().answer(json.dumps({"path": stack.root + "/far/rr"}))
    call = stack.source.accept()
    send_counted(call, head(len(content)) + content, [0])
    got = b""
    while True:
        piece = connection.recv(1 << 16)
        if not piece:
            break
        got += piece
    connection.close()
    assert got.partition(b"\r\n\r\n")[2] == content


def test_an_abort_ends_the_fetch_and_keeps_the_connection(remote):
    stack = remote()
    content = random_bytes(8 << 20)
    front = ask(stack, keep=True)
    call = stack.source.accept()
    send_counted(call, head(len(content)) + content[:-1], [0])
    front.read_head()
    front.send(peers.record(peers.ABORT_REQUEST, 1))
    assert front.read_answer().ended
    call.wait_closed()
    stack.check_serves_next(front)


def test_a_stop_finishes_what_streams(remote):
    import signal
    stack = remote(sidecar={"threads": 1})
    content = random_bytes(1 << 20)
    front, call = begin(stack, content, 1000)
    got = front.read_head()[1]
    stack.sidecar.signal(signal.SIGTERM)
    stack.sidecar.wait_log("stopping") if stack.sidecar.log("stopping") else time.sleep(0.05)
    call.send(content[1000:])
    assert got + front.read_answer().stdout == content
    assert stack.sidecar.wait() == 0


def test_no_proxy_and_a_ca_file(remote, folder, monkeypatch):
    key, certificate = folder + "/key", folder + "/cert"
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                           "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                          capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip("no openssl command that makes a certificate")
    os.chmod(key, 0o644)
    os.chmod(certificate, 0o644)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    stack = remote(tls=tls, velox={"ca_file": certificate})
    front = ask(stack)
    stack.source.accept().send(head(5) + b"built")
    assert front.read_answer().body == b"built"
    stack = remote(tls=tls, retry={"max_attempts": 1})
    check_error(ask(stack).read_answer(), 500, "artifact_unavailable")


def test_with_the_cache_a_file_is_fetched_once(remote):
    stack = remote(cache={"enabled": "yes", "directory": "{folder}/cache"})
    content = random_bytes(1 << 20)
    request = stack.build_request(rr_version="v2025.1.2")
    front = stack.php_asks_for_build(request)
    stack.velox.accept().answer(json.dumps({"path": stack.root + "/far/rr"}))
    call = stack.source.accept()
    call.send(head(len(content)) + content[:500_000])
    call.cut()
    again = stack.source.accept()
    first = int(again.get("Range")[6:-1])
    again.send(part_head(first, len(content)) + content[first:])
    answer = front.read_answer()
    assert answer.body == content and answer.get("ETag") == '"' + hashlib.sha256(content).hexdigest() + '"'
    answer = stack.php_asks_for_build(request).read_answer()
    assert answer.body == content and answer.get("X-Cache-Status") == "HIT"
    assert stack.velox.is_idle(0.02) and stack.source.is_idle(0.01)


def test_with_x_accel_redirect_only_files_that_are_here_are_handed_over(remote):
    stack = remote(artifact={"delivery": "x-accel-redirect"})
    front, _ = begin(stack, b"fetched")
    answer = front.read_answer()
    assert answer.body == b"fetched" and answer.get("X-Accel-Redirect") is None
    assert stack.build().get("X-Accel-Redirect")
