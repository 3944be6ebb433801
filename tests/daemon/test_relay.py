# SPDX-License-Identifier: MIT
"""Ordinary pages pass as if the sidecar were not there (spec, section 4)."""

import socket
import threading
import time

import pytest

import peers
from conftest import wait_until
from peers import Front, environment, random_bytes
from ports import unused_port

SIZES = [0, 1, 65527, 65528, 65529, 1 << 20, 20 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_a_page_of_any_size_arrives_byte_for_byte(stack, size):
    body = random_bytes(size)
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    threading.Thread(target=worker.answer, args=(b"Content-Type: text/plain\r\n\r\n" + body,),
                     daemon=True).start()
    answer = front.read_answer()
    assert answer.head == b"Content-Type: text/plain"
    assert answer.body == body
    assert answer.ended and answer.end_reserved == b"\0\0\0"
    front.wait_closed()


@pytest.mark.parametrize("size", SIZES)
def test_an_upload_of_any_size_arrives_byte_for_byte(stack, size):
    body = random_bytes(size)
    front = stack.front()
    front.ask(environment("POST", body, length=str(size)), body)
    worker = stack.fpm.accept()
    request = worker.read_request()
    assert request.stdin == body
    assert request.get("CONTENT_LENGTH") == str(size)
    worker.answer("\r\nthanks")
    assert front.read_answer().body == b"thanks"


def test_both_directions_of_a_long_exchange_run_at_once(stack):
    """A worker that echoes while it reads: neither side may wait for the other's end."""
    body = random_bytes(4 << 20)
    front = stack.front()
    front.ask(environment("POST", body), body)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.stdout("\r\n")

    def echo():
        while True:
            received = worker.read_record()
            if not received.content:
                break
            worker.stdout(received.content)
        worker.end()

    threading.Thread(target=echo, daemon=True).start()
    assert front.read_answer().body == body


def test_a_chunk_reaches_the_client_before_the_next_is_written(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("Content-Type: text/event-stream\r\n\r\n")
    front.read_head()
    for number in range(20):
        event = b"data: %d\n\n" % number
        worker.stdout(event)
        assert front.read_stdout(len(event)) == event
    worker.end()
    assert front.read_answer().ended


def test_a_part_of_an_upload_reaches_php_before_the_next_is_sent(stack):
    front = stack.front()
    front.begin(environment("POST", b"x" * 100))
    worker = stack.fpm.accept()
    worker.read_params()
    for _ in range(10):
        front.send(peers.stream(peers.STDIN, b"0123456789"))
        assert worker.read_record().content == b"0123456789"
    front.send(peers.record(peers.STDIN))
    worker.read_request()
    worker.answer("\r\nok")
    assert front.read_answer().body == b"ok"


HEADS = {
    "LF only": b"Content-Type: text/plain\nX-A: 1\n\n",
    "mixed line ends": b"Content-Type: text/plain\r\nX-A: 1\n\r\n",
    "doubled headers": b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n",
    "folded header": b"X-A: 1\r\n  2\r\n\r\n",
    "odd names and spaces": b"x-a:1\r\nX-B :  2  \r\nX_C:\t3\r\n\r\n",
    "no header": b"\r\n",
    "status": b"Status: 404 Not Found\r\nContent-type: text/html\r\n\r\n",
    "high bytes": b"X-Name: \xff\xfe\x80\r\n\r\n",
    "similar names": b"X-Velox-Builder: true\r\nX-Velox: Build\r\nNX-Velox-Build: 1\r\n\r\n",
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("cut", ["whole", "one byte a record"])
def test_a_head_passes_unchanged(stack, name, cut):
    content = HEADS[name] + b"body: \r\n\r\nX-Velox-Build: true\r\n"
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(peers.STDOUT, content, size=65528 if cut == "whole" else 1),
                peers.end_request())
    answer = front.read_answer()
    assert answer.stdout == content and answer.ended


@pytest.mark.parametrize("padding", [0, 1, 7, 255])
def test_padding_of_the_worker_is_no_content(stack, padding):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.record(peers.STDOUT, 1, b"X-A: 1\r\n\r\n", padding),
                peers.record(peers.STDOUT, 1, b"body", padding),
                peers.record(peers.STDOUT, 1, b"", 0),
                peers.record(peers.END_REQUEST, 1, b"\0" * 8, padding))
    assert front.read_answer().stdout == b"X-A: 1\r\n\r\nbody"


def test_records_of_the_largest_size_pass(stack):
    content = b"\r\n" + b"x" * 65533
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.record(peers.STDOUT, 1, content, 255), peers.end_request())
    assert front.read_answer().stdout == content


def test_error_text_passes_beside_the_page(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr("PHP message: one")
    worker.stdout("X-A: 1\r\n\r\npage")
    worker.stderr("\x1b[31mPHP message: two\n")
    worker.end()
    answer = front.read_answer()
    assert answer.stdout == b"X-A: 1\r\n\r\npage"
    assert answer.stderr == b"PHP message: one\x1b[31mPHP message: two\n"


def test_much_error_text_comes_in_small_records(stack):
    """HAProxy 2.6 crashes on 60 kB of it in one record."""
    text = random_bytes(65000)
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr(text)
    worker.answer("\r\npage")
    answer = front.read_answer()
    assert answer.stderr == text and answer.body == b"page"
    assert max(len(each.content) for each in answer.records if each.type == peers.STDERR) <= 4096


@pytest.mark.parametrize("app_status", [0, 1, 255, 0xffffffff])
def test_the_application_status_passes(stack, app_status):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage", app_status)
    assert front.read_answer().app_status == app_status


def test_garbage_in_the_reserved_bytes_of_end_request_does_not_leak(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(peers.STDOUT, b"\r\npage"), peers.end_request(reserved=b"key"))
    assert front.read_answer().end_reserved == b"\0\0\0"


def test_an_end_without_a_head_is_passed_on(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr("fatal")
    worker.end(app_status=255)
    answer = front.read_answer()
    assert answer.ended and answer.app_status == 255
    assert answer.stdout == b"" and answer.stderr == b"fatal"


def test_an_end_within_the_head_is_passed_on_with_what_came(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("Content-Type: text/pl", app_status=3)
    answer = front.read_answer()
    assert answer.stdout == b"Content-Type: text/pl" and answer.app_status == 3


def test_a_client_that_reads_slowly_holds_the_worker_back_not_memory(start):
    stack = start()
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("\r\n")
    front.read_record()
    before = stack.sidecar.peak_memory_kb()
    accepted = push(worker.connection, peers.record(peers.STDOUT, 1, b"x" * 65528))
    assert accepted < 8 << 20
    stack.sidecar.assert_grew_less(before, 4096)


def test_a_worker_that_does_not_read_holds_the_upload_back_not_memory(start):
    stack = start()
    front = stack.front()
    front.begin(environment("POST", b"", length="1000000000"))
    worker = stack.fpm.accept()
    worker.read_params()
    before = stack.sidecar.peak_memory_kb()
    accepted = push(front.connection, peers.record(peers.STDIN, 1, b"x" * 32768))
    assert accepted < 8 << 20
    stack.sidecar.assert_grew_less(before, 4096)


def push(connection, block):
    """Writes until nothing moves for a while; how many bytes went."""
    connection.settimeout(2.5 * peers.A_MOMENT)
    accepted = 0
    try:
        while accepted < 64 << 20:
            accepted += connection.send(block[accepted % len(block):])
    except socket.timeout:
        pass
    return accepted


def test_an_endless_page_ends_when_the_client_leaves(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("\r\n")
    front.read_record()
    left_at = time.monotonic()
    front.close()
    assert worker.wait_closed() - left_at < 0.1 * peers.SLOW


@pytest.mark.parametrize("stage", ["request read", "half a head", "body"])
@pytest.mark.parametrize("manner", ["close", "reset by unread bytes"])
def test_a_client_that_leaves_closes_the_worker(stack, stage, manner):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    if stage == "half a head":
        worker.stdout("Content-Ty")
    elif stage == "body":
        worker.stdout("\r\n" + "x" * 1000)
        if manner == "close":
            front.read_record()
        else:
            wait_until(lambda: not front.is_silent(), "bytes to leave unread")
    front.close()
    worker.wait_closed()
    stack.check_serves()


def test_half_closing_a_unix_socket_is_not_leaving(stack):
    """lighttpd may shut down its sending side after the request."""
    front = stack.ask()
    front.connection.shutdown(socket.SHUT_WR)
    worker = stack.fpm.accept()
    worker.read_request()
    assert worker.is_silent()
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"


def test_a_worker_is_let_go_before_its_client_has_read_the_page(stack):
    """PHP-FPM waits for our close after END_REQUEST; a slow client must not pin it."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"\r\n" + random_bytes(30000))
    worker.wait_closed()
    assert front.read_answer().body == random_bytes(30000)


def test_an_early_answer_on_a_kept_connection_drops_the_rest_of_the_upload(stack):
    front = stack.front()
    front.begin(environment("POST", b"", length="100000"), keep=True)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer("Status: 413 Too Big\r\n\r\nno")
    answer = front.read_answer()
    assert answer.status == 413 and answer.ended
    worker.wait_closed()
    front.send(peers.stream(peers.STDIN, b"x" * 100000, size=32768), peers.record(peers.STDIN))
    front.ask(keep=True)
    worker = stack.fpm.accept()
    assert worker.read_request().stdin == b""
    worker.answer("\r\nnext")
    assert front.read_answer().body == b"next"


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_an_early_answer_is_not_lost_by_a_reset(start, address):
    """Closing with unread bytes would reset the answer over TCP."""
    stack = start(**({"listen": {"fastcgi": f"127.0.0.1:{unused_port()}"}} if address == "tcp" else {}))
    front = stack.front()
    front.begin(environment("POST", b"", length=str(1 << 20)))
    front.send(peers.stream(peers.STDIN, b"x" * 50000, size=32768))
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer("Status: 413 Too Big\r\n\r\nno")
    worker.wait_closed()
    front.send_in_background(peers.stream(peers.STDIN, b"x" * ((1 << 20) - 50000), size=32768),
                             peers.record(peers.STDIN))
    answer = front.read_answer()
    assert answer.status == 413 and answer.ended
    front.wait_closed()


def test_many_clients_at_once_get_their_own_pages(stack):
    def page(worker):
        request = worker.read_request()
        worker.answer("\r\n" + request.get("QUERY_STRING") * 1000)

    stack.fpm.serve(page, count=50)
    fronts = []
    for number in range(50):
        fronts.append(stack.ask(environment(extra=[("QUERY_STRING", f"q{number};")])))
    for number, front in enumerate(fronts):
        assert front.read_answer().body == b"q%d;" % number * 1000


def test_a_request_over_tcp_is_served_and_half_close_is_leaving(start):
    stack = start(listen={"fastcgi": f"127.0.0.1:{unused_port()}"})
    stack.check_serves()
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    front.connection.shutdown(socket.SHUT_WR)
    worker.wait_closed()


def test_several_listeners_serve_alike(start):
    port = unused_port()
    stack = start(listen={"fastcgi": f"unix:{{folder}}/front.sock, unix:{{folder}}/other.sock, 127.0.0.1:{port}"})
    for address in (stack.sidecar.address, f"unix:{stack.folder}/other.sock", f"127.0.0.1:{port}"):
        front = stack.front(address)
        front.ask()
        worker = stack.fpm.accept()
        worker.read_request()
        worker.answer("\r\npage")
        assert front.read_answer().body == b"page"


@pytest.mark.parametrize("query", ["do=params", "do=body&size=100000", "do=body&size=1000000",
                                   "do=body&size=30000&flush_ms=1", "do=params&stderr=9000",
                                   "do=params&flush_head=1", "do=params&head=20000", "do=params&status=404",
                                   "do=params&app_status=9", "do=silent"])
def test_a_libfcgi_application_answers_through_the_sidecar_as_it_does_directly(start, responder, query):
    stack = start(php_fpm={"address": responder})
    environ = environment(extra=[("QUERY_STRING", query)])
    through, direct = stack.ask(environ), Front(responder)
    direct.ask(environ + [("VELOX_SIDECAR", "?")])
    ours, theirs = through.read_answer(), direct.read_answer()
    assert ours.app_status == theirs.app_status and ours.ended
    assert ours.stderr == theirs.stderr and ours.head == theirs.head
    if "do=params" not in query:
        assert ours.body == theirs.body


def test_a_libfcgi_application_gets_a_long_upload(start, responder):
    stack = start(php_fpm={"address": responder})
    body = random_bytes(2 << 20)
    front = stack.ask(environment("POST", body, extra=[("QUERY_STRING", "do=echo")]), body)
    assert front.read_answer().body == body


@pytest.mark.parametrize("query", ["exit=head", "do=params&delay_ms=10&exit=head"])
def test_a_libfcgi_application_that_dies_within_the_head_is_a_close_without_answer(start, responder, query):
    stack = start(php_fpm={"address": responder})
    front = stack.ask(environment(extra=[("QUERY_STRING", query)]))
    front.assert_closed_without_answer()


def test_a_php_fpm_pool_of_several_addresses_is_used_in_turn_and_the_dead_one_skipped(start):
    stack = start(php_fpm={"address": "unix:{folder}/php.sock, unix:{folder}/dead.sock"})
    for _ in range(6):
        stack.check_serves()


@pytest.mark.parametrize("address", ["unix:{folder}/dead.sock", "127.0.0.1:1"])
def test_php_fpm_out_of_reach_is_a_close_without_answer(start, address):
    """nginx then does what it does when PHP-FPM itself is down."""
    stack = start(php_fpm={"address": address})
    for keep in (False, True):
        front = stack.ask(keep=keep)
        front.assert_closed_without_answer()


def test_php_fpm_over_tcp_is_reached(start):
    fpm = peers.Fpm("127.0.0.1:0")
    stack = start(php_fpm={"address": fpm.address})
    front = stack.ask()
    worker = fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"
    worker.wait_closed()
    fpm.close()


def test_php_fpm_that_comes_back_is_found_again(start):
    stack = start()
    stack.fpm.close()
    stack.ask().assert_closed_without_answer()
    stack.fpm = peers.Fpm(f"unix:{stack.folder}/php.sock")
    stack.check_serves()
