# SPDX-License-Identifier: MIT
"""The same request straight to PHP-FPM and through the sidecar: the client of no web server can
tell, and neither can the page."""
import pytest

from fronts import FRONTS, Fronts
from test_e2e_comparison import REQUESTS


@pytest.fixture(scope="module")
def stack():
    running = Fronts().start()
    yield running
    running.stop()


@pytest.fixture(params=list(FRONTS))
def front(request):
    return request.param


# Where the front speaks SCGI the direct one speaks FastCGI, and a server may frame the body of the
# one otherwise than of the other, and write the names of headers in another case or order.
FRAMING = ("content-length", "transfer-encoding", "connection", "date", "accept-ranges")


def comparable(front, headers):
    if front.endswith("_scgi"):
        return sorted((key.lower(), value) for key, value in headers if key.lower() not in FRAMING)
    return [(key, value) for key, value in headers if key.lower() != "date"]


@pytest.mark.parametrize("name", list(REQUESTS))
def test_same_answer(stack, front, name):
    if FRONTS[front].server == "haproxy" and name == "long head":
        # With PHP-FPM alone behind it, and not every time: 'bug condition "c_empty(ic)" matched at
        # src/stconn.c:1479', after which no later test finds it running.
        pytest.skip("HAProxy 2.6 may abort on a long head straight from PHP-FPM")
    method, target, body, headers = REQUESTS[name]
    direct = stack.request(method, target, body, headers, f"direct-{front}")
    through = stack.request(method, target, body, headers, front)
    assert (through.status, through.reason) == (direct.status, direct.reason)
    assert comparable(front, through.headers) == comparable(front, direct.headers)
    assert through.body == direct.body


@pytest.mark.parametrize("front", [name for name in FRONTS if not name.endswith("_scgi")])
def test_page_sees_the_same_request(stack, front):
    """All that differs is what the sidecar adds, and the ports."""
    target = "/echo.php?x=%C3%A9&y[]=1&y[]=2"
    headers = {"X-Long": "v" * 3000, "Cookie": "a=b; c=d", "Accept-Language": "de",
               "Host": "a.example"}
    if FRONTS[front].server == "caddy":
        headers["Host"] = "127.0.0.1"        # the only name that its site has
    direct, through = (stack.request("POST", target, b"abc", headers, name).json()
                       for name in (f"direct-{front}", front))
    assert direct.pop("sidecar") is None and through.pop("sidecar")
    for answer in (direct, through):
        for name in ("REMOTE_PORT", "SERVER_PORT"):
            answer["server"].pop(name, None)
    assert through == direct
