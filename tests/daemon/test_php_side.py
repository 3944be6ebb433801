# SPDX-License-Identifier: MIT
"""What PHP-FPM gets to see, and what happens when it fails (spec, sections 4.2 and 4.6 to 4.8)."""

import os
import socket
import time

import pytest

import peers
from conftest import check_error, wait_until
from peers import BEGIN_REQUEST, KEEP_CONN, PARAMS, RESPONDER, STDIN, environment, random_bytes


# ---- the request ---------------------------------------------------------------------------------

def test_a_worker_sees_a_plain_request_whatever_the_front_sent(stack):
    body = random_bytes(70000)
    front = stack.ask(environment("POST", body), body, request_id=777, keep=True)
    worker = stack.fpm.accept()
    request = worker.read_request()
    assert (request.id, request.role, request.flags) == (1, RESPONDER, 0)
    assert [each.type for each in request.records if each.type not in (PARAMS, STDIN)] == [BEGIN_REQUEST]
    for each in request.records:
        assert each.version == 1 and each.id == 1
        # PHP-FPM resets on more than 65535 and loses its place on padding of an empty record.
        assert len(each.content) + len(each.padding) <= 65535
        assert each.content or not each.padding
    assert request.stdin == body
    worker.answer("\r\npage")
    front.read_answer(777)


def test_parameters_pass_in_order_and_unchanged(stack):
    extra = [("HTTP_X_EMPTY", ""), ("HTTP_X_127", "a" * 127), ("HTTP_X_128", "b" * 128),
             ("HTTP_X_BYTES", b"\0\xff\r\n="), ("N" * 200, "long name"), ("PHP_VALUE", "a=b"),
             ("PATH_INFO", "/a%0ab"), ("HTTP_X_LONG", "c" * 60000)]
    front = stack.ask(environment(extra=extra))
    worker = stack.fpm.accept()
    request = worker.read_request()
    sent = [(peers.to_bytes(name), peers.to_bytes(value)) for name, value in environment(extra=extra)]
    assert [each for each in request.pairs if each[0] != b"VELOX_SIDECAR"] == sent
    worker.answer("\r\npage")
    front.read_answer()


@pytest.mark.parametrize("length", [900, 9000, 30000, 40000, 64000])
def test_parameters_of_more_than_one_record_are_cut_between_pairs(stack, length):
    """Worker.read_request fails on a pair that is cut in two, as PHP-FPM does."""
    extra = [(f"HTTP_X_{number}", f"{number}" + "v" * length) for number in range(180000 // length)]
    front = stack.ask(environment(extra=extra))
    worker = stack.fpm.accept()
    request = worker.read_request()
    for name, value in extra:
        assert request.get(name) == value
    assert sum(1 for each in request.records if each.type == PARAMS) >= 3
    worker.answer("\r\npage")
    front.read_answer()


def test_http_proxy_is_dropped(stack):
    front = stack.ask(environment(extra=[("HTTP_PROXY", "http://evil"), ("HTTP_PROXY_X", "kept"),
                                         ("http_proxy", "kept")]))
    worker = stack.fpm.accept()
    request = worker.read_request()
    assert request.get("HTTP_PROXY") is None
    assert request.get("HTTP_PROXY_X") == "kept" and request.get("http_proxy") == "kept"
    worker.answer("\r\npage")
    front.read_answer()


def test_an_application_can_tell_that_builds_are_taken_off_its_hands(stack):
    front = stack.ask(environment())
    worker = stack.fpm.accept()
    assert worker.read_request().get("VELOX_SIDECAR")[0].isdigit()
    worker.answer("\r\npage")
    front.read_answer()


def test_without_server_url_nothing_is_added(start):
    stack = start(with_velox=False)
    front = stack.ask(environment())
    worker = stack.fpm.accept()
    assert worker.read_request().pairs == [(name.encode(), value.encode()) for name, value in environment()]
    worker.answer("\r\npage")
    front.read_answer()


def test_a_worker_is_not_disturbed_before_the_parameters_are_complete(stack):
    front = stack.front()
    encoded = peers.encode_params(environment("POST", b"hello"))
    front.send(peers.begin_request(), peers.record(PARAMS, 1, encoded[:50]))
    assert stack.fpm.is_idle()
    front.send(peers.record(PARAMS, 1, encoded[50:]))
    assert stack.fpm.is_idle()
    front.send(peers.record(PARAMS))
    worker = stack.fpm.accept()
    # PHP may begin before the body is there.
    worker.read_params()
    front.send(peers.record(STDIN, 1, b"hello"), peers.record(STDIN))
    worker.read_request()
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


def test_each_request_of_a_kept_connection_has_a_worker_connection_of_its_own(stack):
    front = stack.front()
    for _ in range(3):
        front.ask(keep=True)
        worker = stack.fpm.accept()
        worker.read_request()
        worker.answer("\r\npage")
        worker.wait_closed()
        assert front.read_answer().body == b"page"
    assert stack.fpm.is_idle()


def test_the_worker_connection_is_closed_at_end_request_though_the_worker_stays(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(peers.STDOUT, b"\r\npage"), peers.end_request())
    sent_at = time.monotonic()
    assert worker.wait_closed() - sent_at < 0.1 * peers.SLOW
    assert front.read_answer().body == b"page"


def test_bytes_after_end_request_reach_nobody(stack):
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(peers.STDOUT, b"\r\npage"), peers.end_request(),
                peers.stream(peers.STDOUT, b"late"), peers.end_request())
    assert front.read_answer().body == b"page"
    assert front.is_silent()


# ---- request bodies and their length ---------------------------------------------------------------

@pytest.mark.parametrize("announced", [False, "", "-1", "abc", "12abc", "0x10", " 5"])
@pytest.mark.parametrize("size", [1, 70000, 3 << 20])
def test_a_body_of_unannounced_length_is_counted_for_php(stack, announced, size):
    body = random_bytes(size)
    front = stack.front()
    front.ask(environment("POST", body, length=announced), body)
    worker = stack.fpm.accept()
    request = worker.read_request()
    assert request.get("CONTENT_LENGTH") == str(size)
    assert request.stdin == body
    worker.answer("\r\nok")
    assert front.read_answer().body == b"ok"
    assert not [name for name in os.listdir(stack.folder) if "spool" in name or name.startswith("vx")]


def test_a_body_of_unannounced_length_is_collected_before_php_is_disturbed(stack):
    front = stack.front()
    front.begin(environment("POST", b"x", length=False))
    front.send(peers.record(STDIN, 1, b"x" * 1000))
    assert stack.fpm.is_idle()
    front.send(peers.record(STDIN))
    worker = stack.fpm.accept()
    assert worker.read_request().get("CONTENT_LENGTH") == "1000"
    worker.answer("\r\nok")
    front.read_answer()


@pytest.mark.parametrize("announced,seen", [(False, None), ("", ""), ("-1", "-1"), ("abc", "abc"), ("0", "0")])
def test_no_body_leaves_the_variable_as_it_was(stack, announced, seen):
    front = stack.ask(environment("GET", length=announced))
    worker = stack.fpm.accept()
    request = worker.read_request()
    assert request.get("CONTENT_LENGTH") == seen and request.stdin == b""
    worker.answer("\r\nok")
    front.read_answer()


def test_a_body_of_unannounced_length_over_the_limit_is_413(start):
    stack = start(php_fpm={"max_spooled_body": "100K"})
    front = stack.front()
    front.ask(environment("POST", b"x", length=False), b"x" * 110000, keep=True)
    check_error(front.read_answer(), 413, "too_large")
    assert stack.fpm.is_idle()
    front.ask(environment("POST", b"x", length=False), b"x" * 90000, keep=True)
    worker = stack.fpm.accept()
    assert len(worker.read_request().stdin) == 90000
    worker.answer("\r\nok")
    assert front.read_answer().body == b"ok"


def test_a_spooled_upload_costs_no_memory(start):
    stack = start()
    stack.check_serves()
    before = stack.sidecar.peak_memory_kb()
    body = random_bytes(24 << 20)
    front = stack.front()
    front.ask(environment("POST", body, length=False), body)
    worker = stack.fpm.accept()
    assert worker.read_request().stdin == body
    worker.answer("\r\nok")
    front.read_answer()
    stack.sidecar.assert_grew_less(before, 8192)


@pytest.mark.parametrize("sent", [0, 5])
def test_a_body_short_of_its_announced_length_is_400_and_frees_the_worker(stack, sent):
    """PHP-FPM would hang on it."""
    front = stack.front()
    front.ask(environment("POST", length="10"), b"x" * sent, keep=True)
    check_error(front.read_answer(), 400, "invalid_request")
    if sent:
        stack.fpm.accept().wait_closed()


def test_a_body_that_ends_short_after_the_head_is_a_cut(stack):
    front = stack.front()
    front.begin(environment("POST", length="10"), keep=True)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.stdout("\r\nhalf of")
    assert front.read_stdout(9) == b"\r\nhalf of"
    front.send(peers.record(STDIN, 1, b"x" * 5), peers.record(STDIN))
    worker.wait_closed()
    front.wait_closed()


def test_a_body_that_ends_short_after_the_answer_is_nothing(stack):
    front = stack.front()
    front.begin(environment("POST", length="10"), keep=True)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer("\r\ncomplete")
    assert front.read_answer().body == b"complete"
    front.send(peers.record(STDIN, 1, b"x" * 5), peers.record(STDIN))
    stack.check_serves_next(front)


@pytest.mark.parametrize("announced", [0, 5])
def test_bytes_beyond_the_announced_length_are_dropped(stack, announced):
    front = stack.front()
    front.ask(environment("POST", length=str(announced)), b"0123456789" * 1000, keep=True)
    worker = stack.fpm.accept()
    assert worker.read_request().stdin == b"0123456789"[:announced]
    worker.answer("\r\nok")
    assert front.read_answer().body == b"ok"
    stack.check_serves_next(front)


# ---- a worker that dies ------------------------------------------------------------------------------

def die(worker, stage, manner):
    if stage == "at once":
        pass
    elif stage == "parameters read":
        worker.read_params()
    else:
        worker.read_request()
    if stage == "error text":
        worker.stderr("PHP Fatal error")
    elif stage == "half a head":
        worker.stdout("Status: 200 OK\r\nX-Velox-Bui")
    elif stage == "head without blank line":
        worker.stdout("X-Velox-Build: true\r\nContent-Type: text/plain\r\n")
    elif stage == "half a record":
        worker.send(peers.record(peers.STDOUT, 1, b"X-A: 1\r\n\r\npage")[:12])
    elif stage == "a malformed record":
        worker.send(b"HTTP/1.1 200 OK\r\n\r\n")
        return
    elif stage == "an answer to another id":
        worker.send(peers.record(peers.STDOUT, 2, b"\r\npage"))
        return
    if manner == "reset":
        worker.reset()
    else:
        worker.close()


STAGES = ["at once", "parameters read", "request read", "error text", "half a head", "head without blank line",
          "half a record", "a malformed record", "an answer to another id"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_dies_before_its_head_is_a_close_without_answer(stack, stage):
    front = stack.ask(keep=True)
    die(stack.fpm.accept(), stage, "close")
    front.assert_closed_without_answer()
    assert stack.fpm.is_idle(), "the request was sent again"


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_that_dies_on_a_connection_that_has_served_is_502(stack, stage):
    """nginx would send the request again after a close."""
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    front.read_answer()
    front.ask(environment("POST", b"hello"), b"hello", keep=True)
    die(stack.fpm.accept(), stage, "close")
    answer = front.read_answer()
    check_error(answer, 502, "worker_failed")
    assert stack.fpm.is_idle(), "the request was sent again"


def test_a_worker_that_resets_over_tcp_is_a_close_without_answer(start):
    fpm = peers.Fpm("127.0.0.1:0")
    stack = start(php_fpm={"address": fpm.address})
    for stage in ("parameters read", "request read", "half a head"):
        front = stack.ask()
        die(fpm.accept(), stage, "reset")
        front.assert_closed_without_answer()
    fpm.close()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("half_record", [b"", peers.record(peers.STDOUT, 1, b"lost")[:10]])
def test_a_worker_that_dies_in_the_body_is_the_same_cut(stack, keep, half_record):
    front = stack.ask(keep=keep)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("Content-Length: 100\r\n\r\nhalf")
    worker.send(half_record)
    worker.close()
    answer = front.read_answer()
    assert answer.stdout.startswith(b"Content-Length: 100\r\n\r\nhalf") and not answer.ended


def test_a_worker_that_dies_while_it_is_sent_an_upload_answers_first(stack):
    """What it wrote before its death is not lost."""
    front = stack.front()
    front.begin(environment("POST", b"", length=str(8 << 20)))
    worker = stack.fpm.accept()
    worker.read_params()
    front.send_in_background(peers.stream(STDIN, b"x" * (8 << 20), size=32768), peers.record(STDIN))
    worker.answer("Status: 413 Too Big\r\n\r\nno")
    worker.close()
    answer = front.read_answer()
    assert answer.status == 413 and answer.body == b"no" and answer.ended


# ---- too busy --------------------------------------------------------------------------------------

def test_requests_beyond_max_connections_wait_their_turn(start):
    stack = start(php_fpm={"max_connections": 1})
    fronts = []
    worker = None
    for number in range(4):
        fronts.append(stack.ask(environment(extra=[("QUERY_STRING", str(number))])))
        worker = worker or stack.fpm.accept()
        assert fronts[-1].is_silent(0.02)
    for number, front in enumerate(fronts):
        worker = worker or stack.fpm.accept()
        assert worker.read_request().get("QUERY_STRING") == str(number)
        assert stack.fpm.is_idle(0.02)
        worker.answer("\r\n" + str(number))
        worker = None
        assert front.read_answer().body == str(number).encode()


def test_a_wait_past_queue_timeout_is_503(start):
    stack = start(php_fpm={"max_connections": 1, "queue_timeout": "100ms"})
    first = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    began = time.monotonic()
    second = stack.ask(keep=True)
    check_error(second.read_answer(), 503, "busy")
    assert 0.09 <= time.monotonic() - began < 1 * peers.SLOW
    worker.answer("\r\npage")
    first.read_answer()
    second.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    assert second.read_answer().body == b"page"


def test_a_queued_request_whose_client_left_never_reaches_php(start):
    stack = start(php_fpm={"max_connections": 1})
    first = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    left = stack.ask(environment(uri="/left"))
    assert left.is_silent(0.02)
    stayed = stack.ask(environment(uri="/stayed"))
    assert stayed.is_silent(0.02)
    left.close()
    assert stayed.is_silent(0.05 * peers.SLOW)
    worker.answer("\r\npage")
    first.read_answer()
    worker = stack.fpm.accept()
    assert worker.read_request().get("SCRIPT_NAME") == "/stayed"
    worker.answer("\r\npage")
    assert stayed.read_answer().body == b"page"


def fill_backlog(path):
    waiting = []
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(path)
            waiting.append(connection)
        except BlockingIOError:
            connection.close()
            return waiting


def test_a_full_backlog_is_waited_for_and_then_503(start):
    """connect() on a unix socket fails with EAGAIN at once then, and is not in progress."""
    stack = start(php_fpm={"connect_timeout": "200ms"})
    stack.fpm.close()
    stack.fpm = peers.Fpm(f"unix:{stack.folder}/php.sock", backlog=1)
    waiting = fill_backlog(f"{stack.folder}/php.sock")
    began = time.monotonic()
    front = stack.ask()
    check_error(front.read_answer(), 503, "busy")
    assert 0.19 <= time.monotonic() - began < 1.5 * peers.SLOW
    # In time: served.
    front = stack.ask()
    assert front.is_silent(0.05)
    for connection in waiting:
        connection.close()
        stack.fpm.accept().close()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


@pytest.mark.parametrize("sent", ["", "X-A: 1\r\nX-B"])
def test_a_page_that_takes_too_long_is_504(start, sent):
    stack = start(php_fpm={"response_timeout": "150ms"})
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    if sent:
        worker.stdout(sent)
    began = time.monotonic()
    check_error(front.read_answer(), 504, "timeout")
    assert time.monotonic() - began < 1 * peers.SLOW
    worker.wait_closed()
    front.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("\r\n")
    front.read_record()
    # Only the head is waited for.
    assert front.is_silent(0.25)
    worker.stdout("page")
    worker.end()
    assert front.read_answer().ended


def test_response_timeout_begins_at_the_last_byte_of_the_request(start):
    stack = start(php_fpm={"response_timeout": "100ms"})
    front = stack.front()
    front.begin(environment("POST", b"hello"))
    worker = stack.fpm.accept()
    assert front.is_silent(0.2)
    front.send(peers.record(STDIN, 1, b"hello"), peers.record(STDIN))
    worker.read_request()
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


def test_a_failing_worker_is_logged_and_counted_once(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.close()
    front.assert_closed_without_answer()
    lines = wait_until(lambda: [line for line in stack.sidecar.log() if line["level"] in ("warn", "error")],
                       "a line about the worker")
    assert len(lines) == 1
