# SPDX-License-Identifier: MIT
"""The same request straight to PHP-FPM and through the sidecar: the client cannot tell."""
import pytest

REQUESTS = {
    "page": ("GET", "/hello.php", None, {}),
    "query": ("GET", "/answer.php?status=200&body=a%20b%26c", None, {}),
    "post": ("POST", "/answer.php?status=201&body=made", b"x=1", {
        "Content-Type": "application/x-www-form-urlencoded"}),
    "head": ("HEAD", "/hello.php", None, {}),
    "options": ("OPTIONS", "/hello.php", None, {}),
    "range": ("GET", "/down.php?bytes=1000&announce", None, {"Range": "bytes=1-2"}),
    "gzip": ("GET", "/hello.php", None, {"Accept-Encoding": "gzip"}),
    "announced": ("GET", "/down.php?bytes=300000&announce", None, {}),
    "chunked": ("GET", "/down.php?bytes=300000", None, {}),
    "empty": ("GET", "/down.php?bytes=0", None, {}),
    "not modified": ("GET", "/answer.php?status=304&header[]=ETag:+%22v1%22", None, {}),
    "no content": ("GET", "/answer.php?status=204", None, {}),
    "redirect": ("GET", "/answer.php?status=302&header[]=Location:+//x.example/a?b=c", None, {}),
    "relative redirect": ("GET", "/answer.php?status=303&header[]=Location:+/here", None, {}),
    "partial content": ("GET", "/answer.php?status=206&header[]=Content-Range:+bytes+0-4/9"
                               "&body=12345", None, {}),
    "odd status": ("GET", "/answer.php?status=299&body=odd", None, {}),
    "not found": ("GET", "/answer.php?status=404&body=none", None, {}),
    "no such page": ("GET", "/nowhere.php", None, {}),
    "server error": ("GET", "/answer.php?status=503&header[]=Retry-After:+7&body=later", None, {}),
    "same header twice": ("GET", "/answer.php?status=200&header[]=X-Two:+a&header[]=X-Two:+b",
                          None, {}),
    "cookies": ("GET", "/head.php?bytes=600", None, {}),
    "long head": ("GET", "/head.php?bytes=12000", None, {}),
    "log lines": ("GET", "/stderr.php?token=compared", None, {}),
    "json": ("GET", "/answer.php?status=200&header[]=Content-Type:+application/json&body=%7B%7D",
             None, {}),
    "nginx's own headers": ("GET", "/answer.php?status=200&header[]=X-Accel-Expires:+0"
                                   "&header[]=X-Accel-Charset:+utf-8&body=x", None, {}),
}


@pytest.mark.parametrize("name", list(REQUESTS))
def test_same_answer(stack, front, name):
    method, target, body, headers = REQUESTS[name]
    direct = stack.request(method, target, body, headers, f"direct-{front}")
    through = stack.request(method, target, body, headers, front)
    assert (through.status, through.reason) == (direct.status, direct.reason)
    assert without_date(through.headers) == without_date(direct.headers)
    assert through.body == direct.body


def test_page_sees_the_same_request(stack, front):
    """All that differs is what the sidecar adds and the address of the other end."""
    target = "/echo.php?x=%C3%A9&y[]=1&y[]=2"
    headers = {"X-Long": "v" * 3000, "Cookie": "a=b; c=d", "Accept-Language": "de"}
    direct = stack.request("POST", target, b"abc", headers, f"direct-{front}").json()
    through = stack.request("POST", target, b"abc", headers, front).json()
    for answer in (direct, through):
        del answer["sidecar"]
    assert through == direct


def without_date(headers):
    return [(key, value) for key, value in headers if key.lower() != "date"]
