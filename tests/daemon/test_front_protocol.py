# SPDX-License-Identifier: MIT
"""The FastCGI that a web server may speak (spec, section 4.3)."""

import socket
import time

import pytest

import peers
from conftest import check_error, wait_until
from peers import (ABORT_REQUEST, BEGIN_REQUEST, GET_VALUES, GET_VALUES_RESULT, PARAMS, STDIN, STDOUT,
                   UNKNOWN_TYPE, environment)


def serve_one(stack, text=b"page"):
    worker = stack.fpm.accept()
    request = worker.read_request()
    worker.answer(b"\r\n" + text)
    return request


@pytest.mark.parametrize("request_id", [1, 2, 255, 256, 65535])
def test_any_request_id_comes_back(stack, request_id):
    front = stack.ask(request_id=request_id)
    serve_one(stack)
    assert front.read_answer(request_id).body == b"page"


def test_a_kept_connection_serves_one_request_after_the_other(stack):
    front = stack.front()
    for number in range(5):
        text = b"page %d" % number
        front.ask(environment("POST", text), text, request_id=number + 1, keep=True)
        assert serve_one(stack, text).stdin == text
        assert front.read_answer(number + 1).body == text
    assert front.is_silent()


def test_a_connection_that_is_not_kept_is_closed_after_the_answer(stack):
    front = stack.ask(keep=False)
    serve_one(stack)
    assert front.read_answer().body == b"page"
    assert front.read_record() is None


def test_the_last_request_may_end_keeping(stack):
    front = stack.ask(keep=True)
    serve_one(stack)
    front.read_answer()
    front.ask(keep=False)
    serve_one(stack)
    assert front.read_answer().body == b"page"
    assert front.read_record() is None


def test_nothing_follows_end_request(stack):
    front = stack.ask(keep=True)
    serve_one(stack)
    front.read_answer()
    assert front.is_silent()


def test_a_request_sent_before_the_last_answer_was_read_is_served_next(stack):
    """It is complete in the socket; before that, the connection is busy."""
    front = stack.front()
    front.ask(environment(uri="/first"), request_id=1, keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\nfirst")
    wait_until(lambda: peers.end_request() in front.connection.recv(1000, socket.MSG_PEEK), "the answer")
    front.ask(environment(uri="/second"), request_id=1, keep=True)
    worker = stack.fpm.accept()
    assert worker.read_request().get("SCRIPT_NAME") == "/second"
    worker.answer("\r\nsecond")
    assert front.read_answer().body == b"first"
    assert front.read_answer().body == b"second"


def test_a_second_request_on_a_busy_connection_is_told_that_it_cannot_be_multiplexed(stack):
    front = stack.ask(request_id=1, keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    front.send(peers.begin_request(2, flags=peers.KEEP_CONN))
    refusal = front.read_answer(2)
    assert refusal.protocol_status == peers.CANT_MPX_CONN
    # What still comes for the refused one is dropped.
    front.send(peers.record(PARAMS, 2), peers.record(STDIN, 2))
    worker.answer("\r\npage")
    assert front.read_answer(1).body == b"page"
    front.ask(request_id=3, keep=True)
    serve_one(stack)
    assert front.read_answer(3).body == b"page"


@pytest.mark.parametrize("role", [0, peers.AUTHORIZER, peers.FILTER, 4, 65535])
def test_an_unknown_role_is_refused(stack, role):
    front = stack.front()
    front.send(peers.begin_request(5, role, peers.KEEP_CONN))
    assert front.read_answer(5).protocol_status == peers.UNKNOWN_ROLE
    front.send(peers.stream(PARAMS, peers.encode_params(environment()), 5), peers.record(PARAMS, 5),
               peers.record(STDIN, 5))
    assert stack.fpm.is_idle()
    front.ask(request_id=6, keep=True)
    serve_one(stack)
    assert front.read_answer(6).body == b"page"


def test_get_values_tells_the_limits(stack):
    front = stack.front()
    asked = peers.encode_params([("FCGI_MAX_CONNS", ""), ("FCGI_MAX_REQS", ""), ("FCGI_MPXS_CONNS", "")])
    front.send(peers.record(GET_VALUES, 0, asked))
    received = front.read_record()
    assert received.type == GET_VALUES_RESULT and received.id == 0
    values = dict(peers.read_pairs(received.content))
    assert values[b"FCGI_MPXS_CONNS"] == b"0"
    assert int(values[b"FCGI_MAX_CONNS"]) >= 1 and int(values[b"FCGI_MAX_REQS"]) >= 1
    front.ask(keep=True)
    serve_one(stack)
    assert front.read_answer().body == b"page"


def test_get_values_answers_only_what_was_asked_and_known(stack):
    front = stack.front()
    front.send(peers.record(GET_VALUES, 0, peers.encode_params([("FCGI_MPXS_CONNS", ""), ("OTHER", "")]), 5))
    received = front.read_record()
    assert peers.read_pairs(received.content) == [(b"FCGI_MPXS_CONNS", b"0")]


def test_get_values_is_answered_during_a_request(stack):
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    front.send(peers.record(GET_VALUES, 0, peers.encode_params([("FCGI_MPXS_CONNS", "")])))
    assert front.read_record().type == GET_VALUES_RESULT
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


@pytest.mark.parametrize("kind", [12, 42, 255])
def test_an_unknown_management_type_is_named_back(stack, kind):
    front = stack.front()
    front.send(peers.record(kind, 0, b"whatever", 3))
    received = front.read_record()
    assert received.type == UNKNOWN_TYPE and received.id == 0
    assert received.content == bytes([kind]) + b"\0" * 7
    front.ask(keep=True)
    serve_one(stack)
    assert front.read_answer().body == b"page"


MALFORMED = {
    "version 0": peers.record(BEGIN_REQUEST, 1, b"\0\1\0\0\0\0\0\0", version=0),
    "version 2": peers.record(BEGIN_REQUEST, 1, b"\0\1\0\0\0\0\0\0", version=2),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "short BEGIN_REQUEST": peers.record(BEGIN_REQUEST, 1, b"\0\1\0"),
    "id 0 BEGIN_REQUEST": peers.record(BEGIN_REQUEST, 0, b"\0\1\0\0\0\0\0\0"),
    "a pair past the end of PARAMS": peers.begin_request() + peers.record(PARAMS, 1, b"\x05\x05ab")
                                     + peers.record(PARAMS) + peers.record(STDIN),
    "a pair of 2 GB": peers.begin_request() + peers.record(PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xffab")
                      + peers.record(PARAMS) + peers.record(STDIN),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_closes_that_connection_only(stack, name):
    bystander = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    front = stack.front()
    front.send(MALFORMED[name])
    while True:
        received = front.read_record()
        if received is None:
            break
        # A pair that could never fit may be answered as too large before the close.
        assert name == "a pair of 2 GB" or received.type == peers.END_REQUEST, received
    worker.answer("\r\npage")
    assert bystander.read_answer().body == b"page"
    assert stack.fpm.is_idle()


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_front_that_leaves_within_a_record_is_forgotten(stack, cut):
    front = stack.front()
    front.send((peers.begin_request() + peers.record(PARAMS, 1, b"\1\1ab"))[:cut])
    front.close()
    assert stack.fpm.is_idle(0.005)
    if cut == 23:
        stack.check_serves()


@pytest.mark.parametrize("stage", ["params", "stdin", "waiting", "head", "body"])
def test_abort_ends_the_request_and_leaves_the_kept_connection_usable(stack, stage):
    front = stack.front()
    if stage == "params":
        front.send(peers.begin_request(7, flags=peers.KEEP_CONN), peers.record(PARAMS, 7, b"\1\1ab"))
    elif stage == "stdin":
        front.begin(environment("POST", b"x" * 100), 7, keep=True)
        front.send(peers.record(STDIN, 7, b"x" * 10))
    else:
        front.ask(request_id=7, keep=True)
    worker = None
    if stage != "params":
        worker = stack.fpm.accept()
        worker.read_params() if stage == "stdin" else worker.read_request()
    if stage == "head":
        worker.stdout("Content-Type: te")
    elif stage == "body":
        worker.stdout("\r\nhalf")
        front.read_stdout(6)
    front.send(peers.record(ABORT_REQUEST, 7))
    answer = front.read_answer(7)
    assert answer.protocol_status == peers.REQUEST_COMPLETE and answer.app_status == 0
    if worker:
        worker.wait_closed()
        assert all(each.type != ABORT_REQUEST for each in worker.records)
    front.ask(request_id=8, keep=True)
    serve_one(stack)
    assert front.read_answer(8).body == b"page"


def test_abort_of_a_request_that_is_over_is_ignored(stack):
    front = stack.ask(keep=True)
    serve_one(stack)
    front.read_answer()
    front.send(peers.record(ABORT_REQUEST, 1))
    front.ask(keep=True)
    serve_one(stack)
    assert front.read_answer().body == b"page"


def test_abort_on_a_connection_that_is_not_kept_closes_it(stack):
    front = stack.ask(keep=False)
    worker = stack.fpm.accept()
    worker.read_request()
    front.send(peers.record(ABORT_REQUEST, 1))
    front.wait_closed()
    worker.wait_closed()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_request_cut_into_tiny_records_and_writes_is_understood(stack, size):
    front = stack.front()
    whole = (peers.begin_request() + peers.stream(PARAMS, peers.encode_params(environment("POST", b"hello")), size=size)
             + peers.record(PARAMS) + peers.stream(STDIN, b"hello", size=1) + peers.record(STDIN))
    for at in range(0, len(whole), 11):
        front.send(whole[at:at + 11])
    assert serve_one(stack).stdin == b"hello"
    assert front.read_answer().body == b"page"


def test_an_empty_padded_record_ends_a_stream(stack):
    front = stack.front()
    front.send(peers.begin_request(), peers.stream(PARAMS, peers.encode_params(environment()), padding=True),
               peers.record(PARAMS, 1, b"", 8), peers.record(STDIN, 1, b"", 255))
    serve_one(stack)
    assert front.read_answer().body == b"page"


# ---- limits --------------------------------------------------------------------------------------

@pytest.mark.parametrize("pairs", [
    [(f"HTTP_X_{number}", "v" * 1000) for number in range(300)],
    [("HTTP_X_LONG", "v" * 65001)],
    [("N" * 65001, "v")],
], ids=["many pairs", "long value", "long name"])
@pytest.mark.parametrize("keep", [False, True])
def test_too_many_parameters_are_answered_431(stack, pairs, keep):
    front = stack.front()
    front.begin(environment(extra=pairs), keep=keep)
    front.send(peers.record(STDIN))
    check_error(front.read_answer(), 431, "too_large")
    assert stack.fpm.is_idle()
    if keep:
        front.ask(keep=True)
        serve_one(stack)
        assert front.read_answer().body == b"page"


def test_a_pair_of_nearly_65000_bytes_passes(stack):
    front = stack.ask(environment(extra=[("HTTP_X_LONG", "v" * 64980)]))
    worker = stack.fpm.accept()
    assert worker.read_request().get("HTTP_X_LONG") == "v" * 64980
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


def test_a_lower_limit_for_parameters_is_obeyed(start):
    stack = start(listen={"max_params_size": "1K"})
    front = stack.ask(environment(extra=[("HTTP_X", "v" * 1000)]))
    check_error(front.read_answer(), 431, "too_large")
    stack.check_serves()


def test_a_front_that_is_slow_with_its_head_is_closed_and_never_had_a_worker(start):
    stack = start(listen={"header_timeout": "150ms"})
    front = stack.front()
    began = time.monotonic()
    front.send(peers.begin_request(), peers.record(PARAMS, 1, b"\1\1ab"))
    front.assert_closed_without_answer()
    assert 0.14 <= front.wait_closed() - began < 1 * peers.SLOW
    assert stack.fpm.is_idle(0.01)


def test_header_timeout_begins_with_the_first_byte_of_each_request(start):
    stack = start(listen={"header_timeout": "60ms"})
    front = stack.front()
    assert front.is_silent(0.15)
    for _ in range(2):
        front.ask(keep=True)
        serve_one(stack)
        assert front.read_answer().body == b"page"
        assert front.is_silent(0.15)


def test_header_timeout_does_not_end_a_request_in_progress(start):
    stack = start(listen={"header_timeout": "60ms"})
    front = stack.front()
    front.begin(environment("POST", b"hello"))
    worker = stack.fpm.accept()
    worker.read_params()
    assert front.is_silent(0.15)
    front.send(peers.record(STDIN, 1, b"hello"), peers.record(STDIN))
    worker.read_request()
    assert front.is_silent(0.15)
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


def test_an_idle_kept_connection_is_closed_in_time(start):
    stack = start(listen={"idle_timeout": "150ms"})
    front = stack.ask(keep=True)
    serve_one(stack)
    front.read_answer()
    began = time.monotonic()
    assert front.read_record() is None
    assert 0.1 <= front.wait_closed() - began < 1 * peers.SLOW


@pytest.mark.parametrize("question", [
    peers.record(GET_VALUES, 0, peers.encode_params([("FCGI_MAX_CONNS", ""), ("FCGI_MAX_REQS", "")])),
    peers.record(99, 0), peers.begin_request(1, 9, peers.KEEP_CONN)], ids=["values", "unknown type", "unknown role"])
def test_questions_without_end_whose_answers_nobody_reads_cost_no_memory(start, question):
    stack = start()
    stack.check_serves()
    before = stack.sidecar.peak_memory_kb()
    front = stack.front()
    front.connection.settimeout(2 * peers.A_MOMENT)
    block = question * 1000
    try:
        for _ in range(1000):
            front.connection.sendall(block)
    except OSError:
        pass
    stack.sidecar.assert_grew_less(before, 4096)
    stack.check_serves()


# ---- who may connect -------------------------------------------------------------------------------

@pytest.mark.parametrize("allowed,served", [
    (None, True),
    ("", True),
    ("127.0.0.1", True),
    ("127.0.0.0/8", True),
    ("192.0.2.1, 127.0.0.0/30", True),
    ("0.0.0.0/0", True),
    ("192.0.2.1", False),
    ("127.0.0.2", False),
    ("127.0.0.2/31", False),
    ("::1", False),
])
def test_a_tcp_listener_serves_allowed_clients_only(start, allowed, served):
    from ports import unused_port
    stack = start(listen={"fastcgi": f"127.0.0.1:{unused_port()}, unix:{{folder}}/front.sock",
                          "allowed_clients": allowed})
    front = stack.front()
    if served:
        front.ask()
        serve_one(stack)
        assert front.read_answer().body == b"page"
    else:
        front.wait_closed()
        assert stack.fpm.is_idle()
    # A unix socket has its mode instead.
    front = stack.front(f"unix:{stack.folder}/front.sock")
    front.ask()
    serve_one(stack)
    assert front.read_answer().body == b"page"


@pytest.mark.parametrize("allowed,served", [("::1", True), ("::/1", True), ("127.0.0.1", False), ("::2", False)])
def test_an_ipv6_client_is_compared_in_full(start, allowed, served):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        port = probe.getsockname()[1]
    stack = start(listen={"fastcgi": f"[::1]:{port}", "allowed_clients": allowed})
    front = stack.front()
    if served:
        front.ask()
        serve_one(stack)
        assert front.read_answer().body == b"page"
    else:
        front.wait_closed()


def test_a_full_house_lets_others_wait_not_fail(start):
    stack = start(listen={"max_connections": 2})
    fronts = [stack.ask() for _ in range(3)]
    workers = [stack.fpm.accept() for _ in range(2)]
    assert stack.fpm.is_idle()
    for worker in workers:
        worker.read_request()
        worker.answer("\r\npage")
    serve_one(stack)
    for front in fronts:
        assert front.read_answer().body == b"page"


def test_requests_behind_an_answer_of_our_own_are_dropped(start):
    stack = start(listen={"max_params_size": "4K"})
    front = stack.front()
    long_one = (peers.begin_request()
                + peers.stream(peers.PARAMS, peers.encode_params(peers.environment(
                    extra=[("HTTP_COOKIE", "x" * 5000)])))
                + peers.record(peers.PARAMS) + peers.record(peers.STDIN))
    front.send(long_one * 3)
    assert front.read_answer().status == 431
    front.wait_closed()
    assert stack.fpm.is_idle()
    stack.check_serves()
