# SPDX-License-Identifier: MIT
"""Pages that ask for a build: the client gets the built file, PHP keeps its worker."""
import hashlib
import itertools
import json
import os
import re
import time
import urllib.parse
from pathlib import Path

import pytest

from stack import Answer, wait_until

MEGABYTE = 1 << 20
PEAK_RSS_KB = 16 * 1024
ABORT_MS = 100

numbers = itertools.count(1)


def ask(**members):
    """A page that asks for a build of its own; gives its target and the build's request_id."""
    request_id = members.setdefault("request_id", f"e2e-{os.getpid()}-{next(numbers)}")
    members.setdefault("plugins", [{"module_name": "example.org/plugin", "tag": request_id}])
    return "/ask.php?json=" + urllib.parse.quote(json.dumps(members)), request_id


def ask_raw(text):
    return "/ask.php?raw=" + urllib.parse.quote(text)


def wait_for_build(stack, request_id, state="running"):
    def there():
        return [build for build in stack.builds_of(request_id) if build["state"] == state]
    return wait_until(there, f"build {request_id} is {state}")[0]


# ---- the file ----

@pytest.mark.parametrize("size", [0, 1, 65527, 65528, 65529, 61440, 64 * MEGABYTE])
def test_client_gets_the_built_file(stack, front, size):
    target, request_id = ask(standin={"size": size})
    answer = stack.get(target, front=front)
    build = stack.build_of(request_id)
    assert answer.status == 200
    assert answer.header("content-length") == str(size)
    assert len(answer.body) == size
    assert hashlib.sha256(answer.body).hexdigest() == build["sha256"]


def test_head_of_the_file(stack, front):
    target, request_id = ask(standin={"size": 1000, "delay_ms": 150})
    answer = stack.get(target, front=front)
    path = Path(stack.build_of(request_id)["path"])
    status = path.stat()
    assert answer.status == 200
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("content-length") == "1000"
    assert answer.header("etag") == f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    assert answer.header("last-modified") == time.strftime(
        "%a, %d %b %Y %H:%M:%S GMT", time.gmtime(status.st_mtime))
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("content-disposition") == 'attachment; filename="roadrunner-linux-amd64"'
    assert answer.header("x-build-request-id") == request_id
    assert answer.header("x-cache-status") == "MISS"
    assert re.fullmatch(r"\d+\.\d", answer.header("x-build-time"))
    assert answer.header("x-velox-build") is None
    assert answer.header("cache-control") == "private"
    assert answer.all("set-cookie") == ["session=kept", "second=kept%2C%20too"]


def test_windows_file_name(stack):
    target, _ = ask(target_platform={"os": "windows", "arch": "amd64"})
    assert stack.get(target).header("content-disposition") == (
        'attachment; filename="roadrunner-windows-amd64.exe"')


def test_example_page(stack, front):
    answer = stack.get("/build.php", front=front)
    assert answer.status == 200
    assert len(answer.body) == MEGABYTE
    assert answer.header("content-disposition") == 'attachment; filename="roadrunner-linux-amd64"'
    assert stack.get("/build.php", front=f"direct-{front}").status == 503


def test_post_gets_a_file_too(stack, front):
    target, request_id = ask(standin={"size": 70_000})
    answer = stack.request("POST", target, b"form=1", front=front)
    assert hashlib.sha256(answer.body).hexdigest() == stack.build_of(request_id)["sha256"]


def test_next_request_on_the_same_client_connection(stack, front):
    connection = stack.connect(front)
    for _ in range(5):
        target, request_id = ask(standin={"size": 200_000})
        connection.request("GET", target)
        answer = Answer(connection.getresponse())
        assert hashlib.sha256(answer.body).hexdigest() == stack.build_of(request_id)["sha256"]
        connection.request("GET", "/hello.php")
        assert Answer(connection.getresponse()).body == b"hello\n"
    connection.close()


def test_one_gigabyte_in_constant_memory(stack):
    child = stack.sidecar_child()
    Path(f"/proc/{child}/clear_refs").write_text("5")     # the peak is counted from here
    target, request_id = ask(standin={"size": 1 << 30, "sparse": True})
    connection = stack.send(target, "plain")
    response = connection.getresponse()
    assert response.getheader("content-length") == str(1 << 30)
    digest = hashlib.sha256()
    while block := response.read(MEGABYTE):
        digest.update(block)
    connection.close()
    build = stack.build_of(request_id)
    assert digest.hexdigest() == build["sha256"]
    os.unlink(build["path"])
    assert stack.sidecar_child() == child
    if "libasan" not in Path(f"/proc/{stack.sidecar.pid}/maps").read_text():
        peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child}/status").read_text())[1])
        assert peak < PEAK_RSS_KB


# ---- the worker ----

def test_worker_is_free_while_velox_builds(one_worker, front):
    target, request_id = ask(standin={"behaviour": "hang"})
    waiting = one_worker.send(target, front)
    wait_for_build(one_worker, request_id)
    for _ in range(10):
        assert one_worker.get("/hello.php", front=front).body == b"hello\n"
    assert one_worker.build_of(request_id)["state"] == "running"
    waiting.close()
    wait_for_build(one_worker, request_id, "cancelled")


def test_twenty_builds_do_not_slow_ordinary_pages(one_worker):
    """p50 and p99 of ordinary pages, one worker, 20 different builds waiting: within 1.2 times
    those without builds. Rounds with and without alternate, and the machine may be busy with other
    things, so three tries have to fail."""
    ratios = []
    for _ in range(3):
        quiet, building = [], []
        for _ in range(6):
            quiet += page_times(one_worker, 250)
            with_builds = start_builds(one_worker, 20)
            building += page_times(one_worker, 250)
            stop_builds(one_worker, with_builds)
        ratio = [percentile(building, q) / percentile(quiet, q) for q in (0.50, 0.99)]
        ratios.append([round(value, 3) for value in ratio])
        if max(ratio) <= 1.2:
            return
    pytest.fail(f"p50 and p99 with builds / without, three tries: {ratios}")


def page_times(stack, count):
    connection = stack.connect("kept")
    times = []
    for number in range(count + 20):
        start = time.perf_counter()
        connection.request("GET", "/hello.php")
        body = connection.getresponse().read()
        elapsed = time.perf_counter() - start
        assert body == b"hello\n"
        if number >= 20:     # the first ones warm up what lay idle
            times.append(elapsed)
    connection.close()
    return times


def percentile(values, q):
    return sorted(values)[int(q * (len(values) - 1))]


def start_builds(stack, count):
    asked = [ask(standin={"behaviour": "hang"}) for _ in range(count)]
    connections = [stack.send(target, "kept") for target, _ in asked]
    ids = {request_id for _, request_id in asked}
    wait_until(lambda: ids <= running(stack), f"{count} builds run")
    return connections, ids


def stop_builds(stack, with_builds):
    connections, ids = with_builds
    assert ids <= running(stack)
    for connection in connections:
        connection.close()
    wait_until(lambda: not ids & running(stack), "the builds are cancelled")


def running(stack):
    return {build["request_id"] for build in stack.builds() if build["state"] == "running"}


# ---- clients that leave, children that die ----

def test_client_that_leaves_ends_the_build(stack, front):
    """The POST at Velox is closed within 100 ms. Best of three: the machine may be busy."""
    delays = []
    for _ in range(3):
        target, request_id = ask(standin={"behaviour": "hang"})
        connection = stack.send(target, front)
        wait_for_build(stack, request_id)
        left_ms = time.monotonic() * 1000
        connection.close()
        build = wait_for_build(stack, request_id, "cancelled")
        delays.append(build["ended_ms"] - left_ms)
        if delays[-1] < ABORT_MS:
            return
    pytest.fail(f"closed after {delays} ms")


def test_client_that_leaves_during_the_download(stack, front):
    target, _ = ask(standin={"size": 64 * MEGABYTE})
    for _ in range(5):
        connection = stack.send(target, front)
        connection.getresponse().read(100_000)
        connection.close()
    assert stack.get("/hello.php", front=front).body == b"hello\n"


def test_killed_child_is_replaced(stack, front):
    """Once for each front: after five deaths in 10 s the parent takes its time."""
    child = stack.sidecar_child()
    os.kill(child, 9)
    assert stack.get("/hello.php", front=front).body == b"hello\n"
    assert stack.sidecar_child() != child
    target, request_id = ask(standin={"size": 100_000})
    answer = stack.get(target, front=front)
    assert hashlib.sha256(answer.body).hexdigest() == stack.build_of(request_id)["sha256"]


# ---- what goes wrong ----

def assert_error(answer, status, error, request_id=None):
    assert (answer.status, answer.json()["error"]) == (status, error), answer.body
    assert answer.json()["message"]
    assert answer.header("content-type") == "application/json"
    assert "no-store" in ", ".join(answer.all("cache-control"))
    assert answer.header("content-disposition") is None
    assert answer.header("x-velox-build") is None
    if request_id:
        assert answer.json()["request_id"] == request_id


@pytest.mark.parametrize("text, named", [
    ("not json", None),
    ("[]", None),
    ('{"plugins": []}', "rr_version"),
    ('{"rr_version": "v2025.1.2"}', "plugins"),
    ('{"rr_version": "v2025.1.2", "plugins": [{"module_name": "a"}]}', "tag"),
    ('{"rr_version": "v2025.1.2", "plugins": [], "request_id": "a b"}', "request_id"),
    ('{"rr_version": "v2025.1.2", "plugins": [], "target_platform": {"os": "linux"}}', "arch"),
])
def test_malformed_build_request(stack, front, text, named):
    answer = stack.get(ask_raw(text), front=front)
    assert_error(answer, 400, "invalid_request")
    if named:
        assert named in answer.json()["message"]



@pytest.mark.parametrize("standin, status, error", [
    ({"status": 400, "body": '{"code":"invalid_argument","message":"rr_version: odd"}'},
     400, "invalid_request"),
    ({"status": 500, "body": '{"code":"internal","message":"compiler output"}'},
     500, "build_failed"),
    ({"behaviour": "success_false"}, 500, "build_failed"),
    ({"path": "/etc/passwd"}, 500, "artifact_unavailable"),
    ({"path": "relative/rr"}, 500, "artifact_unavailable"),
    ({"behaviour": "no_path"}, 502, "velox_unavailable"),
    ({"behaviour": "empty"}, 502, "velox_unavailable"),
    ({"status": 404, "body": "<html>no such page</html>", "content_type": "text/html"},
     502, "velox_unavailable"),
    ({"behaviour": "cut_before"}, 502, "velox_unavailable"),
    ({"behaviour": "cut_mid"}, 502, "velox_unavailable"),
])
def test_error_of_velox(stack, standin, status, error):
    target, request_id = ask(standin=standin)
    answer = stack.get(target)
    assert_error(answer, status, error, request_id)
    assert answer.all("set-cookie") == ["session=kept", "second=kept%2C%20too"]
    if "/etc" in str(standin):
        assert b"root:" not in answer.body


def test_artifact_that_does_not_exist(stack):
    target, request_id = ask(standin={"path": str(stack.artifacts / "gone")})
    assert_error(stack.get(target), 500, "artifact_unavailable", request_id)


def test_compiler_output_reaches_the_developer(stack):
    target, _ = ask(standin={"status": 500, "body": json.dumps(
        {"code": "internal", "message": "plugin.go:3: undefined: \x1b[31mfoo"})})
    answer = stack.get(target)
    assert "plugin.go:3: undefined" in answer.json()["message"]
    assert b"\x1b" not in answer.body


def test_build_that_takes_too_long(impatient, front):
    target, request_id = ask(standin={"behaviour": "hang"})
    start = time.monotonic()
    answer = impatient.get(target, front=front)
    assert_error(answer, 504, "timeout", request_id)
    assert time.monotonic() - start < 5


def test_build_that_succeeds_when_tried_again(stack):
    target, request_id = ask(standin={"behaviour": "cut_before", "times": 2, "size": 5000})
    answer = stack.get(target)
    assert answer.status == 200
    builds = stack.builds_of(request_id)
    assert [build["state"] for build in builds] == ["cut", "cut", "finished"]
    assert hashlib.sha256(answer.body).hexdigest() == builds[-1]["sha256"]
