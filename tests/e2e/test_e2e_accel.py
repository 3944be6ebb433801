# SPDX-License-Identifier: MIT
"""delivery = x-accel-redirect with config/nginx-accel.conf: nginx sends the file, with the sidecar's head."""
import os
import re
import shutil
import subprocess

import pytest

from test_e2e_builds import ask

CONTENT = bytes(range(256)) * 1000


def place(stack, name, content=CONTENT):
    path = stack.artifacts / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def ask_for(path, **members):
    return ask(standin={"path": path, "size": 1}, **members)


def test_nginx_sends_the_file_with_our_head(accel, front):
    target, request_id = ask(standin={"size": 300_000})
    answer = accel.get(target, front=front)
    path = accel.build_of(request_id)["path"]
    with open(path, "rb") as file:
        assert answer.status == 200 and answer.body == file.read()
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("content-length") == "300000"
    assert answer.header("content-disposition") == 'attachment; filename="roadrunner-linux-amd64"'
    assert answer.header("x-build-request-id") == request_id
    assert answer.header("x-cache-status") == "MISS"
    assert re.fullmatch(r"\d+\.\d", answer.header("x-build-time"))
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("cache-control") == "private"
    assert answer.all("set-cookie") == ["session=kept", "second=kept%2C%20too"]
    assert answer.header("x-accel-redirect") is None and answer.header("x-velox-build") is None
    assert answer.header("vary") is None and answer.header("access-control-allow-origin") is None
    assert answer.header("etag") == f'"{int(os.stat(path).st_mtime):x}-{300_000:x}"'


@pytest.mark.parametrize("name", [
    "plain", "with space", "100%", "%41%2f%00", "a?b=c", "a#b", "a&b;c", "ünï-日本", "a..b", "..c", "-", "a+b", "\"q\"", "a'b",
    "back\\slash", "line\nbreak", "deep/er/file", "a:b@c", "{x}", "~", "$uri", "n" * 200 + "%" * 55,
])
def test_names_that_need_encoding(accel, name):
    """The path is the one that Velox named, byte for byte, whatever is in it."""
    target, _ = ask_for(place(accel, "names/" + name, name.encode() * 100))
    answer = accel.get(target)
    assert answer.status == 200 and answer.body == name.encode() * 100


def test_a_range_is_nginx_business(accel):
    target, _ = ask_for(place(accel, "range"))
    answer = accel.get(target, {"Range": "bytes=1000-1999"})
    assert answer.status == 206 and answer.body == CONTENT[1000:2000]
    assert answer.header("content-range") == f"bytes 1000-1999/{len(CONTENT)}"
    etag = answer.header("etag")
    target, _ = ask_for(str(accel.artifacts / "range"))
    assert accel.get(target, {"If-None-Match": etag}).status == 304


def test_curl_goes_on_where_it_stopped(accel, tmp_path):
    target, _ = ask_for(place(accel, "resumed"))
    out = tmp_path / "out"
    out.write_bytes(CONTENT[:100_000])
    subprocess.run([shutil.which("curl"), "-sS", "--fail", "-C", "-", "-o", out, "--unix-socket",
                    accel.directory / "nginx-plain.sock", "http://localhost" + target], check=True, timeout=60)
    assert out.read_bytes() == CONTENT


def test_a_link_within_the_root_is_named_by_what_it_leads_to(accel):
    place(accel, "links/target")
    link = accel.artifacts / "links" / "link"
    link.symlink_to("target")
    target, _ = ask_for(str(link))
    answer = accel.get(target)
    assert answer.status == 200 and answer.body == CONTENT


@pytest.mark.parametrize("bad", ["missing", "out", "folder", "dots"])
def test_errors_are_those_of_streaming(accel, bad):
    place(accel, "bad/good")
    out = accel.artifacts / "bad" / "out"
    if not out.is_symlink():
        out.symlink_to("/etc/passwd")
    path = {"missing": "bad/nothing", "out": "bad/out", "folder": "bad", "dots": "bad/../bad/good"}[bad]
    target, request_id = ask_for(f"{accel.artifacts}/{path}")
    answer = accel.get(target)
    assert answer.status == 500
    assert answer.json()["error"] == "artifact_unavailable" and answer.json()["request_id"] == request_id


def test_the_location_is_not_to_be_reached_from_outside(accel):
    place(accel, "inside")
    assert accel.get("/velox-artifacts/inside").status == 404
    assert accel.get("/velox-artifacts/").status == 404
    assert accel.get("/velox-artifacts/../inside").status in (400, 404)


def test_post_gets_a_file_too(accel):
    target, _ = ask_for(place(accel, "posted"))
    assert accel.request("POST", target, b"form=1").body == CONTENT


def test_a_page_without_a_build_is_unchanged(accel, front):
    assert accel.get("/hello.php", front=front).status == 200
