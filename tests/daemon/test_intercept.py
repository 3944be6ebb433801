# SPDX-License-Identifier: MIT
"""Which answers of PHP are build requests, and what becomes of the header otherwise (spec, section 5)."""

import json

import pytest

import peers
from conftest import check_error, wait_until
from peers import environment

BUILD_HEAD = b"X-Velox-Build: true\r\n"


def relay(stack, head, body=b'{"a":1}', cut=65528, **ask):
    """PHP answers; what the front gets."""
    front = stack.ask(**ask)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(peers.STDOUT, head + b"\r\n" + body, size=cut), peers.end_request())
    return front.read_answer()


NOT_INTERCEPTED = {
    "0": b"X-Velox-Build: 0\r\n",
    "false": b"X-Velox-Build: false\r\n",
    "no": b"X-Velox-Build: no\r\n",
    "off": b"X-Velox-Build: off\r\n",
    "OFF in capitals and spaces": b"X-Velox-Build: \t OFF  \r\n",
    "empty": b"X-Velox-Build:\r\n",
    "blank": b"X-Velox-Build:   \r\n",
    "two that do not count": b"X-Velox-Build: 0\r\nx-velox-build: off\r\n",
    "status 304": b"Status: 304 Not Modified\r\n" + BUILD_HEAD,
    "status 500": b"Status: 500 Internal Server Error\r\n" + BUILD_HEAD,
    "status 404": BUILD_HEAD + b"Status: 404 Not Found\r\n",
    "status 302": b"Status: 302 Found\r\nLocation: /x\r\n" + BUILD_HEAD,
    "status 199": b"Status: 199 Odd\r\n" + BUILD_HEAD,
    "status 300": b"Status: 300\r\n" + BUILD_HEAD,
    "a Location without a status": b"Location: /elsewhere\r\n" + BUILD_HEAD,
}


def without_build_header(head):
    return b"".join(line for line in head.splitlines(keepends=True)
                    if not line.lower().startswith(b"x-velox-build:"))


@pytest.mark.parametrize("name", NOT_INTERCEPTED)
@pytest.mark.parametrize("cut", [65528, 1])
def test_an_answer_that_is_no_build_request_passes_without_the_header(stack, name, cut):
    head = b"X-A: 1\r\n" + NOT_INTERCEPTED[name] + b"X-B: 2\r\n"
    answer = relay(stack, head, cut=cut)
    assert answer.stdout == without_build_header(head) + b"\r\n" + b'{"a":1}'
    assert answer.ended and stack.velox.is_idle(0.01)


@pytest.mark.parametrize("method", ["HEAD", "", None])
def test_a_request_without_a_body_to_give_is_not_intercepted(stack, method):
    pairs = [each for each in environment() if each[0] != "REQUEST_METHOD"]
    if method is not None:
        pairs.append(("REQUEST_METHOD", method))
    answer = relay(stack, BUILD_HEAD + b"X-A: 1\r\n", body=b"", pairs=pairs)
    assert answer.stdout == b"X-A: 1\r\n\r\n" and stack.velox.is_idle(0.01)


def test_without_server_url_the_header_is_removed_and_a_warning_logged(start):
    stack = start(with_velox=False)
    answer = relay(stack, BUILD_HEAD + b"X-A: 1\r\n")
    assert answer.stdout == b'X-A: 1\r\n\r\n{"a":1}'
    wait_until(lambda: [line for line in stack.sidecar.log()
                        if line["level"] == "warn" and "server_url" in json.dumps(line)], "the warning")


@pytest.mark.parametrize("line", [b"X-Velox-Build: 0\r\n", b"X-Velox-Build: true\r\n"])
@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("cut", [65528, 8184, 1000])
def test_a_head_too_large_to_hold_passes_without_the_header(stack, line, place, cut):
    long = b"".join(b"X-Long-%d: %s\r\n" % (number, b"v" * 1000) for number in range(90))
    head = line + long if place == "first" else long + line
    answer = relay(stack, head + b"X-B: 2\r\n", cut=cut)
    assert answer.stdout == long + b"X-B: 2\r\n\r\n" + b'{"a":1}'
    assert stack.velox.is_idle(0.01)


def test_the_limit_of_a_head_is_obeyed(start):
    stack = start(php_fpm={"max_response_head": "1K"})
    answer = relay(stack, b"X-Long: " + b"v" * 1100 + b"\r\n" + BUILD_HEAD)
    assert answer.stdout == b"X-Long: " + b"v" * 1100 + b'\r\n\r\n{"a":1}'
    assert stack.velox.is_idle(0.01)


INTERCEPTED = {
    "plain": b"X-Velox-Build: true\r\n",
    "1": b"X-Velox-Build: 1\r\n",
    "any word": b"X-Velox-Build: please\r\n",
    "lower case": b"x-velox-build: yes\r\n",
    "upper case": b"X-VELOX-BUILD: ON\r\n",
    "no space": b"X-Velox-Build:true\r\n",
    "LF": b"X-Velox-Build: true\n",
    "one of two counts": b"X-Velox-Build: 0\r\nX-Velox-Build: 1\r\n",
    "the first of two counts": b"X-Velox-Build: 1\r\nX-Velox-Build: 0\r\n",
    "status 200": b"Status: 200 OK\r\nX-Velox-Build: true\r\n",
    "status 201": b"X-Velox-Build: true\r\nStatus: 201 Created\r\n",
    "status 299": b"Status: 299\r\nX-Velox-Build: true\r\n",
    "status and a Location": b"Status: 201 Created\r\nLocation: /x\r\nX-Velox-Build: true\r\n",
}


@pytest.mark.parametrize("name", INTERCEPTED)
@pytest.mark.parametrize("cut", [65528, 1])
def test_a_build_request_is_intercepted(stack, name, cut):
    request = stack.build_request()
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(peers.STDOUT, INTERCEPTED[name] + b"\r\n" + request, size=cut), peers.end_request())
    worker.wait_closed()
    call = stack.velox.accept()
    assert call.body == request
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.status == 200 and answer.body == b"built"
    assert answer.get("X-Velox-Build") is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_any_method_with_an_answer_may_build(stack, method):
    front = stack.php_asks_for_build(pairs=environment(method))
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


# ---- capture ---------------------------------------------------------------------------------------

def begin_capture(stack, content, keep=False):
    front = stack.ask(keep=keep)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout(BUILD_HEAD + content)
    return front, worker


def finish(stack, front):
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.status == 200 and answer.body == b"built"


def test_the_build_starts_at_the_end_of_the_json_value(stack):
    """Not at END_REQUEST: a script may go on after its answer."""
    front, worker = begin_capture(stack, b"\r\n" + stack.build_request())
    finish(stack, front)
    worker.end()
    worker.wait_closed()


def test_the_build_starts_at_content_length(stack):
    request = stack.build_request()
    front, worker = begin_capture(stack, b"Content-Length: %d\r\n\r\n" % len(request) + request)
    finish(stack, front)


@pytest.mark.parametrize("length", ["9999", "-1", "abc", ""])
def test_a_wrong_content_length_of_the_script_does_no_harm(stack, length):
    request = stack.build_request()
    front, worker = begin_capture(stack, f"Content-Length: {length}\r\n\r\n".encode() + request)
    worker.end()
    finish(stack, front)


def test_a_worker_that_dies_after_the_json_changes_nothing(stack):
    front, worker = begin_capture(stack, b"\r\n" + stack.build_request())
    worker.close()
    finish(stack, front)


def test_what_a_worker_sends_after_the_json_reaches_nobody(stack):
    front, worker = begin_capture(stack, b"\r\n" + stack.build_request() + b"\n")
    call = stack.velox.accept()
    worker.stdout("more")
    worker.end()
    worker.wait_closed()
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


@pytest.mark.parametrize("keep,served", [(False, False), (True, True)])
def test_a_worker_that_dies_before_the_json_is_complete(stack, keep, served):
    front = stack.front()
    if served:
        front.ask(keep=True)
        worker = stack.fpm.accept()
        worker.read_request()
        worker.answer("\r\npage")
        front.read_answer()
    front.ask(keep=keep)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout(BUILD_HEAD + b"\r\n" + stack.build_request()[:30])
    worker.close()
    if served:
        check_error(front.read_answer(), 502, "worker_failed")
    else:
        front.assert_closed_without_answer()
    assert stack.velox.is_idle(0.02)


def test_error_text_during_capture_and_build_passes(stack):
    front, worker = begin_capture(stack, b"\r\n")
    worker.stderr("one;")
    worker.stdout(stack.build_request())
    worker.stderr("two")
    worker.end()
    worker.wait_closed()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.body == b"built" and answer.stderr == b"one;two"


def test_a_worker_that_lingers_after_its_build_request_is_let_go(start):
    stack = start(php_fpm={"finish_timeout": "150ms"})
    front, worker = begin_capture(stack, b"\r\n" + stack.build_request())
    call = stack.velox.accept()
    worker.wait_closed()
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


def test_an_upload_that_still_runs_does_not_stop_the_build(stack):
    front = stack.front()
    front.begin(environment("POST", b"", length="100000"), keep=True)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer(BUILD_HEAD + b"\r\n" + stack.build_request())
    worker.wait_closed()
    call = stack.velox.accept()
    front.send(peers.stream(peers.STDIN, b"x" * 100000, size=32768), peers.record(peers.STDIN))
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"
    stack.check_serves_next(front)


def test_a_body_that_ends_short_during_capture_is_400(stack):
    front = stack.front()
    front.begin(environment("POST", b"", length="10"), keep=True)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.stdout(BUILD_HEAD + b"\r\n{")
    front.send(peers.record(peers.STDIN, 1, b"short"), peers.record(peers.STDIN))
    check_error(front.read_answer(), 400, "invalid_request")
    worker.wait_closed()
