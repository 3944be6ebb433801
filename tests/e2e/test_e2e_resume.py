# SPDX-License-Identifier: MIT
"""A download that broke off goes on with the real curl, through real nginx."""
import os
import shutil
import subprocess

import pytest

from test_e2e_builds import ask
from test_e2e_pages import MEGABYTE

CONTENT = os.urandom(MEGABYTE) * 24


def place(stack, name, content=CONTENT):
    path = stack.artifacts / name
    path.write_bytes(content)
    return str(path)


def curl(stack, front, target, out, *options):
    return subprocess.run(
        [shutil.which("curl"), "-sS", "--fail", "-o", out, "--unix-socket",
         stack.directory / f"nginx-{front}.sock", *options, "http://localhost" + target],
        capture_output=True, text=True, timeout=60, check=False)


def interrupted(stack, front, target, out):
    """curl reads slowly and is ended in the middle of the file."""
    process = subprocess.Popen(
        [shutil.which("curl"), "-sS", "--limit-rate", "20M", "-o", out, "--unix-socket",
         stack.directory / f"nginx-{front}.sock", "http://localhost" + target])
    while not out.exists() or out.stat().st_size < MEGABYTE:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert MEGABYTE <= out.stat().st_size < len(CONTENT)


def test_curl_goes_on_where_it_was_interrupted(stack, front, tmp_path):
    path = place(stack, f"resumed-{front}")
    out = tmp_path / "out"
    interrupted(stack, front, ask(standin={"path": path, "size": 1})[0], out)
    done = curl(stack, front, ask(standin={"path": path, "size": 1})[0], out, "-C", "-")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize("has_changed", [False, True])
def test_if_range_gives_the_rest_of_the_same_file_only(stack, tmp_path, has_changed):
    path = place(stack, f"if-range-{has_changed}")
    etag = stack.get(ask(standin={"path": path, "size": 1})[0]).header("etag")
    if has_changed:
        os.utime(path, ns=(1, 1_000_000_007))
    answer = stack.get(ask(standin={"path": path, "size": 1})[0],
                       {"Range": "bytes=1000001-", "If-Range": etag})
    assert answer.status == (200 if has_changed else 206)
    assert answer.body == (CONTENT if has_changed else CONTENT[1000001:])
