# SPDX-License-Identifier: MIT
"""The real daemon in its sandbox: all that it has to do works there (tests/unit/test_sandbox tries what must not)."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

from conftest import Sidecar, check_error, make_folder, refusing, sidecar_command, wait_until
from peers import DEADLINE, Fpm, Velox, environment

WATCHED = bool(os.environ.get("VELOX_SIDECAR_WRAPPER"))


@pytest.fixture(scope="module")
def possible():
    """Skips where the kernel, or the way the program is built, has no sandbox."""
    if WATCHED:
        pytest.skip("valgrind makes system calls of its own")
    folder = make_folder()
    sidecar = None
    try:
        sidecar = Sidecar(folder, {"sidecar": {"log_format": "json", "log_file": f"{folder}/log"},
                                   "listen": {"fastcgi": f"unix:{folder}/front.sock"}})
        sidecar.wait_log("ready")
        if not sidecar.log("sandbox active"):
            lines = [line["msg"] for line in sidecar.log() if "sandbox" in line["msg"]]
            pytest.skip(f"no sandbox here: {lines}")
    finally:
        if sidecar:
            sidecar.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def inside(possible, start):
    """As `start`, with the sandbox required; the line says that it is active."""
    def starter(**changes):
        changes.setdefault("sidecar", {}).setdefault("sandbox", "on")
        # Not the folder of everything else, which would be open to the sandbox then.
        changes.setdefault("php_fpm", {}).setdefault("spool_directory", "/var/tmp")
        stack = start(**changes)
        assert int(stack.sidecar.wait_log("sandbox active")["landlock_abi"]) >= 1
        stack.sidecar.wait_log("ready")
        return stack
    return starter


def status_of_threads(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as status:
            yield dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)


def test_every_thread_is_inside(inside):
    stack = inside()
    assert stack.build().body == b"built"
    threads = list(status_of_threads(stack.sidecar.child()))
    assert {"builder", "relay"} <= {thread["Name"] for thread in threads} and len(threads) >= 4
    for thread in threads:
        assert thread["Seccomp"] == "2" and thread["NoNewPrivs"] == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_unprivileged_child_inside(inside):
    stack = inside(sidecar={"user": "nobody"})
    assert stack.build().body == b"built"
    upload(stack, 1 << 20)
    for thread in status_of_threads(stack.sidecar.child()):
        for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(thread[kind], 16) == 0, kind
        assert thread["Seccomp"] == "2"


def upload(stack, size):
    """A body of unannounced length, which goes by way of a file."""
    body = os.urandom(size)
    front = stack.front()
    front.ask(environment("POST", length=False), body=body)
    worker = stack.fpm.accept()
    assert worker.read_request().stdin == body
    worker.answer("\r\ntaken")
    assert front.read_answer().body == b"taken"


def test_pages_uploads_and_long_answers(inside):
    stack = inside()
    stack.check_serves()
    upload(stack, 1 << 20)
    content = b"x" * (4 << 20)
    path = stack.artifact(content)
    assert stack.build(json.dumps({"path": path})).body == content

    def answer(worker):
        worker.read_request()
        worker.answer(b"\r\n" + content)
    stack.fpm.serve(answer, count=1)
    assert stack.ask().read_answer().body == content


def test_php_fpm_is_found_when_it_has_been_started_again(inside):
    stack = inside()
    stack.check_serves()
    stack.fpm.close()
    stack.fpm = Fpm(stack.fpm.address)
    stack.check_serves()


def test_php_fpm_over_tcp(inside, folder):
    fpm = Fpm("127.0.0.1:0")
    stack = inside(php_fpm={"address": fpm.address})
    stack.fpm.close()
    stack.fpm = fpm
    stack.check_serves()


@pytest.mark.parametrize("by", ["name", "unix"])
def test_velox_by(inside, folder, by):
    velox = Velox(f"unix:{folder}/velox.sock" if by == "unix" else "127.0.0.1:0")
    stack = inside(velox={"server_url": velox.url.replace("127.0.0.1", "localhost")})
    stack.velox.close()
    stack.velox = velox
    for _ in range(2):
        assert stack.build().body == b"built"


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
def test_velox_by_https(inside, folder):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", f"{folder}/key", "-out", f"{folder}/cert", "-days", "2", "-subj", "/CN=velox",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert", f"{folder}/key")
    with open(f"{folder}/token", "w") as token:
        token.write("s3cret\n")
    velox = Velox(tls=context)
    stack = inside(velox={"server_url": velox.url.replace("127.0.0.1", "localhost"), "ca_file": f"{folder}/cert",
                          "token_file": f"{folder}/token"})
    stack.velox.close()
    stack.velox = velox
    front = stack.php_asks_for_build()
    call = velox.accept()
    # What was read at the start need not be there any more.
    assert call.get("Authorization") == "Bearer s3cret"
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"


def write_built(folder):
    os.mkdir(folder)
    with open(f"{folder}/rr", "w") as file:
        file.write("built")
    return f"{folder}/rr"


def test_what_the_sandbox_does_not_know_is_closed(inside):
    """What comes later, or takes the place of what was there, is not what the rules are for."""
    stack = inside(artifact={"root": "{folder}/artifacts, {folder}/later"})
    line = stack.sidecar.wait_log("the sandbox keeps closed what cannot be found, until it can be")
    assert line["path"] == f"{stack.folder}/later" and line["level"] == "warn"
    path = write_built(f"{stack.folder}/later")
    check_error(stack.build(json.dumps({"path": path})), 500, "artifact_unavailable")
    refused = wait_until(lambda: [line for line in stack.sidecar.log() if path in json.dumps(line)
                                  and line["level"] in ("warn", "error")], "a line about it")[-1]
    assert "Permission denied" in json.dumps(refused)
    # A new child finds it.
    assert stack.reload() and stack.build(json.dumps({"path": path})).body == b"built"


def test_a_new_child_is_asked_for_where_the_sandbox_is_outdated(inside):
    stack = inside(artifact={"root": "{folder}/artifacts, {folder}/later"})
    old = stack.sidecar.child()
    waiting = stack.php_asks_for_build()
    call = stack.velox.accept()
    shutil.rmtree(stack.root)
    paths = [write_built(folder) for folder in (stack.root, f"{stack.folder}/later")]
    stack.sidecar.wait_log("the sandbox does not know what is at a path now: time for a new child", pid=old)
    assert stack.sidecar.wait_log("child replaced, with a sandbox for the files of now")["pid"] != old
    for path in paths:
        assert stack.build(json.dumps({"path": path})).body == b"built"
    # Who was waiting gets an answer of the old one, which then ends.
    call.answer(json.dumps({"code": "internal", "message": "no"}), status=500)
    check_error(waiting.read_answer(), 500, "build_failed")
    stack.sidecar.wait_log("child ended", pid=old)
    assert not stack.sidecar.log("configuration reloaded")


def test_off(start):
    stack = start(sidecar={"sandbox": "off"})
    assert stack.build().body == b"built"
    if not WATCHED:
        assert {thread["Seccomp"] for thread in status_of_threads(stack.sidecar.child())} == {"0"}


# ---- a kernel without ------------------------------------------------------------------------------

# The kernel says that it has no Landlock: landlock_create_ruleset, the same number everywhere, gives ENOSYS.
without_landlock = refusing(444, errno.ENOSYS)


def config_without_landlock(folder, mode):
    with open(f"{folder}/ini", "w") as config:
        config.write(f"[sidecar]\nsandbox = {mode}\nlog_format = json\n[listen]\nfastcgi = unix:{folder}/sock\n"
                     f"[php_fpm]\nspool_directory = {folder}\n")
    return sidecar_command() + ["-c", f"{folder}/ini"]


def test_on_is_required(possible, folder):
    ended = subprocess.run(config_without_landlock(folder, "on"), preexec_fn=without_landlock, capture_output=True,
                           text=True, timeout=2 * DEADLINE)
    assert ended.returncode == 71
    line = next(json.loads(line) for line in ended.stderr.splitlines() if "sandbox" in line)
    assert line["level"] == "error" and line["landlock"] == "Function not implemented" and line["seccomp"] == "yes"
    assert not os.path.exists(f"{folder}/sock")


def test_auto_takes_what_there_is(possible, folder):
    with open(f"{folder}/log", "w+") as log:
        process = subprocess.Popen(config_without_landlock(folder, "auto"), preexec_fn=without_landlock, stderr=log)
        try:
            wait_until(lambda: re.search('"ready"', open(f"{folder}/log").read()), "its begin")
            lines = [json.loads(line) for line in open(f"{folder}/log") if '"sandbox' in line]
            assert lines[0]["level"] == "warn" and lines[0]["landlock"] == "Function not implemented"
            with socket.socket(socket.AF_UNIX) as front:
                front.connect(f"{folder}/sock")
        finally:
            process.terminate()
        assert process.wait(2 * DEADLINE) == 0
