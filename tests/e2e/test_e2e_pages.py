# SPDX-License-Identifier: MIT
"""Ordinary pages through nginx, the sidecar and PHP-FPM, in each way nginx may be set up."""
import hashlib
import urllib.parse

import pytest

from stack import wait_until

MEGABYTE = 1 << 20
BLOCK = bytes(range(256)) * 256


def pattern(size):
    """The bytes of www/down.php."""
    return (BLOCK * (size // len(BLOCK) + 1))[:size]


def in_pieces(body, size=65536):
    for start in range(0, len(body), size):
        yield body[start:start + size]


def test_get(stack, front):
    answer = stack.get("/echo.php?a=1&b=two", front=front)
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.json()["method"] == "GET"
    assert answer.json()["get"] == {"a": "1", "b": "two"}


def test_page_can_tell_that_builds_are_taken_off_its_hands(stack, front):
    assert stack.get("/echo.php", front=front).json()["sidecar"]
    assert stack.get("/echo.php", front=f"direct-{front}").json()["sidecar"] is None


def test_form(stack, front):
    answer = stack.request("POST", "/echo.php", urllib.parse.urlencode({"name": "Zoë", "n": 3}),
                           {"Content-Type": "application/x-www-form-urlencoded"}, front)
    assert answer.json()["post"] == {"name": "Zoë", "n": "3"}


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, MEGABYTE, 100 * MEGABYTE])
def test_upload(stack, front, size):
    body = pattern(size)
    answer = stack.request("POST", "/echo.php", body, {"Content-Type": "text/plain"}, front)
    assert answer.status == 200
    assert answer.json()["length"] == size
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [1, 70_000, 5 * MEGABYTE])
def test_chunked_upload(stack, front, size):
    """Unbuffered nginx does not announce the length, and PHP-FPM alone would see no body."""
    body = pattern(size)
    answer = stack.request("POST", "/echo.php", in_pieces(body), {"Content-Type": "text/plain"},
                           front, encode_chunked=True)
    assert answer.json()["length"] == size
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 65527, 65528, 65529, MEGABYTE, 100 * MEGABYTE])
@pytest.mark.parametrize("announce", ["", "&announce"], ids=["chunked", "announced"])
def test_download(stack, front, size, announce):
    answer = stack.get(f"/down.php?bytes={size}{announce}", front=front)
    assert answer.status == 200
    assert answer.body == pattern(size)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(stack, front, status):
    answer = stack.get(f"/answer.php?status={status}&header[]=Location:+/elsewhere", front=front)
    assert answer.status == status
    assert answer.header("location") == "/elsewhere"


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body(stack, front, status):
    answer = stack.get(f"/answer.php?status={status}&header[]=ETag:+%22v1%22", front=front)
    assert answer.status == status
    assert answer.header("etag") == '"v1"'
    assert answer.body == b""


@pytest.mark.parametrize("status", [400, 404, 418, 500, 503])
def test_error_of_the_page(stack, front, status):
    answer = stack.get(f"/answer.php?status={status}&body=explained", front=front)
    assert (answer.status, answer.body) == (status, b"explained")


def test_log_lines_of_the_page(stack, front):
    answer = stack.get(f"/stderr.php?token={front}", front=front)
    assert answer.body == b"before after\n"
    log = (stack.directory / "nginx.error.log").read_text()
    assert f"first message for the log, {front}" in log
    assert f"second message for the log, {front}" in log


def test_fatal_error(stack, front):
    """PHP sends the page's headers with its 500; the header that asks for a build is not one for
    the client, and a 500 is no build request."""
    answer = stack.get("/fatal.php", front=front)
    assert answer.status == 500
    assert answer.header("x-velox-build") is None
    assert "no_such_function" in (stack.directory / "nginx.error.log").read_text()


def test_page_that_goes_on_after_its_answer(stack, front):
    done = stack.flag("finish-done")
    for name in ("finish-go", "finish-done"):
        stack.flag(name).unlink(missing_ok=True)
    answer = stack.get("/finish.php", front=front)
    assert answer.body == b"the answer\n"
    assert not done.exists()
    stack.flag("finish-go").touch()
    wait_until(done.exists, "the page ends")


def test_flushed_output_passes_at_once(stack, front):
    """The page writes its second event only when the first one has been seen here."""
    connection = stack.send(f"/events.php?token={front.replace('_', '-')}", front)
    response = connection.getresponse()
    assert response.status == 200
    assert response.readline() == b"data: first\n"
    assert response.readline() == b"\n"
    stack.flag(f"events-{front.replace('_', '-')}").touch()
    assert response.read() == b"data: second\n\n"
    connection.close()


@pytest.mark.parametrize("size", [3_000, 12_000, 50_000])
def test_long_response_head(stack, front, size):
    answer = stack.get(f"/head.php?bytes={size}", front=front)
    assert answer.status == 200
    assert answer.body == b"behind a long head\n"
    fillers = [value for key, value in answer.headers if key.startswith("X-Filler-")]
    assert sum(map(len, fillers)) > size * 0.9
    assert answer.all("set-cookie") == ["first=1", "second=2"]


@pytest.mark.parametrize("page", ["/hello.php", "/down.php?bytes=100000", "/ask.php"])
def test_head_request(stack, front, page):
    answer = stack.request("HEAD", page, front=front)
    assert answer.status == 200
    assert answer.body == b""
    assert answer.header("x-velox-build") is None


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods(stack, front, method):
    answer = stack.request(method, "/echo.php", b"payload", front=front)
    assert answer.json()["method"] == method
    assert answer.json()["length"] == 7


def test_http_proxy_never_reaches_the_page(stack, front):
    """A client's `Proxy:` would become HTTP_PROXY, which HTTP libraries take for a proxy to use."""
    headers = {"Proxy": "http://attacker.example:8080", "X-Proxy": "stays"}
    server = stack.get("/echo.php", headers, front).json()["server"]
    assert "HTTP_PROXY" not in server
    assert server["HTTP_X_PROXY"] == "stays"


def test_many_requests_on_one_client_connection(stack, front):
    connection = stack.connect(front)
    for number in range(200):
        connection.request("GET", f"/echo.php?n={number}")
        response = connection.getresponse()
        assert response.status == 200
        assert f'"n":"{number}"'.encode() in response.read()
    connection.close()


def test_page_that_does_not_read_the_upload(stack, front):
    """The answer is complete before the upload is; the client's connection stays usable."""
    connection = stack.connect(front)
    for _ in range(3):
        connection.request("POST", "/hello.php", pattern(3 * MEGABYTE),
                           {"Content-Type": "application/octet-stream"})
        assert connection.getresponse().read() == b"hello\n"
    connection.close()


def test_client_that_leaves_in_the_middle_of_its_upload(stack, front):
    for _ in range(10):
        connection = stack.connect(front)
        connection.putrequest("POST", "/echo.php")
        connection.putheader("Content-Length", str(MEGABYTE))
        connection.endheaders(pattern(300_000))
        connection.close()
    assert stack.get("/hello.php", front=front).body == b"hello\n"


def test_client_that_leaves_costs_nobody_else_anything(stack, front):
    for _ in range(20):
        connection = stack.send("/down.php?bytes=50000000", front)
        connection.getresponse().read(1000)
        connection.close()
    assert stack.get("/hello.php", front=front).body == b"hello\n"
