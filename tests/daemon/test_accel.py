# SPDX-License-Identifier: MIT
"""delivery = x-accel-redirect, as nginx gets it. (What nginx makes of it: tests/e2e.)"""

import json
import os

import pytest

from conftest import check_error
from peers import environment


@pytest.mark.parametrize("keep", [False, True])
def test_the_head_names_the_file_and_no_body_follows(start, keep):
    stack = start(artifact={"delivery": "x-accel-redirect", "accel_prefix": "/files/"})
    request = stack.build_request()
    front = stack.php_asks_for_build(request, "Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Accel-Redirect: /etc/passwd\r\n"
                                     "Cache-Control: private\r\n", keep=keep)
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(b"built", "a b/ü?#%")}))
    answer = front.read_answer()
    assert answer.ended and answer.app_status == 0 and answer.body == b""
    assert answer.status == 200 and answer.get("X-Accel-Redirect") == "/files/a%20b/%C3%BC%3F%23%25"
    assert answer.get("Content-Type") == "application/octet-stream"
    assert answer.get("Content-Disposition") == 'attachment; filename="roadrunner-linux-amd64"'
    assert answer.get("X-Build-Request-ID") == json.loads(request)["request_id"]
    assert answer.get("X-Cache-Status") == "MISS" and answer.get("X-Build-Time")
    assert answer.get_all("Set-Cookie") == ["a=1", "b=2"] and answer.get("Cache-Control") == "private"
    assert stack.sidecar.wait_log("artifact sent")["x_accel_redirect"] == "/files/a%20b/%C3%BC%3F%23%25"
    if keep:
        stack.check_serves_next(front)
    else:
        front.wait_closed()


def test_what_cannot_be_opened_is_refused_as_ever(start):
    stack = start(artifact={"delivery": "x-accel-redirect"})
    os.symlink("/etc/passwd", stack.root + "/out")
    os.mkfifo(stack.root + "/fifo")
    for path in ("/out", "/fifo", "/nothing", "", "/../secret"):
        answer = stack.build(json.dumps({"path": stack.root + path}))
        check_error(answer, 500, "artifact_unavailable")
        assert answer.get("X-Accel-Redirect") is None


def test_ranges_and_conditions_are_left_to_nginx(start):
    stack = start(artifact={"delivery": "x-accel-redirect"})
    path = stack.artifact(b"built")
    for name, value in (("HTTP_RANGE", "bytes=1-2"), ("HTTP_IF_NONE_MATCH", "*")):
        front = stack.php_asks_for_build(pairs=environment(extra=[(name, value)]))
        stack.velox.accept().answer(json.dumps({"path": path}))
        answer = front.read_answer()
        assert answer.status == 200 and answer.get("X-Accel-Redirect") == "/velox-artifacts/" + os.path.basename(path)


def test_every_way_in_which_a_path_may_be_written_gives_one_name(start):
    stack = start(artifact={"delivery": "x-accel-redirect", "path_map": "/srv/velox={folder}/artifacts"})
    stack.artifact(b"built", "x/rr")
    os.symlink("x", stack.root + "/link")
    for path in (stack.root + "/x/rr", stack.root + "//x/./rr", "/srv/velox/x/rr", stack.root + "/link/rr"):
        assert stack.build(json.dumps({"path": path})).get("X-Accel-Redirect") == "/velox-artifacts/x/rr"
