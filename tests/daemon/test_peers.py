# SPDX-License-Identifier: MIT
"""The peers against each other: what the other tests take for granted."""

import base64
import hashlib
import json
import urllib.error
import urllib.request

import pytest

import peers
from conftest import wait_until
from peers import Fpm, Front, environment, random_bytes


@pytest.fixture
def fpm(folder):
    fpm = Fpm(f"unix:{folder}/peer.sock")
    yield fpm
    fpm.close()


def test_a_front_and_a_scripted_worker_understand_each_other(fpm):
    front = Front(fpm.address)
    front.ask(environment("POST", b"body", extra=[("LONG", "x" * 1000)]), b"body", request_id=1)
    worker = fpm.accept()
    request = worker.read_request()
    assert request.stdin == b"body" and request.get("LONG") == "x" * 1000
    worker.stderr("oops")
    worker.answer("Status: 404 Not Found\r\n\r\nnothing", app_status=7)
    answer = front.read_answer()
    assert (answer.status, answer.body, answer.stderr) == (404, b"nothing", b"oops")
    assert answer.app_status == 7 and answer.end_reserved == b"\0\0\0"
    worker.close()
    front.wait_closed()


def test_pairs_of_every_length_form_are_read_back():
    pairs = [(b"n" * length, b"v" * other) for length in (0, 1, 127, 128, 300) for other in (0, 127, 128, 70000)]
    assert peers.read_pairs(peers.encode_params(pairs)) == pairs


@pytest.mark.parametrize("query,body,expected", [
    ("do=echo", b"hello", b"hello"),
    ("do=body&size=3", b"", b"\0\1\2"),
    ("do=echo", random_bytes(300000), random_bytes(300000)),
])
def test_the_fcgx_responder_answers_a_front(responder, query, body, expected):
    front = Front(responder)
    front.ask(environment("POST" if body else "GET", body, extra=[("QUERY_STRING", query)]), body)
    answer = front.read_answer()
    assert answer.body == expected and answer.ended


def test_the_fcgx_responder_shows_its_parameters(responder):
    front = Front(responder)
    front.ask([("REQUEST_METHOD", "GET"), ("QUERY_STRING", "status=418&stderr=5&app_status=3"), ("A", "1")])
    answer = front.read_answer()
    assert answer.status == 418 and answer.stderr == b"eeeee" and answer.app_status == 3
    assert json.loads(answer.body)["A"] == "1"


def test_the_stand_in_builds_what_is_asked_and_tells_what_it_got(standin):
    request = b'{"rr_version":"v1","plugins":[],"request_id":"r1","standin":{"size":70000}}'
    answer = json.load(urlopen(standin, request))
    with open(answer["path"], "rb") as file:
        content = file.read()
    assert len(content) == 70000
    (build,) = json.load(urllib.request.urlopen(standin + "/standin/log"))["builds"]
    assert base64.b64decode(build["body_base64"]) == request
    assert build["state"] == "finished" and build["request_id"] == "r1"
    assert build["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("request_body,status,code", [
    (b'{"plugins":[]}', 400, "invalid_argument"),
    (b'{"rr_version":"v1"}', 400, "invalid_argument"),
    (b"", 400, "invalid_argument"),
    (b'{"rr_version":"v1","plugins":[],"standin":{"status":503,"body":"{\\"code\\":\\"x\\"}"}}', 503, "x"),
])
def test_the_stand_in_refuses(standin, request_body, status, code):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urlopen(standin, request_body)
    assert caught.value.code == status and json.load(caught.value)["code"] == code


def test_the_stand_in_counts_a_client_that_leaves_as_cancelled(standin):
    address = standin.removeprefix("http://")
    body = b'{"rr_version":"v1","plugins":[],"standin":{"behaviour":"hang"}}'
    connection = peers.connect(address)
    connection.sendall(b"POST /api.service.v1.BuildService/Build HTTP/1.1\r\nHost: x\r\n"
                       b"Content-Type: application/json\r\nConnect-Protocol-Version: 1\r\n"
                       b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def state():
        builds = json.load(urllib.request.urlopen(standin + "/standin/log"))["builds"]
        return builds[0]["state"] if builds else None

    wait_until(lambda: state() == "running", "the build")
    connection.close()
    wait_until(lambda: state() == "cancelled", "its end")


def urlopen(url, body):
    return urllib.request.urlopen(urllib.request.Request(
        url + "/api.service.v1.BuildService/Build", body,
        {"Content-Type": "application/json", "Connect-Protocol-Version": "1"}), timeout=peers.DEADLINE)
