# SPDX-License-Identifier: MIT
"""Options, exit codes, signals, the two processes and the log (spec, sections 2, 3 and 8)."""

import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import time

import pytest

import peers
from conftest import check_error, make_folder, processes_of_session, sidecar_command, wait_until
from peers import DEADLINE, SLOW, environment
from ports import unused_port


def run(*arguments):
    return subprocess.run(sidecar_command() + list(arguments), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=2 * DEADLINE)


def check(folder, text, option="-t"):
    path = os.path.join(folder, "test.ini")
    with open(path, "w") as file:
        file.write(text)
    return run(option, "-c", path)


# ---- options -------------------------------------------------------------------------------------

def test_help_and_version():
    version, usage = run("-v"), run("-h")
    assert version.returncode == 0 and re.match(r"velox-sidecar \d+\.\d+", version.stdout)
    for library in ("libevent", "curl"):
        assert library in version.stdout.lower()
    assert usage.returncode == 0 and "-c" in usage.stdout and "-t" in usage.stdout


@pytest.mark.parametrize("arguments", [["-x"], ["--nonsense"], ["-c"], ["surplus"]])
def test_a_bad_option_is_64_with_usage(arguments):
    result = run(*arguments)
    assert result.returncode == 64
    assert "usage" in result.stderr.lower() and result.stdout == ""


def test_an_empty_configuration_is_good(folder):
    result = check(folder, "")
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() and result.stdout == ""


GOOD = {
    "comments": "; one\n# two\n[sidecar]\nthreads = 2 ; three\n",
    "durations": "[velox]\nbuild_timeout = 1h30m\nrequest_timeout = 90\n[retry]\ninitial_delay = 150ms\n",
    "days": "[cache]\ncleanup_interval = 365d\n",
    "sizes": "[listen]\nmax_params_size = 64K\n[php_fpm]\nmax_spooled_body = 1T\n[cache]\nmax_size = 10G\n",
    "booleans": "[cache]\nenabled = off\n[policy]\nallow_replaces = TRUE\n",
    "lists": "[php_fpm]\naddress = unix:/a/b.sock,\n  127.0.0.1:9000,\n  [::1]:9001\n",
    "empty values": "[velox]\nserver_url =\n[policy]\nallow_modules =\n",
    "the edges": "[sidecar]\nthreads = 256\n[retry]\nmax_attempts = 100\nbackoff_multiplier = 1\njitter = 1\n",
    "every listener form": "[listen]\nfastcgi = unix:/run/x.sock, 127.0.0.1:9000, [::1]:9000\n",
    "servers": "[velox]\nserver_url = http://127.0.0.1:9000, https://velox.example/, unix:/run/velox.sock\n",
    "what comes later": "[cache]\nenabled = no\n[sidecar]\nstatus_path = /status\nping_path = /ping\n",
    "windows line ends": "[sidecar]\r\nthreads = 2\r\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_configuration_passes(folder, name):
    result = check(folder, GOOD[name])
    assert result.returncode == 0, result.stderr


# name: (text, line, what the message must hold)
MISTAKES = {
    "unknown section": ("\n[sidecars]\nthreads = 2\n", 2, "[sidecars]"),
    "empty unknown section": ("[sidecar]\nthreads = 2\n[nonsense]\n", 3, "[nonsense]"),
    "unknown key": ("[sidecar]\nthreads = 2\nthread = 3\n", 3, "[sidecar] thread"),
    "key of another section": ("[velox]\nthreads = 2\n", 2, "[velox] threads"),
    "key twice": ("[sidecar]\nthreads = 2\n\nthreads = 3\n", 4, "[sidecar] threads"),
    "key twice in a section given twice": ("[sidecar]\nthreads = 2\n[velox]\n[sidecar]\nthreads = 2\n", 5,
                                           "[sidecar] threads"),
    "no section": ("threads = 2\n", 1, "threads"),
    "no equals sign": ("[sidecar]\nthreads\n", 2, ""),
    **{f"threads {value}": (f"[sidecar]\nthreads = {value}\n", 2, "[sidecar] threads")
       for value in ("0", "257", "-1", "two", "2x", "1.5", "99999999999999999999")},
    "log_level": ("[sidecar]\nlog_level = loud\n", 2, "[sidecar] log_level"),
    "log_format": ("[sidecar]\nlog_format = xml\n", 2, "[sidecar] log_format"),
    "sandbox": ("[sidecar]\nsandbox = maybe\n", 2, "[sidecar] sandbox"),
    "user": ("[sidecar]\nuser = no-such-user-here\n", 2, "[sidecar] user"),
    "group": ("[sidecar]\ngroup = no-such-group-here\n", 2, "[sidecar] group"),
    "duration": ("[velox]\nbuild_timeout = soon\n", 2, "[velox] build_timeout"),
    "duration unit": ("[velox]\nbuild_timeout = 5y\n", 2, "[velox] build_timeout"),
    "duration too long": ("[velox]\nbuild_timeout = 366d\n", 2, "[velox] build_timeout"),
    "negative duration": ("[velox]\nbuild_timeout = -1s\n", 2, "[velox] build_timeout"),
    "duration overflow": ("[velox]\nbuild_timeout = 99999999999999999999s\n", 2, "[velox] build_timeout"),
    "size": ("[velox]\nmax_request_size = big\n", 2, "[velox] max_request_size"),
    "size too large": ("[velox]\nmax_request_size = 2T\n", 2, "[velox] max_request_size"),
    "boolean": ("[policy]\nallow_replaces = perhaps\n", 2, "[policy] allow_replaces"),
    "max_attempts 0": ("[retry]\nmax_attempts = 0\n", 2, "[retry] max_attempts"),
    "max_attempts 101": ("[retry]\nmax_attempts = 101\n", 2, "[retry] max_attempts"),
    "backoff_multiplier": ("[retry]\nbackoff_multiplier = 0.5\n", 2, "[retry] backoff_multiplier"),
    "backoff_multiplier nan": ("[retry]\nbackoff_multiplier = nan\n", 2, "[retry] backoff_multiplier"),
    "jitter": ("[retry]\njitter = 1.5\n", 2, "[retry] jitter"),
    "max_delay under initial_delay": ("[retry]\ninitial_delay = 5s\nmax_delay = 1s\n", 3, "max_delay"),
    "socket_mode": ("[listen]\nsocket_mode = 0778\n", 2, "[listen] socket_mode"),
    "socket_mode too large": ("[listen]\nsocket_mode = 1777\n", 2, "[listen] socket_mode"),
    "listener": ("[listen]\nfastcgi = nonsense\n", 2, "[listen] fastcgi"),
    "listener port": ("[listen]\nfastcgi = 127.0.0.1:99999\n", 2, "[listen] fastcgi"),
    "second listener": ("[listen]\nfastcgi = 127.0.0.1:9000,\n  nonsense\n", None, "[listen] fastcgi"),
    "unix path too long": ("[listen]\nfastcgi = unix:/" + "x" * 120 + "\n", 2, "[listen] fastcgi"),
    "allowed_clients": ("[listen]\nallowed_clients = 10.0.0.0/33\n", 2, "[listen] allowed_clients"),
    "allowed_clients name": ("[listen]\nallowed_clients = localhost\n", 2, "[listen] allowed_clients"),
    "server_url": ("[velox]\nserver_url = ftp://host/\n", 2, "[velox] server_url"),
    "delivery": ("[artifact]\ndelivery = pigeon\n", 2, "[artifact] delivery"),
    "accel with several roots": ("[artifact]\nroot = /a, /b\ndelivery = x-accel-redirect\n", None, "delivery"),
    "relative root": ("[artifact]\nroot = built\n", 2, "[artifact] root"),
    "path_map": ("[artifact]\npath_map = /a\n", 2, "[artifact] path_map"),
    "eviction_policy": ("[cache]\neviction_policy = random\n", 2, "[cache] eviction_policy"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_configuration_is_78_and_says_where(folder, name):
    text, line, named = MISTAKES[name]
    result = check(folder, text)
    assert result.returncode == 78, result.stderr
    place = re.compile(rf"^{re.escape(folder)}/test\.ini:{line if line else '[0-9]+'}: .*{re.escape(named)}", re.M)
    assert place.search(result.stderr), result.stderr
    # A start ends the same way.
    if name in ("unknown key", "threads 0"):
        assert run("-c", f"{folder}/test.ini").returncode == 78


def test_every_mistake_is_told_at_once(folder):
    result = check(folder, "[sidecar]\nthreads = 0\n[velox]\nnonsense = 1\n[retry]\njitter = 7\n")
    assert result.returncode == 78
    for place in (":2: ", ":4: ", ":6: "):
        assert place in result.stderr
    mistakes = [line for line in result.stderr.splitlines()[:-1] if "warning" not in line]
    assert len(mistakes) == 3 and "3" in result.stderr.splitlines()[-1]


def test_a_line_that_would_be_cut_is_a_mistake_with_a_way_out(folder):
    result = check(folder, "[policy]\nallow_modules = " + ",".join(["github.com/x/y"] * 20000) + "\n")
    assert result.returncode == 78
    assert f"{folder}/test.ini:2: " in result.stderr and "indent" in result.stderr


def test_a_missing_configuration_is_78_and_named(folder):
    for arguments in (["-t"], []):
        result = run(*arguments, "-c", f"{folder}/none.ini")
        assert result.returncode == 78 and f"{folder}/none.ini" in result.stderr


def test_the_effective_configuration_is_printed_as_ini(folder):
    first = check(folder, "[sidecar]\nthreads = 3\n[velox]\nserver_url = http://a:1, http://b:2\n", "-T")
    assert first.returncode == 0
    assert re.search(r"^threads = 3$", first.stdout, re.M)
    for key in ("build_timeout", "max_attempts", "chunk_size", "scrub_interval", "socket_mode"):
        assert re.search(rf"^{key} = ", first.stdout, re.M)
    for section in ("sidecar", "listen", "php_fpm", "velox", "policy", "retry", "artifact", "cache"):
        assert f"[{section}]" in first.stdout
    second = check(folder, first.stdout, "-T")
    assert second.returncode == 0, second.stderr
    assert second.stdout == first.stdout


@pytest.mark.parametrize("listener", ["unix:{folder}/no/such/folder.sock", "127.0.0.1:{port}", "192.0.2.1:9000",
                                      "unix:{folder}/a-file"])
def test_a_listener_that_cannot_be_had_is_71(folder, listener):
    with socket.socket() as taken, open(f"{folder}/a-file", "w") as file:
        file.write("keep me")
        file.flush()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = listener.format(folder=folder, port=taken.getsockname()[1])
        path = f"{folder}/test.ini"
        with open(path, "w") as ini:
            ini.write(f"[listen]\nfastcgi = {address}\n")
        result = run("-c", path)
        assert result.returncode == 71 and address.removeprefix("unix:") in result.stderr
        assert ("no socket" in result.stderr) == ("a-file" in address)
        assert open(f"{folder}/a-file").read() == "keep me"


def test_a_socket_in_use_is_not_taken_away(start):
    stack = start()
    result = run("-c", stack.sidecar.config)
    assert result.returncode == 71
    stack.check_serves()


def test_a_socket_left_behind_is_replaced(start):
    stack = start()
    stack.sidecar.kill()
    wait_refused(stack.sidecar.address)
    path = stack.sidecar.address.removeprefix("unix:")
    if not os.path.exists(path):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(path)
    stack.sidecar = type(stack.sidecar)(stack.folder, stack.sections)
    stack.check_serves()


@pytest.mark.parametrize("mode", [None, "0600", "0666"])
def test_the_mode_of_the_socket(start, mode):
    stack = start(listen={"socket_mode": mode})
    path = stack.sidecar.address.removeprefix("unix:")
    wait_until(lambda: stat.S_IMODE(os.stat(path).st_mode) == int(mode or "0660", 8), "the mode")


def test_the_pid_file_is_the_parents(start):
    stack = start(sidecar={"pid_file": "{folder}/pid"})
    wait_until(lambda: os.path.exists(f"{stack.folder}/pid"), "the file")
    with open(f"{stack.folder}/pid") as file:
        assert int(file.read()) == stack.sidecar.process.pid
    stack.sidecar.stop()
    assert not os.path.exists(f"{stack.folder}/pid")


def test_the_pid_file_follows_no_link_and_waits_for_no_pipe(start):
    folder = make_folder()
    with open(f"{folder}/secret", "w") as file:
        file.write("secret")
    os.symlink(f"{folder}/secret", f"{folder}/pid.new")
    stack = start(folder=folder, sidecar={"pid_file": "{folder}/pid"})
    stack.check_serves()
    with open(f"{folder}/pid") as file:
        assert int(file.read()) == stack.sidecar.process.pid
    with open(f"{folder}/secret") as file:
        assert file.read() == "secret"
    os.remove(f"{folder}/pid")
    os.mkfifo(f"{folder}/pid")
    stack.sidecar.stop()
    assert stat.S_ISFIFO(os.lstat(f"{folder}/pid").st_mode)


# ---- stopping ----------------------------------------------------------------------------------------

def wait_refused(address):
    def refused():
        try:
            peers.connect(address).close()
        except OSError:
            return True
    wait_until(refused, "new connections to be refused")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
def test_an_idle_sidecar_stops_at_once(start, number):
    stack = start()
    stack.check_serves()
    began = time.monotonic()
    stack.sidecar.signal(number)
    assert stack.sidecar.wait() == 0
    assert time.monotonic() - began < 1 * SLOW
    assert not os.path.exists(stack.sidecar.address.removeprefix("unix:"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_finishes_what_runs(start, number):
    stack = start()
    idle = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    idle.read_answer()
    page = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    build = stack.php_asks_for_build(keep=True)
    call = stack.velox.accept()
    stack.sidecar.signal(number)
    assert idle.read_record() is None
    wait_refused(stack.sidecar.address)
    assert stack.sidecar.process.poll() is None
    worker.answer("\r\npage")
    assert page.read_answer().body == b"page"
    assert page.read_record() is None
    call.answer(json.dumps({"path": stack.artifact(b"built" * 100000)}))
    assert build.read_answer().body == b"built" * 100000
    assert build.read_record() is None
    assert stack.sidecar.wait() == 0


def test_at_shutdown_timeout_who_waits_for_a_build_gets_503_and_the_rest_is_cut(start):
    stack = start(sidecar={"shutdown_timeout": "200ms"})
    page = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    began = time.monotonic()
    stack.sidecar.signal(signal.SIGTERM)
    check_error(build.read_answer(), 503, "busy")
    page.wait_closed()
    call.wait_closed()
    assert stack.sidecar.wait() == 0
    assert 0.19 <= time.monotonic() - began < 2 * SLOW


@pytest.mark.parametrize("numbers", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]],
                         ids=["INT", "TERM TERM"])
def test_a_hurried_stop_is_at_once(start, numbers):
    stack = start()
    idle = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    idle.read_answer()
    stack.ask()
    stack.fpm.accept().read_request()
    stack.php_asks_for_build()
    call = stack.velox.accept()
    began = time.monotonic()
    stack.sidecar.signal(numbers[0])
    for number in numbers[1:]:
        # Two signals at once may be taken as one: the first has been obeyed when this closes.
        assert idle.read_record() is None
        stack.sidecar.signal(number)
    assert stack.sidecar.wait() == 0
    assert time.monotonic() - began < 2 * SLOW
    call.wait_closed()


def test_a_download_in_progress_is_finished_at_a_stop(start):
    stack = start()
    content = peers.random_bytes(8 << 20)
    front = stack.php_asks_for_build()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(content)}))
    _, got = front.read_head()
    stack.sidecar.signal(signal.SIGTERM)
    wait_refused(stack.sidecar.address)
    rest = front.read_answer()
    assert got + rest.stdout == content and rest.ended
    assert stack.sidecar.wait() == 0


# ---- parent and child ----------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_child_that_dies_is_replaced_and_nobody_is_refused(start, number):
    stack = start()
    stack.check_serves()
    for _ in range(2):
        waiting = stack.ask(keep=True)
        stack.fpm.accept().read_request()
        child = stack.sidecar.child()
        os.kill(child, number)
        peers.connect(stack.sidecar.address).close()
        waiting.wait_closed()
        stack.check_serves()
        assert stack.sidecar.child() != child
        for _ in range(5):
            peers.connect(stack.sidecar.address).close()
    assert wait_until(lambda: [line for line in stack.sidecar.log() if line["level"] in ("warn", "error")],
                      "a line about the child")


def test_a_child_that_dies_again_and_again_is_waited_for_with_the_listeners_open(start):
    stack = start()
    stack.check_serves()
    for _ in range(5):
        child = stack.sidecar.child()
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{child}"), "its end")
        peers.connect(stack.sidecar.address).close()
        if _ < 4:
            stack.check_serves()
    front = stack.ask()
    assert front.is_silent() and stack.sidecar.process.poll() is None


def test_a_child_does_not_outlive_its_parent(start):
    stack = start()
    child = stack.sidecar.child()
    stack.sidecar.signal(signal.SIGKILL)
    stack.sidecar.process.wait()
    wait_until(lambda: child not in processes_of_session(stack.sidecar.process.pid), "the child's end")
    wait_refused(stack.sidecar.address)
    # The end of the fixture expects a running sidecar.
    stack.sidecar = type(stack.sidecar)(stack.folder, stack.sections)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_child_runs_as_the_configured_user(start):
    stack = start(sidecar={"user": "nobody"})
    # The first answer is the child's, whose rights are dropped by then.
    assert stack.build().body == b"built"
    with open(f"/proc/{stack.sidecar.child()}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    nobody = pwd.getpwnam("nobody")
    assert set(fields["Uid"].split()) == {str(nobody.pw_uid)}
    assert set(fields["Gid"].split()) == {str(nobody.pw_gid)}
    assert int(fields["CapEff"], 16) == 0 and int(fields["CapPrm"], 16) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the warning is for root")
def test_root_without_a_user_is_warned(start):
    stack = start()
    assert re.search("warn.*root", stack.sidecar.everything())


# ---- the log -------------------------------------------------------------------------------------------

def test_json_lines_of_a_build(start):
    stack = start()
    path = stack.artifact(b"built")
    stack.velox.respond = lambda call: (
        call.answer(status=503, body="") if len(stack.velox.history) == 1 else
        call.answer(json.dumps({"success": True, "path": path, "build_id": "b-17", "duration_ms": 1})))
    request = stack.build_request()
    request_id = json.loads(request)["request_id"]
    assert stack.php_asks_for_build(request).read_answer().body == b"built"
    sent = stack.sidecar.wait_log("artifact sent", request_id=request_id)
    (started,) = stack.sidecar.log("build started", request_id=request_id)
    (retry,) = stack.sidecar.log("build retry", request_id=request_id)
    (completed,) = stack.sidecar.log("build completed", request_id=request_id)
    assert completed["build_id"] == "b-17" and completed["file_path"] == path
    assert int(completed["file_size"]) == 5 and int(completed["attempts"]) == 2
    assert 0 <= float(completed["duration_ms"]) < 10000
    assert int(sent["bytes"]) == 5 and float(sent["duration_ms"]) >= 0
    for line in (started, retry, completed, sent):
        assert list(line)[:3] == ["time", "level", "msg"] and line["level"] == "info"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", line["time"])


def test_a_failed_build_is_one_line(start):
    stack = start()
    answer = stack.build(json.dumps({"code": "internal", "message": "no\nsuch \"module\""}), status=500)
    check_error(answer, 500, "build_failed")
    stack.sidecar.wait_log("build failed")
    assert len(stack.sidecar.log("build failed")) == 1 and not stack.sidecar.log("build completed")


def test_text_lines_cannot_be_forged(start):
    stack = start(sidecar={"log_format": "text"})
    evil = "x\nlevel=error msg=\"forged\" \x1b[31m\r\n\"quoted\" \u0085 \u2028"
    answer = stack.build(json.dumps({"code": "internal", "message": evil}), status=500)
    check_error(answer, 500, "build_failed")
    front = stack.ask(environment(uri="/a\nmsg=forged\x1b[2J", extra=[("REQUEST_METHOD", "G\nET")]))
    stack.fpm.accept().close()
    front.assert_closed_without_answer()
    wait_until(lambda: "build failed" in stack.sidecar.log_text(), "the line")
    stack.sidecar.stop()
    for line in stack.sidecar.log_text().rstrip("\n").split("\n"):
        assert re.match(r"(time=)?\d{4}-\d\d-\d\dT", line), line
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", stack.sidecar.log_text())


@pytest.mark.parametrize("level,seen", [("info", True), ("error", False)])
def test_log_level(start, level, seen):
    stack = start(sidecar={"log_level": level})
    assert stack.build().body == b"built"
    stack.sidecar.stop()
    assert bool(stack.sidecar.log("build started")) == seen


def test_the_log_goes_to_stderr_by_default(start):
    stack = start(sidecar={"log_file": None, "log_format": None})
    assert stack.build().body == b"built"
    stack.sidecar.stop()
    with open(stack.sidecar.stderr_path) as stderr:
        text = stderr.read()
    assert "build started" in text and "artifact sent" in text


@pytest.mark.parametrize("owner,exit_code", [(0, 0), (1, 71)], ids=["of root", "of somebody else"])
def test_as_root_the_log_goes_by_a_link_of_roots_only(folder, owner, exit_code):
    """Whoever may write in the log's folder must not have root write elsewhere."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.symlink(f"{folder}/elsewhere", f"{folder}/log")
    os.chown(f"{folder}/log", owner, owner, follow_symlinks=False)
    with open(f"{folder}/ini", "w") as ini:
        ini.write(f"[sidecar]\nlog_file = {folder}/log\n[listen]\nfastcgi = unix:{folder}/s\n")
    process = subprocess.Popen([*sidecar_command(), "-c", f"{folder}/ini"], stderr=subprocess.PIPE, text=True)
    if exit_code == 0:
        def is_ready():
            if not os.path.exists(f"{folder}/elsewhere"):
                return False
            with open(f"{folder}/elsewhere") as log:
                return "msg=ready" in log.read()
        wait_until(is_ready, "readiness in the log")
        process.terminate()
    told = process.communicate(timeout=2 * DEADLINE)[1]
    assert process.returncode == exit_code, told
    if exit_code != 0:
        assert "cannot open the log file" in told and not os.path.exists(f"{folder}/elsewhere")
