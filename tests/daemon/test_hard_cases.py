# SPDX-License-Identifier: MIT
"""What a hostile reader once broke: each case was a defect."""

import json
import os
import signal
import socket
import threading
import time

import pytest

import peers
from conftest import check_error, wait_until
from peers import PARAMS, STDIN, STDOUT, SLOW, environment, record


def request_bytes(pairs=None, request_id=1, keep=False, role=peers.RESPONDER):
    return (peers.begin_request(request_id, role, peers.KEEP_CONN if keep else 0)
            + peers.stream(PARAMS, peers.encode_params(pairs or environment()), request_id)
            + record(PARAMS, request_id) + record(STDIN, request_id))


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("wait_records", [20, 64, 65, 66, 120])
def test_an_abort_in_the_middle_of_a_long_response_keeps_the_framing(stack, wait_records):
    """Every record that follows is whole, and the connection is usable."""
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(record(STDOUT, 1, b"\r\n"))

    def send():
        try:
            for _ in range(400):
                worker.send(record(STDOUT, 1, b"x" * 65528))
        except OSError:
            pass

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for _ in range(wait_records):
        assert front.read_record().version == 1
    front.send(record(peers.ABORT_REQUEST))
    while True:
        received = front.read_record()
        assert received.version == 1 and received.id == 1
        if received.type == peers.END_REQUEST:
            break
        assert received.type == STDOUT
    sender.join()
    stack.check_serves_next(front)


def test_a_client_that_leaves_behind_an_unread_upload_ends_its_build(start):
    """PHP asks for a build without reading the body; over TCP the client's FIN lies behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stack = start(listen={"fastcgi": f"127.0.0.1:{port}"})
    front = stack.front()
    size = 400_000  # more than PHP-FPM's socket holds; the rest fits into the front's
    front.begin(environment("POST", b"", length=str(size)))
    front.send_in_background(peers.stream(STDIN, b"x" * size, size=32768))
    worker = stack.fpm.accept()
    worker.read_params()
    worker.stdout(b"X-Velox-Build: true\r\n\r\n" + stack.build_request())
    call = stack.velox.accept()
    front.connection.shutdown(socket.SHUT_RDWR)
    front.close()
    began = time.monotonic()
    call.wait_closed()
    assert time.monotonic() - began < 1 * SLOW


def test_a_term_to_the_child_alone_changes_nothing(start):
    stack = start()
    child = stack.sidecar.child()
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    for _ in range(3):
        stack.check_serves()
    assert stack.sidecar.child() == child


def test_a_term_to_both_processes_is_one_order(start):
    """As a service manager sends it to a whole group: builds are finished."""
    stack = start()
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    os.kill(stack.sidecar.child(), signal.SIGTERM)
    stack.sidecar.signal(signal.SIGTERM)
    stack.sidecar.wait_log("stopping: finishing the requests that have been received")
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"
    assert stack.sidecar.wait() == 0


def test_response_timeout_does_not_reach_behind_the_head(start):
    stack = start(php_fpm={"response_timeout": "150ms"})
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("X-Velox-Build: no\r\n\r\nbegin ")
    assert front.read_stdout(len("\r\nbegin ")) == b"\r\nbegin "
    assert front.is_silent(0.3)  # the time itself is what is tested
    worker.answer("end")
    assert front.read_answer().stdout == b"end"


def test_a_front_that_does_not_read_does_not_hold_up_the_stop(start):
    stack = start(sidecar={"shutdown_timeout": "200ms"})
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()

    def flood():
        try:
            worker.stdout(b"X-Velox-Build: true\r\n\r\n" + stack.build_request())
            for _ in range(2000):
                worker.stderr(b"e" * 4000)
        except OSError:
            pass

    threading.Thread(target=flood, daemon=True).start()
    stack.velox.accept()
    wait_until(lambda: stack.sidecar.log("PHP error output"), "error output that the front does not take")
    began = time.monotonic()
    stack.sidecar.signal(signal.SIGTERM)
    assert stack.sidecar.wait() == 0
    assert time.monotonic() - began < 3 * SLOW
    front.close()


@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_a_long_response_head_within_its_limit_passes(start, size):
    stack = start(php_fpm={"max_response_head": "8M"})
    head = b"X-Long: " + b"x" * size + b"\r\n\r\n"
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    threading.Thread(target=worker.answer, args=(head + b"page",), daemon=True).start()
    answer = front.read_answer()
    assert answer.stdout == head + b"page" and answer.ended


def test_a_bad_build_request_behind_a_long_head_is_400(start):
    stack = start(php_fpm={"max_response_head": "8M"})
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    threading.Thread(target=worker.answer, daemon=True, args=(
        b"X-Velox-Build: true\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n{}",)).start()
    check_error(front.read_answer(), 400, "invalid_request")


def test_the_rest_of_an_answered_upload_is_no_slow_head(start):
    """On a kept connection it is read and dropped for as long as it takes."""
    stack = start(listen={"header_timeout": "150ms", "max_params_size": "1K"})
    front = stack.front()
    front.send(peers.begin_request(1, peers.RESPONDER, peers.KEEP_CONN),
               peers.stream(PARAMS, peers.encode_params(environment(extra=[("HTTP_X", "x" * 2000)]))))
    assert front.read_answer().status == 431
    front.send(record(STDIN, 1, b"y" * 1000)[:500])
    assert front.is_silent(0.4)  # the time itself is what is tested
    front.send(record(STDIN, 1, b"y" * 1000)[500:], record(STDIN, 1))
    stack.check_serves_next(front)


def test_an_unknown_role_on_an_unkept_connection_is_answered_and_closed(stack):
    front = stack.front()
    front.send(request_bytes(role=peers.FILTER))
    received = front.read_record()
    assert received.type == peers.END_REQUEST and received.content[4] == peers.UNKNOWN_ROLE
    front.wait_closed()


def test_the_limit_of_fronts_is_exact_over_all_threads(start):
    stack = start(sidecar={"threads": 2}, listen={"max_connections": 3})
    stack.sidecar.wait_log("ready")
    fronts = [stack.ask(keep=True) for _ in range(6)]
    workers = [stack.fpm.accept() for _ in range(3)]
    assert stack.fpm.is_idle(0.25), "more requests than connections allowed"
    for worker in workers:
        worker.read_request()
        worker.answer("\r\nfirst")
    served = [front for front in fronts if not front.is_silent(0.05)]
    assert len(served) == 3
    for front in served:
        front.read_answer()
        front.close()
    for _ in range(3):
        worker = stack.fpm.accept()
        worker.read_request()
        worker.answer("\r\nsecond")
    for front in fronts:
        if front not in served:
            assert front.read_answer().body == b"second"


@pytest.mark.parametrize("rest", [b"GARBAGE" * 10, request_bytes() * 3])
def test_whatever_follows_the_last_answer_costs_no_cpu(start, rest):
    stack = start(listen={"max_params_size": "1K"})
    front = stack.front()
    front.send(peers.begin_request(), peers.stream(PARAMS, peers.encode_params(
        environment(extra=[("HTTP_X", "x" * 2000)]))), rest)
    assert front.read_answer().status == 431
    child = stack.sidecar.child()
    before = cpu_seconds(child)
    front.is_silent(0.3)
    assert cpu_seconds(child) - before < 0.1
    stack.check_serves()
