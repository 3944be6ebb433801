# SPDX-License-Identifier: MIT
"""What an operator forbids is 403 and names what was refused; failures are remembered for a while."""

import json
import threading

import pytest

from conftest import check_error

HTTP = {"module_name": "github.com/roadrunner-server/http/v5", "tag": "v5.2.7"}
EVIL = {"module_name": "example.org/evil/mod", "tag": "v1"}

REFUSED = [
    ({"deny_modules": "example.org/*"}, {"plugins": [HTTP, EVIL]}, "example.org/evil/mod"),
    ({"allow_modules": "github.com/roadrunner-server/*"}, {"plugins": [HTTP, EVIL]}, "example.org/evil/mod"),
    ({"allow_modules": "github.com/*", "deny_modules": "*/http/*"}, {"plugins": [HTTP]}, "deny_modules"),
    ({"allow_platforms": "linux/*, darwin/arm64"}, {"target_platform": {"os": "darwin", "arch": "amd64"}},
     "darwin/amd64"),
    ({"allow_platforms": "linux/*"}, {"target_platform": ...}, "host/host"),
    ({"allow_platforms": "linux/*"}, {"target_platform": None}, "host/host"),
    ({"max_plugins": 1}, {"plugins": [HTTP, HTTP]}, "max_plugins"),
    ({}, {"replaces": [{"new": "/etc", "old": "x"}]}, "replaces"),
    ({}, {"replaces": {"a": "b"}}, "replaces"),
    ({}, {"replaces": "x"}, "replaces"),
]
ALLOWED = [
    ({"deny_modules": "example.org/*"}, {"plugins": [HTTP]}),
    ({"allow_modules": "github.com/*/http/*, x"}, {"plugins": [HTTP]}),
    ({"allow_platforms": "linux/*"}, {}),
    ({"allow_platforms": "host/host"}, {"target_platform": ...}),
    ({"max_plugins": 2}, {"plugins": [HTTP, HTTP]}),
    ({"allow_replaces": "yes"}, {"replaces": [{"new": "/etc", "old": "x"}]}),
    ({}, {"replaces": []}),
    ({}, {"replaces": None, "excludes": [{"module": "m", "version": "v1"}]}),
]


@pytest.mark.parametrize("policy,members,named", REFUSED)
def test_what_is_forbidden_is_403_and_named(start, policy, members, named):
    stack = start(policy=policy)
    request = stack.build_request(**members)
    front = stack.php_asks_for_build(request, head="Set-Cookie: a=1\r\n")
    answer = front.read_answer()
    message = check_error(answer, 403, "forbidden", request_id=json.loads(request)["request_id"])
    assert named in message and answer.get("Set-Cookie") == "a=1"
    assert stack.velox.is_idle(0.01)


@pytest.mark.parametrize("policy,members", ALLOWED)
def test_what_is_allowed_is_built(start, policy, members):
    stack = start(policy=policy)
    assert stack.build(request=stack.build_request(**members)).body == b"built"


def failing(stack):
    stack.velox.respond = lambda call: call.answer(
        json.dumps({"code": "internal", "message": "no such module"}), status=500)


def test_a_failure_is_remembered_for_equal_requests(start):
    stack = start(velox={"failure_ttl": "1m"})
    failing(stack)
    first = stack.build_request()
    message = check_error(stack.php_asks_for_build(first).read_answer(), 500, "build_failed")
    again = json.loads(first)
    again["request_id"] = "another"
    answer = stack.php_asks_for_build(json.dumps(again).encode()).read_answer()
    assert check_error(answer, 500, "build_failed", request_id="another") == message
    assert len(stack.velox.history) == 1
    again["force_rebuild"] = True
    check_error(stack.php_asks_for_build(json.dumps(again).encode()).read_answer(), 500, "build_failed")
    assert len(stack.velox.history) == 2
    check_error(stack.php_asks_for_build(stack.build_request()).read_answer(), 500, "build_failed")
    assert len(stack.velox.history) == 3


def test_a_failure_is_forgotten_when_a_forced_build_succeeds(start):
    stack = start(velox={"failure_ttl": "1m"})
    failing(stack)
    request = stack.build_request()
    check_error(stack.php_asks_for_build(request).read_answer(), 500, "build_failed")
    path = stack.artifact(b"mended")
    stack.velox.respond = lambda call: call.answer(json.dumps({"path": path}))
    forced = json.dumps({**json.loads(request), "force_rebuild": True}).encode()
    assert stack.php_asks_for_build(forced).read_answer().body == b"mended"
    assert stack.php_asks_for_build(request).read_answer().body == b"mended"


@pytest.mark.parametrize("ttl", ["0", "1ms"])
def test_a_failure_is_not_remembered_longer_than_that(start, ttl):
    stack = start(velox={"failure_ttl": ttl})
    failing(stack)
    request = stack.build_request()
    for count in (1, 2):
        check_error(stack.php_asks_for_build(request).read_answer(), 500, "build_failed")
        if ttl != "0":
            threading.Event().wait(0.005)  # the time itself is what is tested
        assert len(stack.velox.history) == count


def test_other_failures_are_not_remembered(start):
    stack = start()
    stack.velox.respond = lambda call: call.answer(json.dumps({"path": "/nowhere"}))
    request = stack.build_request()
    for count in (1, 2):
        check_error(stack.php_asks_for_build(request).read_answer(), 500, "artifact_unavailable")
        assert len(stack.velox.history) == count
