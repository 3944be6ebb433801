# SPDX-License-Identifier: MIT
"""What is known of PHP-FPM, nginx, lighttpd, Apache, Caddy and HAProxy, one test for each fact that
is a rule for the sidecar. The numbers are those of the project's list of facts.

Seen with php-fpm 8.2.36, nginx 1.22.1, lighttpd 1.4.69, Apache 2.4.71, Caddy 2.6.2, HAProxy 2.6.12.
Not here, since the feature is not: 13 (the status page), and of 23 the delivery by X-Accel-Redirect.
"""
import configparser
import gzip
import json
import os
import re
import select
import socket
import time

import pytest

import peers
from conftest import TOP, check_error, wait_until
from peers import (ABORT_REQUEST, END_REQUEST, PARAMS, SLOW, STDERR, STDIN, STDOUT, environment,
                   random_bytes)
from ports import unused_port

AT_ONCE = 0.1 * SLOW


def serve_one(stack, content="\r\npage"):
    worker = stack.fpm.accept()
    request = worker.read_request()
    worker.answer(content)
    return request


def build_head(extra=""):
    return f"X-Velox-Build: true\r\nContent-Type: application/json\r\n{extra}\r\n".encode()


def records_of(worker):
    """All records that a worker was sent, read or not, each with its header."""
    out = [peers.record(each.type, each.id, each.content) for each in worker.records]
    rest = bytes(worker.source.buffer)
    while len(rest) >= 8:
        end = 8 + int.from_bytes(rest[4:6], "big") + rest[6]
        out.append(rest[:end])
        rest = rest[end:]
    return out


def config_text(name):
    with open(os.path.join(TOP, "config", name)) as file:
        return file.read()


# ---- PHP-FPM -------------------------------------------------------------------------------------

def test_peer_01_end_request_closes_the_worker_at_once(stack):
    """A worker has written END_REQUEST and reads until we close: nobody else gets it meanwhile. The
    front has not even read the answer."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"\r\n" + random_bytes(20000))
    ended_at = time.monotonic()
    assert worker.wait_closed() - ended_at < AT_ONCE
    assert front.read_answer().body == random_bytes(20000)


def test_peer_02_worker_connections_are_never_kept(stack):
    """A kept connection holds a worker for as long as it is open."""
    fronts = [stack.front() for _ in range(10)]
    for number, front in enumerate(fronts):
        front.ask(request_id=number + 2, keep=True)
        worker = stack.fpm.accept()
        request = worker.read_request()
        assert (request.id, request.flags) == (1, 0)
        worker.answer("\r\npage")
        worker.wait_closed()
        assert front.read_answer(number + 2).ended
    assert stack.fpm.is_idle(), "idle kept fronts hold no worker"
    assert all(front.is_silent(0.001) for front in fronts), "and stay open"


def test_peer_03_a_worker_is_connected_when_the_parameters_are_complete(stack):
    """A connection that says nothing holds a worker for 5 s."""
    front = stack.front()
    encoded = peers.encode_params(environment("POST", length="5"))
    front.send(peers.begin_request(), peers.record(PARAMS, 1, encoded))
    assert stack.fpm.is_idle()
    front.send(peers.record(PARAMS))
    worker = stack.fpm.accept()
    accepted_at = time.monotonic()
    worker.read_params()
    assert time.monotonic() - accepted_at < AT_ONCE
    assert worker.records[0].type == peers.BEGIN_REQUEST


def test_peer_04_a_client_that_leaves_closes_the_worker(stack):
    """All that can be done: PHP notices at its next write."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    left_at = time.monotonic()
    front.close()
    assert worker.wait_closed() - left_at < AT_ONCE


def test_peer_05_abort_and_short_bodies_never_reach_a_worker(stack):
    """ABORT_REQUEST would make PHP run with half a body; a body that ends short would make it wait
    for us for ever."""
    front = stack.front()
    front.begin(environment("POST", length="10"), keep=True)
    front.send(peers.record(STDIN, 1, b"12345"))
    worker = stack.fpm.accept()
    worker.read_params()
    front.send(peers.record(ABORT_REQUEST))
    worker.wait_closed()
    assert front.read_answer().protocol_status == peers.REQUEST_COMPLETE
    front.ask(environment("POST", length="10"), b"12345", keep=True)
    second = stack.fpm.accept()
    second.wait_closed()
    check_error(front.read_answer(), 400, "invalid_request")
    for each in (worker, second):
        kinds = [(record[1], len(record) > 8) for record in records_of(each)]
        assert (ABORT_REQUEST, False) not in kinds and (STDIN, False) not in kinds


@pytest.mark.parametrize("announced", ["", "-1", False])
def test_peer_06_a_body_of_unannounced_length_is_counted(stack, announced):
    """PHP-FPM would see none; so do chunked uploads come from nginx (unbuffered), Caddy and Apache."""
    front = stack.ask(environment("POST", b"x", length=announced), b"chunked upload")
    request = serve_one(stack)
    assert (request.get("CONTENT_LENGTH"), request.stdin) == ("14", b"chunked upload")
    assert front.read_answer().body == b"page"


def test_peer_07_pairs_are_not_cut_and_records_not_too_long(stack):
    """PHP-FPM resets on a pair in two records and on content and padding over 65535, and loses its
    place on padding behind an empty record."""
    body = random_bytes(200000)
    extra = [(f"HTTP_X_{number}", "v" * 30000) for number in range(6)]
    front = stack.front()
    # Pairs cut by the front, and everything padded.
    encoded = peers.encode_params(environment("POST", body, extra=extra))
    front.send(peers.begin_request(), peers.stream(PARAMS, encoded, size=40000, padding=True),
               peers.record(PARAMS, 1, b"", 8))
    front.send_in_background(peers.stream(STDIN, body, size=65535), peers.record(STDIN, 1, b"", 255))
    request = serve_one(stack)       # reading fails on a pair that is cut
    assert request.stdin == body and request.get("HTTP_X_5") == "v" * 30000
    for each in request.records:
        assert len(each.content) + len(each.padding) <= 65535
        assert len(each.content) <= 65528
        assert each.content or not each.padding
    assert front.read_answer().body == b"page"


@pytest.mark.parametrize("size", [1, 13, 8184, 65528])
def test_peer_08_answers_are_cut_anywhere(stack, size):
    """Head and JSON too. There is no empty STDOUT, and the last bytes of END_REQUEST are garbage."""
    page = b"Content-Type: text/plain\r\n\r\n" + random_bytes(100 if size < 100 else 300000)
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(STDOUT, page, size=size), peers.end_request(reserved=b"key"))
    answer = front.read_answer()
    assert answer.stdout == page and answer.ended and answer.end_reserved == b"\0\0\0"
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.stream(STDOUT, build_head() + stack.build_request(), size=size), peers.end_request())
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


@pytest.mark.parametrize("method, status, body", [("HEAD", "", b""), ("GET", "Status: 304 Not Modified\r\n", b""),
                                                  ("GET", "Status: 500 Internal Server Error\r\n", b"oops")])
def test_peer_09_some_answers_with_the_header_are_no_build_requests(stack, method, status, body):
    """HEAD comes with the header and no body; a 304 and a fatal error's 500 keep it."""
    front = stack.ask(environment(method))
    serve_one(stack, status.encode() + b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n" + build_head() + body)
    answer = front.read_answer()
    assert answer.get("X-Velox-Build") is None
    assert answer.get_all("Set-Cookie") == ["a=1", "b=2"], "doubled headers stay doubled"
    assert answer.body == body and answer.status == (int(status.split()[1]) if status else 200)
    assert stack.velox.is_idle(0.01)


@pytest.mark.parametrize("before", ["\ufeff", "\nNotice: undefined in /srv/x.php on line 3\n"])
def test_peer_09_bytes_before_the_json_are_an_error(stack, before):
    """display_errors and a BOM put them there."""
    front = stack.ask()
    serve_one(stack, build_head() + before.encode() + stack.build_request())
    check_error(front.read_answer(), 400, "invalid_request")


@pytest.mark.parametrize("how", ["gzip", "short length", "long length"])
def test_peer_09_the_json_may_be_compressed_and_its_length_wrong(stack, how):
    """By zlib.output_compression, and by the script."""
    request = stack.build_request()
    body = gzip.compress(request) if how == "gzip" else request
    extra = {"gzip": "Content-Encoding: gzip\r\n", "long length": f"Content-Length: {len(body) + 9}\r\n",
             "short length": f"Content-Length: {len(body) - 9}\r\n"}[how]
    front = stack.ask()
    serve_one(stack, build_head(extra) + body)
    if how == "short length":      # what is announced is what there is: half a JSON
        check_error(front.read_answer(), 400, "invalid_request")
        return
    call = stack.velox.accept()
    assert call.body == request
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.body == b"built" and answer.get("Content-Encoding") is None


def test_peer_10_error_text_comes_before_and_between(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr("PHP message: one; PHP message: two")
    worker.stdout("\r\nfirst ")
    worker.stderr("PHP message: three")
    worker.answer("second")
    answer = front.read_answer()
    assert answer.body == b"first second"
    assert answer.stderr == b"PHP message: one; PHP message: twoPHP message: three"


def test_peer_11_a_full_backlog_is_tried_again(start):
    """connect() on a unix socket fails with EAGAIN at once, and poll() then says that it succeeded."""
    stack = start()
    stack.fpm.close()
    stack.fpm = peers.Fpm(f"unix:{stack.folder}/php.sock", backlog=0)
    waiting = []
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(f"{stack.folder}/php.sock")
        except BlockingIOError:
            client.close()
            break
        waiting.append(client)
    front = stack.ask()
    assert front.is_silent()
    for client in waiting:
        client.close()
        stack.fpm.accept().close()
    serve_one(stack)
    assert front.read_answer().body == b"page"


def test_peer_12_a_killed_worker_is_the_same_cut_for_the_client(start):
    """It shows as a reset, often behind part of the answer; there is no END_REQUEST."""
    fpm = peers.Fpm("127.0.0.1:0")
    stack = start(php_fpm={"address": fpm.address})
    front = stack.ask()
    worker = fpm.accept()
    worker.read_request()
    worker.stdout("Content-Length: 100\r\n\r\nhalf")
    assert front.read_stdout(27) == b"Content-Length: 100\r\n\r\nhalf"
    worker.reset()
    assert not front.read_answer().ended
    front = stack.ask()
    worker = fpm.accept()
    worker.read_request()
    worker.reset()
    front.assert_closed_without_answer()
    fpm.close()


def test_peer_14_no_method_is_not_ours_to_judge(stack):
    """PHP answers an empty 200, header or not."""
    front = stack.ask([each for each in environment() if each[0] != "REQUEST_METHOD"])
    assert serve_one(stack, build_head() + b"{}").get("REQUEST_METHOD") is None
    answer = front.read_answer()
    assert answer.body == b"{}" and answer.get("X-Velox-Build") is None


def test_peer_15_a_script_that_goes_on_has_ended_its_request(stack):
    """fastcgi_finish_request(): the answer is complete while the worker keeps its connection."""
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\nfinished")
    assert front.read_answer().body == b"finished"
    worker.wait_closed()
    front.ask(keep=True)
    assert serve_one(stack)
    assert front.read_answer().body == b"page"


# ---- nginx ---------------------------------------------------------------------------------------

def seconds(text):
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit]
               for number, unit in re.findall(r"(\d+)([smh])", text))


def test_peer_16_the_sample_waits_longer_than_a_build():
    """nginx's 60 s are armed once; no byte before the complete head arms them again."""
    ini = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    ini.read_string(config_text("velox-sidecar.ini").replace("\n;build_timeout", "\nbuild_timeout"))
    waits = re.findall(r"^\s*fastcgi_read_timeout (\S+);", config_text("nginx-server.conf"), re.M)
    assert waits and min(map(seconds, waits)) > seconds(ini["velox"]["build_timeout"])


def test_peer_17_a_client_that_leaves_cancels_its_build(stack):
    """nginx closes within milliseconds, and says nothing else."""
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    left_at = time.monotonic()
    front.close()
    assert call.wait_closed() - left_at < AT_ONCE


def test_peer_18_a_front_may_close_right_after_the_head(stack):
    """nginx does for HEAD, Caddy before END_REQUEST: no error, when everything is on its way."""
    front = stack.ask(environment("HEAD"))
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("Content-Type: text/plain\r\n\r\n")
    front.read_head()
    front.close()
    worker.wait_closed()
    stack.check_serves()
    assert not [line for line in stack.sidecar.log() if line["level"] in ("warn", "error")]


def test_peer_19_a_file_cut_short_ends_before_its_length(stack):
    """A raw close would leave the client hanging or with a short file; END_REQUEST breaks it off."""
    content = random_bytes(16 << 20)
    path = stack.artifact(content)
    front = stack.php_asks_for_build(keep=True)
    stack.velox.accept().answer(json.dumps({"path": path}))
    _, got = front.read_head()
    os.truncate(path, 1 << 20)
    rest = front.read_answer()
    assert rest.ended and len(got + rest.stdout) < len(content)
    front.wait_closed()


def test_peer_20_a_kept_connection_holds_nothing_behind_end_request(stack):
    """nginx keeps it only then. It would repeat a request that died without an answer on it."""
    front = stack.ask(keep=True)
    serve_one(stack)
    front.read_answer()
    assert front.is_silent()
    front.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.close()
    check_error(front.read_answer(), 502, "worker_failed")
    assert stack.fpm.is_idle(0.02)


def test_peer_20_an_idle_kept_connection_outlives_nginxs():
    """nginx closes its side after 60 s; if we were first, a POST would meet a closed connection."""
    idle = re.search(r"^;idle_timeout = (\S+)", config_text("velox-sidecar.ini"), re.M).group(1)
    assert seconds(idle) > 60


def test_peer_21_the_head_of_a_file_adds_little(stack):
    """A head over fastcgi_buffer_size, 4k or 8k, is a 502 of nginx."""
    of_php = "X-App: " + "a" * 3000 + "\r\n"
    front = stack.php_asks_for_build(head=of_php)
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built"), "logs": "l" * 5000}))
    assert len(front.read_answer().head) - len(of_php) < 800
    assert "fastcgi_buffer_size 64k;" in config_text("nginx-server.conf")


def test_peer_22_a_partial_answer_passes(stack):
    """No front applies Range to an answer that came over FastCGI: what PHP made of it counts."""
    content = b"Status: 206 Partial Content\r\nContent-Range: bytes 0-4/9\r\nETag: \"a\"\r\n\r\n12345"
    front = stack.ask(environment(extra=[("HTTP_RANGE", "bytes=0-4")]))
    serve_one(stack, content)
    assert front.read_answer().stdout == content


@pytest.mark.parametrize("name", ["X-Accel-Redirect", "X-Sendfile", "X-LIGHTTPD-send-file"])
def test_peer_23_31_redirects_to_files_are_phps_on_a_page_and_nobodys_on_a_build(stack, name):
    """They would make the front send something else than the built file."""
    front = stack.ask()
    serve_one(stack, f"{name}: /elsewhere\r\n\r\npage")
    assert front.read_answer().get(name) == "/elsewhere"
    assert stack.build(head=f"{name}: /elsewhere\r\n").get(name) is None


def test_peer_24_one_length_and_no_transfer_encoding(stack):
    """nginx would chunk twice, and newer ones refuse two lengths."""
    answer = stack.build(head="Content-Length: 99999\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n")
    assert answer.get_all("Content-Length") == ["5"]
    assert answer.get("Transfer-Encoding") is None and answer.get("Connection") is None
    assert answer.body == b"built"


def test_peer_25_the_sample_has_buffers_for_downloads():
    text = config_text("nginx-server.conf")
    assert re.search(r"^fastcgi_buffers \d+ 64k;", text, re.M)
    assert "\nfastcgi_max_temp_file_size 0;" in text


def test_peer_26_a_burst_of_connections_is_not_refused(stack):
    """A backlog that is full is an instant 502 of nginx, and not tried again."""
    clients = []
    for _ in range(600):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        clients.append(client)
        client.connect(stack.sidecar.address[5:])     # EAGAIN: refused
    for client in clients:
        client.close()
    stack.check_serves()


def scgi_request(method="GET", body=b""):
    pairs = [("CONTENT_LENGTH", len(body)), ("SCGI", "1")] + [
        each for each in environment(method) if each[0] != "CONTENT_LENGTH"]
    inside = b"".join(peers.to_bytes(part) + b"\0" for each in pairs for part in each)
    return b"%d:%s,%s" % (len(inside), inside, body)


def test_peer_27_scgi_ends_by_the_close_alone(start):
    """CONTENT_LENGTH comes first, nothing is half-closed, and leaving is a close as well."""
    stack = start(listen={"scgi": "unix:{folder}/scgi.sock"})
    wait_until(lambda: os.path.exists(f"{stack.folder}/scgi.sock"), "the listener")
    client = peers.connect(f"unix:{stack.folder}/scgi.sock")
    client.sendall(scgi_request("POST", b"hello"))
    assert serve_one(stack).stdin == b"hello"
    out = b""
    while part := client.recv(1000):
        out += part
    assert out == b"\r\npage"
    client = peers.connect(f"unix:{stack.folder}/scgi.sock")
    client.sendall(scgi_request())
    worker = stack.fpm.accept()
    worker.read_request()
    left_at = time.monotonic()
    client.close()
    assert worker.wait_closed() - left_at < AT_ONCE


@pytest.mark.parametrize("size", [8192, 32768])
def test_peer_28_requests_as_nginx_writes_them(stack, size):
    """One padded PARAMS record; STDIN in records of 8 or 32 KiB; CONTENT_LENGTH="" for a GET. A
    client's `Proxy:` is HTTP_PROXY."""
    front = stack.ask(environment(extra=[("HTTP_PROXY", "http://evil.example")]))
    request = serve_one(stack)
    assert request.get("CONTENT_LENGTH") == "" and request.stdin == b"" and request.get("HTTP_PROXY") is None
    front.read_answer()
    body = random_bytes(100001)
    front = stack.front()
    front.ask(environment("POST", body), body, stdin_size=size)
    assert serve_one(stack).stdin == body
    assert front.read_answer().body == b"page"


# ---- the others ----------------------------------------------------------------------------------

def test_peer_29_build_timeout_bounds_what_no_front_cancels(start):
    """lighttpd, Apache and Caddy do not tell that the client has left."""
    stack = start(velox={"build_timeout": "200ms"})
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    check_error(front.read_answer(), 504, "timeout")
    call.wait_closed()


def test_peer_30_only_stdout_ends_before_end_request(stack):
    """Apache writes what follows an empty STDOUT behind the body, Caddy unknown types into it."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.record(STDOUT, 1, b"\r\npa"), peers.record(42, 1, b"unknown"), peers.record(STDOUT, 1, b"ge"),
                peers.record(STDOUT), peers.end_request())
    assert_ends_well(front.read_answer(), b"page")
    assert_ends_well(stack.build(), b"built")
    front = stack.ask()
    serve_one(stack, build_head() + b"{}")
    assert_ends_well(front.read_answer(), None)


def assert_ends_well(answer, body):
    assert {each.type for each in answer.records} <= {STDOUT, STDERR, END_REQUEST}
    assert body is None or answer.body == body
    kinds = [(each.type, bool(each.content)) for each in answer.records]
    last = max(at for at, kind in enumerate(kinds) if kind == (STDOUT, True))
    assert kinds[last + 1:] in ([(END_REQUEST, True)], [(STDOUT, False), (END_REQUEST, True)])


def test_peer_32_values_are_told_before_the_first_request(stack):
    """HAProxy asks and waits."""
    front = stack.front()
    front.send(peers.record(peers.GET_VALUES, 0, peers.encode_params([("FCGI_MAX_REQS", ""), ("FCGI_MPXS_CONNS", "")])))
    received = front.read_record()
    assert received.type == peers.GET_VALUES_RESULT
    assert dict(peers.read_pairs(received.content))[b"FCGI_MPXS_CONNS"] == b"0"
    front.ask(keep=True)
    serve_one(stack)
    assert front.read_answer().body == b"page"


def test_peer_32_error_text_comes_in_small_records(stack):
    """HAProxy crashes on 60 kB of it in one."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr("e" * 60000)
    worker.answer("\r\npage")
    answer = front.read_answer()
    assert answer.stderr == b"e" * 60000
    assert max(len(each.content) for each in answer.records if each.type == STDERR) <= 4096


@pytest.mark.parametrize("length", [1, 7, 8, 4096, 4097])
def test_peer_32_error_text_is_padded(stack, length):
    """HAProxy crashes on a record of it that has no padding and is the last of a read."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr("e" * length)
    received = front.read_record()
    assert received.type == STDERR and received.padding
    worker.answer("\r\npage")
    answer = front.read_answer()
    assert received.content + answer.stderr == b"e" * length
    assert all(each.padding for each in answer.records if each.type == STDERR)
    assert not b"".join(each.padding for each in answer.records).strip(b"\0"), "nothing leaks"


def test_peer_32_error_text_and_head_of_one_write_leave_in_one(stack):
    """Also where the head is one that is not passed on as it is."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(peers.record(STDERR, 1, b"PHP Fatal error"),
                peers.stream(STDOUT, b"Status: 500 Oops\r\n" + build_head()), peers.end_request())
    select.select([front.connection], [], [], peers.DEADLINE)
    first = front.connection.recv(1 << 16)
    assert b"PHP Fatal error" in first and b"Status: 500 Oops" in first
    assert first.endswith(peers.end_request())


def test_peer_32_no_answer_without_a_head(stack):
    """HAProxy crashes on one: a dead worker is a close."""
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.close()
    front.assert_closed_without_answer()


# ---- what went wrong elsewhere -------------------------------------------------------------------

def test_peer_33_the_largest_record_with_the_largest_padding(stack):
    """65535 + 255 does not fit 16 bits."""
    body = random_bytes(65535)
    front = stack.front()
    front.begin(environment("POST", body))
    front.send_in_background(peers.record(STDIN, 1, body, 255), peers.record(STDIN))
    worker = stack.fpm.accept()
    assert worker.read_request().stdin == body
    worker.send(peers.record(STDOUT, 1, b"\r\n" + body[2:], 255), peers.end_request())
    assert front.read_answer().body == body[2:]


@pytest.mark.parametrize("length", [127, 128, 60000])
def test_peer_33_both_forms_of_a_length(stack, length):
    front = stack.ask(environment(extra=[("N" * 127, "v" * length), ("M" * 128, "w" * length)]))
    request = serve_one(stack)
    assert request.get("N" * 127) == "v" * length and request.get("M" * 128) == "w" * length
    front.read_answer()


@pytest.mark.parametrize("name, bytes_sent", [
    ("a length of 2^31-1", peers.begin_request() + peers.record(PARAMS, 1, b"\xff" * 8 + b"ab") + peers.record(PARAMS)),
    ("id 0", peers.record(peers.BEGIN_REQUEST, 0, b"\0\1\0\0\0\0\0\0")),
    ("the end within a record", peers.begin_request() + peers.record(PARAMS, 1, b"\1\1ab")[:-1]),
])
def test_peer_33_what_cannot_be_is_refused(stack, name, bytes_sent):
    front = stack.front()
    front.send(bytes_sent)
    if name.startswith("the end"):
        front.connection.shutdown(socket.SHUT_WR)
    front.wait_closed()
    assert stack.fpm.is_idle(0.02)
    stack.check_serves()


def test_peer_33_an_unread_body_is_no_request(stack):
    """The rest of an upload that PHP did not want looks like whatever the client likes."""
    body = (peers.begin_request() + peers.stream(PARAMS, peers.encode_params(environment(uri="/evil")))
            + peers.record(PARAMS) + peers.record(STDIN)) * 10
    front = stack.front()
    front.begin(environment("POST", body), keep=True)
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer("Status: 413 Too Big\r\n\r\nno")
    assert front.read_answer().status == 413
    worker.wait_closed()
    front.send(peers.stream(STDIN, body, size=1000), peers.record(STDIN))
    front.ask(environment(uri="/good"), keep=True)
    assert serve_one(stack).get("SCRIPT_NAME") == "/good"
    assert front.read_answer().body == b"page" and stack.fpm.is_idle(0.02)


HEADS = [b"X-A: 1\r\n folded\r\n", b"X-A : space\r\n", b"X-A: nul\0byte\r\n", b"X-A: lone\rcr\r\n",
         b"X-A\r\n", b": none\r\n"]


@pytest.mark.parametrize("line", HEADS)
def test_peer_34_odd_lines_pass_on_a_page_and_make_no_other_header_on_a_build(stack, line):
    front = stack.ask()
    serve_one(stack, line + b"X-B: 2\r\n\r\npage")
    assert front.read_answer().stdout == line + b"X-B: 2\r\n\r\npage"
    answer = stack.build(head=line + b"X-B: 2\r\n")
    assert answer.body == b"built" and answer.get("X-B") == "2" and answer.get("Content-Length") == "5"
    assert not re.search(rb"\0|\r(?!\n)|(?<!\r)\n|\n[ \t]", answer.head)


def test_peer_34_nothing_of_veloxs_head_is_passed_on(stack):
    answer = stack.build(headers=[("X-Evil", "1"), ("Set-Cookie", "velox=1"), ("Status", "404")])
    assert answer.status == 200 and answer.get("X-Evil") is None and answer.get("Set-Cookie") is None


def test_peer_35_dangerous_variables_are_passed_and_never_made(stack):
    extra = [("PHP_VALUE", "auto_prepend_file=x"), ("PHP_ADMIN_VALUE", "y=z"), ("PATH_INFO", "/a\n%0a")]
    front = stack.ask(environment(extra=extra + [("HTTP_PROXY", "http://evil.example")]))
    request = serve_one(stack)
    for name, value in extra:
        assert request.get(name) == value
    assert request.get("HTTP_PROXY") is None
    front.read_answer()
    front = stack.ask()
    names = {name for name, _ in serve_one(stack).pairs}
    assert names - {b"VELOX_SIDECAR"} == {name.encode() for name, _ in environment()}
    front.read_answer()


def test_peer_35_no_proxy_is_taken_from_the_environment(start, monkeypatch):
    """curl would, unless told not to."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert start().build().body == b"built"


@pytest.mark.parametrize("address, allowed", [("127.0.0.1", "192.0.2.1"), ("[::1]", "::2"), ("[::1]", "::1:0:0:1")])
def test_peer_35_who_is_not_allowed_is_not_served(start, address, allowed):
    """Whoever reaches the listener runs PHP code. An address of IPv6 is compared in full."""
    if address == "[::1]":
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::1", 0))
            except OSError:
                pytest.skip("no IPv6 here")
    stack = start(listen={"fastcgi": f"{address}:{unused_port()}", "allowed_clients": allowed})
    stack.front().wait_closed()
    assert stack.fpm.is_idle()


@pytest.mark.parametrize("form", ["text", "json"])
def test_peer_36_no_control_character_reaches_the_log(start, form):
    evil = "\x1b[31m<script>\nlevel=error forged\r\x00\x7f"
    stack = start(sidecar={"log_format": form}, listen={"scgi": "unix:{folder}/scgi.sock"})
    check_error(stack.build(json.dumps({"code": "internal", "message": evil}), status=500), 500, "build_failed")
    wait_until(lambda: os.path.exists(f"{stack.folder}/scgi.sock"), "the listener")
    client = peers.connect(f"unix:{stack.folder}/scgi.sock")
    client.sendall(scgi_request())
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr(evil)
    worker.answer("\r\npage")
    client.recv(1000)
    wait_until(lambda: "PHP error output" in stack.sidecar.log_text(), "the line")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", stack.sidecar.log_text())
    assert not re.search(r"^level=error forged", stack.sidecar.log_text(), re.M)
