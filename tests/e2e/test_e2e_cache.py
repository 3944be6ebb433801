# SPDX-License-Identifier: MIT
"""The cache behind real nginx and PHP-FPM, as the unprivileged user, in the sandbox."""
import hashlib
import json
import shutil
import subprocess
import urllib.parse

from test_e2e_builds import ask

SIZE = 3_000_000


def again(target, **members):
    """The same page, with members changed."""
    text = urllib.parse.parse_qs(urllib.parse.urlsplit(target).query)["json"][0]
    return "/ask.php?json=" + urllib.parse.quote(json.dumps({**json.loads(text), **members}))


def fixed(**members):
    """A request whose result never changes: a tag of its own that is a version."""
    target, request_id = ask(**members)
    number = request_id.rpartition("-")[2]
    return again(target, plugins=[{"module_name": "example.org/cached", "tag": f"v1.0.{number}"}]), request_id


def test_the_second_client_gets_the_kept_file(cached, front):
    target, request_id = fixed(standin={"size": SIZE})
    first = cached.get(target, front=front)
    build = cached.build_of(request_id)
    assert first.status == 200 and hashlib.sha256(first.body).hexdigest() == build["sha256"]
    assert first.header("x-cache-status") == "MISS" and first.header("x-build-time")
    assert first.header("etag") == f'"{build["sha256"]}"'
    second = cached.get(again(target, request_id="second-" + request_id), front=front)
    assert second.status == 200 and second.body == first.body
    assert second.header("x-cache-status") == "HIT" and int(second.header("x-cache-age")) >= 0
    assert second.header("etag") == first.header("etag") and second.header("x-build-time") is None
    assert second.header("x-build-request-id") == "second-" + request_id
    assert second.all("set-cookie") == ["session=kept", "second=kept%2C%20too"]
    assert len(cached.builds_of("second-" + request_id)) == 0


def test_curl_goes_on_where_it_stopped(cached, tmp_path):
    target, _ = fixed(standin={"size": SIZE})
    whole = cached.get(target)
    out = tmp_path / "out"
    out.write_bytes(whole.body[:1_000_000])
    subprocess.run([shutil.which("curl"), "-sS", "--fail", "-C", "-", "-o", out, "--unix-socket",
                    cached.directory / "nginx-plain.sock", "http://localhost" + target], check=True, timeout=60)
    assert out.read_bytes() == whole.body


def test_who_has_the_file_gets_304(cached):
    target, _ = fixed(standin={"size": 1000})
    tag = cached.get(target).header("etag")
    assert cached.get(target, {"If-None-Match": tag}).status == 304
