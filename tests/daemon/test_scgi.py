# SPDX-License-Identifier: MIT
"""SCGI fronts get the same service: a netstring in, a CGI response out, the close is the end.

The client here is written from the SCGI protocol text alone.
"""

import json
import socket
import threading

import pytest

from peers import DEADLINE, Answer, connect, environment, random_bytes

SCGI = {"scgi": "unix:{folder}/scgi.sock"}


def netstring(pairs):
    inside = b"".join(name + b"\0" + value + b"\0" for name, value in pairs)
    return b"%d:%s," % (len(inside), inside)


def request(body=b"", method="GET", extra=(), length=None):
    """The bytes of a request; CONTENT_LENGTH first, as the protocol has it."""
    pairs = [(b"CONTENT_LENGTH", b"%d" % (len(body) if length is None else length)), (b"SCGI", b"1")]
    for name, value in environment(method, extra=extra):
        if name != "CONTENT_LENGTH":
            pairs.append((name.encode(), value.encode() if isinstance(value, str) else value))
    return netstring(pairs) + body


def ask(stack, *parts):
    client = connect(stack.sections["listen"]["scgi"], DEADLINE)
    for part in parts:
        client.sendall(part)
    return client


def read_answer(client):
    """The whole response; ends with the connection."""
    answer = Answer()
    out = b""
    while True:
        piece = client.recv(1 << 20)
        if not piece:
            break
        out += piece
    answer.stdout = out
    client.close()
    return answer


@pytest.fixture
def stack(start):
    stack = start(listen=SCGI)
    stack.sidecar.wait_log("ready")
    return stack


@pytest.mark.parametrize("size", [0, 1, 65527, 65528, 65529, 1 << 20])
def test_a_body_and_an_answer_pass_whole(stack, size):
    body, page = random_bytes(size), random_bytes(size + 7)
    client = connect(stack.sections["listen"]["scgi"], DEADLINE)
    client.setblocking(True)
    bytes_out = request(body, "POST")

    sender = threading.Thread(target=client.sendall, args=(bytes_out,))
    sender.start()
    worker = stack.fpm.accept()
    got = worker.read_request()
    sender.join()
    assert got.stdin == body
    assert got.get("CONTENT_LENGTH") == str(size) and got.get("REQUEST_METHOD") == "POST"
    assert got.get("SCGI") is None, "the mark of the protocol is no variable of the request"
    sender = threading.Thread(target=worker.answer, args=(b"Content-Type: text/plain\r\n\r\n" + page,))
    sender.start()
    assert read_answer(client).stdout == b"Content-Type: text/plain\r\n\r\n" + page
    sender.join()


def test_a_request_in_single_bytes(stack):
    client = ask(stack, *[bytes([byte]) for byte in request(b"hello", "POST")])
    worker = stack.fpm.accept()
    assert worker.read_request().stdin == b"hello"
    worker.answer("\r\npage")
    assert read_answer(client).stdout == b"\r\npage"


def test_error_text_is_logged_and_not_sent(stack):
    client = ask(stack, request())
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stderr("PHP Warning: \x1b[31mred\n")
    worker.answer("\r\npage")
    assert read_answer(client).stdout == b"\r\npage"
    assert "PHP Warning" in stack.sidecar.wait_log("PHP error output")["stderr"]


def test_a_build_is_delivered(stack):
    content = random_bytes(3 << 20)
    client = ask(stack, request())
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"X-Velox-Build: true\r\nX-App: yes\r\n\r\n" + stack.build_request())
    worker.wait_closed()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(content)}))
    answer = read_answer(client)
    assert answer.status == 200 and answer.body == content
    assert answer.get("Content-Length") == str(len(content)) and answer.get("X-App") == "yes"


def test_a_failed_build_is_json(stack):
    client = ask(stack, request())
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"X-Velox-Build: true\r\n\r\n{}")
    answer = read_answer(client)
    assert answer.status == 400 and json.loads(answer.body)["error"] == "invalid_request"


def test_a_client_that_leaves_cancels_its_build(stack):
    client = ask(stack, request())
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"X-Velox-Build: true\r\n\r\n" + stack.build_request())
    call = stack.velox.accept()
    client.close()
    call.wait_closed()


def test_a_worker_that_dies_is_a_close_without_answer(stack):
    client = ask(stack, request())
    stack.fpm.accept().close()
    assert read_answer(client).stdout == b""


MALFORMED = [b"x", b"00:,", b"5:hello.", b"1234567890:", b"24:CONTENT_LENGTH\x00x\x00SCGI\x001\x00,",
             b"16:SCGI\x001\x00A\x00B\x00C\x00D\x00E,", b"24:CONTENT_LENGTH\x000\x00SCGI\x002\x00,"]


@pytest.mark.parametrize("head", MALFORMED)
def test_a_malformed_head_closes_that_connection_only(stack, head):
    client = ask(stack, head)
    client.settimeout(DEADLINE)
    try:
        assert client.recv(1) == b""
    except ConnectionResetError:
        pass
    client.close()
    stack.check_serves()


def test_a_head_over_the_limit_is_431(start):
    stack = start(listen={**SCGI, "max_params_size": "4K"})
    stack.sidecar.wait_log("ready")
    client = ask(stack, request(extra=[("HTTP_COOKIE", "x" * 5000)]))
    answer = read_answer(client)
    assert answer.status == 431 and json.loads(answer.body)["error"] == "too_large"


def test_a_body_that_ends_short_is_400_where_it_can_be_told(stack):
    client = ask(stack, request(b"half", "POST", length=100))
    client.shutdown(socket.SHUT_WR)
    worker = stack.fpm.accept()
    worker.wait_closed()
    client.close()


def test_over_tcp(start):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stack = start(listen={"scgi": f"127.0.0.1:{port}"})
    stack.sidecar.wait_log("ready")
    client = ask(stack, request())
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    assert read_answer(client).stdout == b"\r\npage"
