# SPDX-License-Identifier: MIT
"""Interrupted downloads go on where they stopped; who has the file gets no second copy."""

import json
import os

import pytest

from peers import environment, random_bytes

CONTENT = random_bytes(200_000)


@pytest.fixture
def path(stack):
    return stack.artifact(CONTENT, "ranged")


def download(stack, path, method="GET", **headers):
    extra = [("HTTP_" + name.upper(), value) for name, value in headers.items()]
    front = stack.php_asks_for_build(head="Set-Cookie: a=1\r\nAccess-Control-Allow-Origin: *\r\n",
                                     pairs=environment(method, extra=extra))
    stack.velox.accept().answer(json.dumps({"path": path}))
    return front.read_answer()


@pytest.mark.parametrize("text,first,end", [
    ("bytes=0-0", 0, 1), ("bytes=100000-", 100000, 200000), ("bytes=-1", 199999, 200000),
    ("bytes=65527-131057", 65527, 131058), ("bytes=199999-300000", 199999, 200000)])
def test_one_range_is_a_206_of_exactly_these_bytes(stack, path, text, first, end):
    answer = download(stack, path, range=text)
    assert answer.status == 206 and answer.body == CONTENT[first:end] and answer.ended
    assert answer.get("Content-Range") == f"bytes {first}-{end - 1}/200000"
    assert answer.get("Content-Length") == str(end - first)
    assert answer.get("Set-Cookie") == "a=1" and answer.get("X-Build-Request-ID")
    assert "Content-Range" in answer.get("Access-Control-Expose-Headers")


def test_a_range_that_is_not_there_is_416(stack, path):
    answer = download(stack, path, range="bytes=200000-")
    assert answer.status == 416 and answer.body == b"" and answer.ended
    assert answer.get("Content-Range") == "bytes */200000" and answer.get("Content-Length") == "0"


@pytest.mark.parametrize("method,headers", [
    ("GET", {"range": "bytes=0-1,5-6"}), ("GET", {"range": "pages=1"}),
    ("GET", {"range": "bytes=0-1", "if_range": '"another"'}), ("POST", {"range": "bytes=0-1"})])
def test_anything_else_gets_the_whole_file(stack, path, method, headers):
    answer = download(stack, path, method, **headers)
    assert answer.status == 200 and answer.body == CONTENT


def test_who_has_the_file_gets_304(stack, path):
    whole = download(stack, path)
    for headers in ({"if_none_match": whole.get("ETag")}, {"if_none_match": "W/" + whole.get("ETag")},
                    {"if_modified_since": whole.get("Last-Modified")},
                    {"if_none_match": whole.get("ETag"), "range": "bytes=0-5"}):
        answer = download(stack, path, **headers)
        assert answer.status == 304 and answer.body == b"" and answer.ended
        assert answer.get("ETag") == whole.get("ETag") and answer.get("Set-Cookie") == "a=1"
        assert answer.get("Content-Length") is None and answer.get("Content-Type") is None


def test_an_interrupted_download_goes_on(stack, path):
    whole = download(stack, path)
    answer = download(stack, path, range="bytes=70000-", if_range=whole.get("ETag"))
    assert answer.status == 206 and whole.body[:70000] + answer.body == CONTENT
    os.utime(path, ns=(1, 1_000_000_007))
    answer = download(stack, path, range="bytes=70000-", if_range=whole.get("ETag"))
    assert answer.status == 200 and answer.body == CONTENT, "another file"
