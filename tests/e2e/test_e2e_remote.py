# SPDX-License-Identifier: MIT
"""artifact_url: files of a Velox on another machine, which a real nginx serves there."""
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from test_e2e_builds import MEGABYTE, PEAK_RSS_KB, ask


@pytest.mark.parametrize("size", [0, 1, 65528, 64 * MEGABYTE])
def test_the_file_comes_through(remote, front, size):
    target, request_id = ask(standin={"size": size})
    answer = remote.get(target, front=front)
    build = remote.build_of(request_id)
    assert answer.status == 200 and answer.header("content-length") == str(size)
    assert hashlib.sha256(answer.body).hexdigest() == build["sha256"]
    assert answer.header("x-build-request-id") == request_id
    assert answer.header("etag").startswith('"') and answer.header("last-modified")
    if "libasan" not in Path(f"/proc/{remote.sidecar.pid}/maps").read_text():
        status = Path(f"/proc/{remote.sidecar_child()}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+)", status)[1]) < PEAK_RSS_KB


def test_names_that_need_encoding(remote):
    path = remote.artifacts / "a b" / "100%?#ü"
    path.parent.mkdir()
    path.write_bytes(b"built")
    target, _ = ask(standin={"path": str(path), "size": 1})
    assert remote.get(target).body == b"built"


def test_a_file_that_is_not_there_either(remote):
    target, _ = ask(standin={"path": f"{remote.artifacts}/nothing", "size": 1})
    answer = remote.get(target)
    assert answer.status == 500 and answer.json()["error"] == "artifact_unavailable"


def test_curl_goes_on_where_it_stopped(remote, tmp_path):
    # A file that is there already: one that each request builds anew has a new date every second.
    path = remote.artifacts / "built-once"
    path.write_bytes(os.urandom(3 * MEGABYTE))
    target, _ = ask(standin={"path": str(path), "size": 1})
    whole = remote.get(target)
    out = tmp_path / "out"
    out.write_bytes(whole.body[:MEGABYTE])
    subprocess.run([shutil.which("curl"), "-sS", "--fail", "-C", "-", "-o", out, "--unix-socket",
                    remote.directory / "nginx-plain.sock", "http://localhost" + target], check=True, timeout=60)
    assert out.read_bytes() == whole.body
    assert remote.get(target, {"If-None-Match": whole.header("etag")}).status == 304
