# SPDX-License-Identifier: MIT
"""The sidecar between nginx and PHP-FPM over TCP, where closing too early would reset an answer."""
import hashlib
import time

import pytest

from test_e2e_builds import ABORT_MS, ask, wait_for_build
from test_e2e_pages import MEGABYTE, in_pieces, pattern


def test_page(over_tcp, front):
    assert over_tcp.get("/hello.php", front=front).body == b"hello\n"


def test_upload_and_download(over_tcp, front):
    body = pattern(5 * MEGABYTE)
    answer = over_tcp.request("POST", "/echo.php", body, {"Content-Type": "text/plain"}, front)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    answer = over_tcp.request("POST", "/echo.php", in_pieces(body), {"Content-Type": "text/plain"},
                              front, encode_chunked=True)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert over_tcp.get(f"/down.php?bytes={len(body)}", front=front).body == body


def test_page_that_does_not_read_the_upload(over_tcp, front):
    for _ in range(10):
        answer = over_tcp.request("POST", "/hello.php", pattern(3 * MEGABYTE),
                                  {"Content-Type": "application/octet-stream"}, front)
        assert (answer.status, answer.body) == (200, b"hello\n")


@pytest.mark.parametrize("size", [0, 1, 65528, 64 * MEGABYTE])
def test_client_gets_the_built_file(over_tcp, front, size):
    target, request_id = ask(standin={"size": size})
    answer = over_tcp.get(target, front=front)
    assert answer.status == 200
    assert hashlib.sha256(answer.body).hexdigest() == over_tcp.build_of(request_id)["sha256"]


def test_client_that_leaves_ends_the_build(over_tcp, front):
    delays = []
    for _ in range(3):
        target, request_id = ask(standin={"behaviour": "hang"})
        connection = over_tcp.send(target, front)
        wait_for_build(over_tcp, request_id)
        left_ms = time.monotonic() * 1000
        connection.close()
        delays.append(wait_for_build(over_tcp, request_id, "cancelled")["ended_ms"] - left_ms)
        if delays[-1] < ABORT_MS:
            return
    pytest.fail(f"closed after {delays} ms")
