# SPDX-License-Identifier: MIT
"""What the client gets for each thing that Velox may do, and how often Velox is asked (spec, section 6)."""

import json
import re
import threading
import time

import pytest

import peers
from conftest import check_error, check_waits
from peers import SLOW
from ports import unused_port


def connect_error(code, message="the reason", **more):
    return json.dumps({"code": code, "message": message, **more})


# name: (answer of Velox, posts, status, error)
FAILURES = {
    # tried again
    "cut before the answer": (dict(cut=True), 3, 502, "velox_unavailable"),
    "cut within the head": (dict(raw=b"HTTP/1.1 200 OK\r\nContent-"), 3, 502, "velox_unavailable"),
    "cut within the body": (dict(raw=b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"path":"/tm'),
                            3, 502, "velox_unavailable"),
    "cut within a chunk": (dict(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{\"pa"),
                           3, 502, "velox_unavailable"),
    "no HTTP": (dict(raw=b"SSH-2.0-OpenSSH\r\n"), None, 502, "velox_unavailable"),
    "mid-JSON end": (dict(body='{"path":"/tmp'), 3, 502, "velox_unavailable"),
    "a 500 page": (dict(status=500, body="<html>", content_type="text/html"), 3, 502, "velox_unavailable"),
    "an empty 500": (dict(status=500, body=""), 3, 502, "velox_unavailable"),
    "429": (dict(status=429, body="slow down", content_type="text/plain"), 3, 502, "velox_unavailable"),
    "502": (dict(status=502, body="<html>", content_type="text/html"), 3, 502, "velox_unavailable"),
    "503": (dict(status=503, body="{}"), 3, 502, "velox_unavailable"),
    "unavailable": (dict(status=503, body=connect_error("unavailable")), 3, 502, "velox_unavailable"),
    "aborted": (dict(status=409, body=connect_error("aborted")), 3, 502, "velox_unavailable"),
    "resource_exhausted": (dict(status=429, body=connect_error("resource_exhausted")), 3, 502, "velox_unavailable"),
    "unavailable as 400": (dict(status=400, body=connect_error("unavailable")), 3, 502, "velox_unavailable"),
    "deadline_exceeded": (dict(status=504, body=connect_error("deadline_exceeded")), 3, 504, "timeout"),
    "deadline_exceeded as 408": (dict(status=408, body=connect_error("deadline_exceeded")), 3, 504, "timeout"),
    "unknown code as 503": (dict(status=503, body=connect_error("strange")), 3, 502, "velox_unavailable"),
    # the build failed
    "success false": (dict(body='{"success":false,"error":"the reason","code":"BUILD_ERROR"}'),
                      1, 500, "build_failed"),
    "success false as 500": (dict(status=500, body='{"success":false,"error":"the reason"}'), 1, 500, "build_failed"),
    "success false as 503": (dict(status=503, body='{"success":false,"error":"the reason"}'), 1, 500, "build_failed"),
    "success false with a path": (dict(body='{"success":false,"path":"/tmp/rr","error":"the reason"}'),
                                  1, 500, "build_failed"),
    "internal": (dict(status=500, body=connect_error("internal")), 1, 500, "build_failed"),
    "internal as 503": (dict(status=503, body=connect_error("internal")), 1, 500, "build_failed"),
    "unknown": (dict(status=500, body=connect_error("unknown")), 1, 500, "build_failed"),
    "failed_precondition": (dict(status=400, body=connect_error("failed_precondition")), 1, 500, "build_failed"),
    "not_found": (dict(status=404, body=connect_error("not_found")), 1, 500, "build_failed"),
    # refused
    "invalid_argument": (dict(status=400, body=connect_error("invalid_argument")), 1, 400, "invalid_request"),
    "invalid_argument as 503": (dict(status=503, body=connect_error("invalid_argument", details=[])),
                                1, 400, "invalid_request"),
    # not usable
    **{code: (dict(status=status, body=connect_error(code)), 1, 502, "velox_unavailable") for code, status in (
        ("permission_denied", 403), ("unauthenticated", 401), ("unimplemented", 501), ("canceled", 499),
        ("out_of_range", 400), ("data_loss", 500))},
    "unknown code as 400": (dict(status=400, body=connect_error("strange")), 1, 502, "velox_unavailable"),
    "unknown code as 500": (dict(status=500, body=connect_error("strange")), 1, 502, "velox_unavailable"),
    "a redirect": (dict(status=302, body="", headers=[("Location", "/elsewhere")]), 1, 502, "velox_unavailable"),
    "a 307": (dict(status=307, body="", headers=[("Location", "/elsewhere")]), 1, 502, "velox_unavailable"),
    "a 404 page": (dict(status=404, body="<html>", content_type="text/html"), 1, 502, "velox_unavailable"),
    "a 401 page": (dict(status=401, body=""), 1, 502, "velox_unavailable"),
    "a 413 page": (dict(status=413, body="{}"), 1, 502, "velox_unavailable"),
    "200 that is no JSON": (dict(body="ELF binary", content_type="application/octet-stream"),
                            1, 502, "velox_unavailable"),
    "an empty 200": (dict(body=""), 1, 502, "velox_unavailable"),
    "204": (dict(status=204, body=""), 1, 502, "velox_unavailable"),
    "no path": (dict(body='{"logs":""}'), 1, 502, "velox_unavailable"),
    "a path of null": (dict(body='{"path":null}'), 1, 502, "velox_unavailable"),
    "a path that is a number": (dict(body='{"path":7}'), 1, 502, "velox_unavailable"),
    "an empty path": (dict(body='{"path":""}'), 1, 502, "velox_unavailable"),
    "an array": (dict(body='["path"]'), 1, 502, "velox_unavailable"),
    "a path with 201": (dict(status=201, body='{"path":"/tmp/rr"}'), 1, 502, "velox_unavailable"),
    "success true without a path": (dict(body='{"success":true}'), 1, 502, "velox_unavailable"),
    "an endless answer": (dict(body='{"logs":"' + "x" * (20 << 20) + '"}'), None, 502, "velox_unavailable"),
}


def play(call, raw=None, cut=False, **answer):
    if cut:
        call.cut()
    elif raw is not None:
        call.send(raw)
        call.cut()
    else:
        try:
            call.answer(**answer)
        except OSError:
            pass


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_of_velox_is_told_after_as_many_attempts_as_make_sense(stack, name):
    answer, posts, status, error = FAILURES[name]
    calls = []

    def respond(call):
        calls.append(call)
        play(call, **answer)

    stack.velox.respond = respond
    request = stack.build_request(request_id="mine-" + str(len(name)))
    front = stack.php_asks_for_build(request)
    message = check_error(front.read_answer(), status, error, request_id=json.loads(request)["request_id"])
    if posts:
        assert len(calls) == posts
    assert len({call.body for call in calls}) == 1, "attempts differ"
    assert all(call.target == "/api.service.v1.BuildService/Build" for call in calls)
    if "the reason" in str(answer.get("body")) and error in ("build_failed", "invalid_request"):
        assert "the reason" in message


@pytest.mark.parametrize("name", [name for name, (_, posts, *_) in FAILURES.items() if posts == 3])
def test_a_passing_trouble_is_not_noticed_by_the_client(stack, name):
    path = stack.artifact(b"built")
    calls = []

    def respond(call):
        calls.append(call)
        play(call, **FAILURES[name][0]) if len(calls) < 3 else call.answer(json.dumps({"path": path}))

    stack.velox.respond = respond
    front = stack.php_asks_for_build()
    answer = front.read_answer()
    assert answer.status == 200 and answer.body == b"built" and len(calls) == 3


SUCCESSES = {
    "path and logs": dict(body='{"path":"PATH","logs":""}'),
    "path only": dict(body='{"path":"PATH"}'),
    "the seed's shape": dict(body='{"success":true,"path":"PATH","build_id":"b1","duration_ms":58234}'),
    "spaces and unknown members": dict(body=' {\n "x": [1, {"path": 2}],\n "path" : "PATH" }\n'),
    "another content type": dict(body='{"path":"PATH"}', content_type="text/plain; charset=utf-8"),
    "no content type": dict(body='{"path":"PATH"}', content_type=None),
    "a null error": dict(body='{"success":true,"error":null,"code":null,"path":"PATH"}'),
    "long logs": dict(body='{"path":"PATH","logs":"' + "l" * 100000 + '"}'),
    "escaped slashes": dict(body='{"path":"PATH","logs":"\\u001b[0m"}', slash="\\/"),
}


@pytest.mark.parametrize("name", SUCCESSES)
def test_a_success_in_any_known_shape_is_delivered(stack, name):
    answer = dict(SUCCESSES[name])
    path = stack.artifact(b"built").replace("/", answer.pop("slash", "/"))
    answer["body"] = answer["body"].replace("PATH", path)
    answer = stack.build(answer.pop("body"), **answer)
    assert answer.status == 200 and answer.body == b"built"


def test_an_answer_in_chunks_and_pieces_is_understood(stack):
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    body = json.dumps({"path": stack.artifact(b"built")}).encode()
    call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in body:
        call.send(b"1\r\n%c\r\n" % byte)
    call.send(b"0\r\n\r\n")
    assert front.read_answer().body == b"built"


def test_an_answer_that_ends_with_the_connection_is_understood(stack):
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    call.send(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps({"path": stack.artifact(b"built")}).encode())
    call.cut()
    assert front.read_answer().body == b"built"


def test_nothing_of_veloxs_head_reaches_the_client(stack):
    answer = stack.build(headers=[("X-Evil", "1"), ("Set-Cookie", "a=b"), ("Content-Disposition", "inline")])
    assert answer.get("X-Evil") is None and answer.get("Set-Cookie") is None
    assert answer.get("Content-Disposition") == 'attachment; filename="roadrunner-linux-amd64"'


def test_velox_that_is_not_there_is_502(start):
    stack = start(velox={"server_url": f"http://127.0.0.1:{unused_port()}"})
    check_error(stack.php_asks_for_build().read_answer(), 502, "velox_unavailable")


def test_velox_is_found_by_name(start):
    velox = peers.Velox()
    stack = start(velox={"server_url": velox.url.replace("127.0.0.1", "localhost")})
    front = stack.php_asks_for_build()
    velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"
    velox.close()


def test_velox_that_comes_up_in_time_is_not_noticed(start):
    port = unused_port()
    stack = start(velox={"server_url": f"http://127.0.0.1:{port}"},
                  retry={"initial_delay": "300ms", "max_delay": "300ms", "max_attempts": 5})
    front = stack.php_asks_for_build()
    stack.sidecar.wait_log("build retry")
    velox = peers.Velox(f"127.0.0.1:{port}")
    velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"
    velox.close()


def test_the_next_attempt_goes_to_the_next_server(start):
    servers = [peers.Velox(), peers.Velox()]
    stack = start(velox={"server_url": ", ".join(server.url for server in servers)})
    path = stack.artifact(b"built")
    asked = []

    def responder(number):
        def respond(call):
            asked.append(number)
            call.answer(status=503, body="") if len(asked) < 3 else call.answer(json.dumps({"path": path}))
        return respond

    for number, server in enumerate(servers):
        server.respond = responder(number)
    assert stack.php_asks_for_build().read_answer().body == b"built"
    assert asked in ([0, 1, 0], [1, 0, 1])
    for server in servers:
        server.close()


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_max_attempts_is_obeyed(start, attempts):
    stack = start(retry={"max_attempts": attempts})
    stack.velox.respond = lambda call: call.answer(status=503, body="")
    check_error(stack.php_asks_for_build().read_answer(), 502, "velox_unavailable")
    assert len(stack.velox.history) == attempts


def test_the_waits_between_attempts_grow_up_to_max_delay(start):
    stack = start(retry={"initial_delay": "60ms", "max_delay": "150ms", "backoff_multiplier": 2, "max_attempts": 5})
    stack.velox.respond = lambda call: call.answer(status=503, body="")
    began = time.monotonic()
    check_error(stack.php_asks_for_build().read_answer(), 502, "velox_unavailable")
    check_waits(began, [call.at for call in stack.velox.history], [0.060, 0.120, 0.150, 0.150])


def test_retry_after_is_honoured(stack):
    path = stack.artifact(b"built")
    stack.velox.respond = lambda call: (call.answer(status=503, body="", headers=[("Retry-After", "1")])
                                        if len(stack.velox.history) == 1 else call.answer(json.dumps({"path": path})))
    began = time.monotonic()
    assert stack.php_asks_for_build().read_answer().body == b"built"
    check_waits(began, [call.at for call in stack.velox.history], [1.0])


def test_a_build_that_another_client_has_running_is_waited_for(start):
    """already_exists is no attempt: asked again every max_delay."""
    stack = start(retry={"max_attempts": 1, "max_delay": "100ms"})
    path = stack.artifact(b"built")

    def respond(call):
        if len(stack.velox.history) < 5:
            call.answer(status=409, body=connect_error("already_exists"))
        else:
            call.answer(json.dumps({"path": path}))

    stack.velox.respond = respond
    began = time.monotonic()
    assert stack.php_asks_for_build().read_answer().body == b"built"
    check_waits(began, [call.at for call in stack.velox.history], [0.1] * 4)


def test_a_build_that_another_client_never_finishes_is_504(start):
    stack = start(velox={"build_timeout": f"{550 * SLOW:.0f}ms"}, retry={"max_delay": "100ms"})
    stack.velox.respond = lambda call: call.answer(status=409, body=connect_error("already_exists"))
    began = time.monotonic()
    check_error(stack.php_asks_for_build().read_answer(), 504, "timeout")
    assert 0.54 * SLOW <= time.monotonic() - began < 1 * SLOW
    assert len(stack.velox.history) >= 4


def test_build_timeout_is_504_and_ends_the_post(start):
    stack = start(velox={"build_timeout": "200ms"})
    began = time.monotonic()
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    assert 0 < int(call.get("Connect-Timeout-Ms")) <= 200
    check_error(front.read_answer(), 504, "timeout")
    assert 0.19 <= time.monotonic() - began < 1 * SLOW
    call.wait_closed()
    assert stack.velox.is_idle(0.02)


def test_build_timeout_bounds_all_attempts_together(start):
    stack = start(velox={"build_timeout": "250ms"},
                  retry={"max_attempts": 100, "initial_delay": "20ms", "max_delay": "20ms"})
    stack.velox.respond = lambda call: call.answer(status=503, body="")
    began = time.monotonic()
    answer = stack.php_asks_for_build().read_answer()
    assert answer.status in (502, 504)
    assert time.monotonic() - began < 1 * SLOW


def test_request_timeout_begins_again_and_ends_as_504(start):
    stack = start(velox={"request_timeout": f"{100 * SLOW:.0f}ms"}, retry={"max_attempts": 2})
    front = stack.php_asks_for_build()
    for _ in range(2):
        call = stack.velox.accept()
        assert 0 < int(call.get("Connect-Timeout-Ms")) <= 100 * SLOW
        assert 0.08 * SLOW <= call.wait_closed() - call.at < 0.5 * SLOW
    check_error(front.read_answer(), 504, "timeout")
    assert stack.velox.is_idle(0.02)


def test_request_timeout_covers_an_answer_that_drips(start):
    stack = start(velox={"request_timeout": "150ms"}, retry={"max_attempts": 1})
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    def drip():
        try:
            while not call.closed.wait(0.02):
                call.send(b" ")
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    check_error(front.read_answer(), 504, "timeout")
    call.wait_closed()


def test_veloxs_text_is_told_without_its_control_characters_and_not_at_any_length(stack):
    text = "compile error:\n\x1b[31mmain.go\x1b[0m \"quoted\" <b>\t\r é\x7f" + "x" * 10000
    answer = stack.build(json.dumps({"code": "internal", "message": text}), status=500)
    message = check_error(answer, 500, "build_failed")
    assert "compile error:" in message and '"quoted" <b>' in message and "é" in message
    assert 4000 <= len(message.encode()) <= 4096 + 200
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", answer.body) and b"\n" not in answer.body.rstrip(b"\n")
    log = stack.sidecar.log_text()
    assert "\x1b" not in log


def test_text_that_is_no_utf8_makes_no_broken_json(stack):
    stack.velox.respond = lambda call: call.answer(b'{"success":false,"error":"bad \xff\xfe bytes \xe9"}')
    answer = stack.php_asks_for_build().read_answer()
    assert answer.status in (500, 502)
    json.loads(answer.body.decode("utf-8"))
    stack.sidecar.log()


def test_builds_beyond_max_concurrent_builds_wait_their_turn(start):
    stack = start(velox={"max_concurrent_builds": 2})
    fronts = [stack.php_asks_for_build(stack.build_request(request_id=f"n{number}")) for number in range(5)]
    asked = []
    running = [stack.velox.accept(), stack.velox.accept()]
    while running:
        assert stack.velox.is_idle(0.02)
        call = running.pop(0)
        asked.append(json.loads(call.body)["request_id"])
        call.answer(json.dumps({"path": stack.artifact(asked[-1].encode())}))
        if len(asked) + len(running) < 5:
            running.append(stack.velox.accept())
    assert sorted(asked[:2]) == ["n0", "n1"] and asked[2:] == ["n2", "n3", "n4"]
    for number, front in enumerate(fronts):
        assert front.read_answer().body == b"n%d" % number


def test_a_full_queue_is_503(start):
    stack = start(velox={"max_concurrent_builds": 1, "max_queued_builds": 1})
    first = stack.php_asks_for_build()
    call = stack.velox.accept()
    second = stack.php_asks_for_build()
    assert second.is_silent()
    third = stack.php_asks_for_build()
    check_error(third.read_answer(), 503, "busy")
    call.answer(json.dumps({"path": stack.artifact(b"first")}))
    assert first.read_answer().body == b"first"
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"second")}))
    assert second.read_answer().body == b"second"


def test_pages_are_answered_while_builds_wait(stack):
    """PHP is free, and no build holds up another exchange."""
    fronts = [stack.php_asks_for_build() for _ in range(20)]
    calls = [stack.velox.accept() for _ in range(20)]
    for _ in range(30):
        stack.check_serves()
    for call in calls:
        call.answer(json.dumps({"path": stack.artifact(call.body)}))
    for front in fronts:
        assert b"rr_version" in front.read_answer().body
