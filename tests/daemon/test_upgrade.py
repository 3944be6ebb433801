# SPDX-License-Identifier: MIT
"""USR2: the program that lies on the disk takes over from the one that runs, in the same process, and nobody notices."""

import json
import os
import shlex
import signal
import time

import pytest

import peers
from conftest import SteadyRequests, descriptors_of, find_program, make_folder, not_in_a_wrapper, processes_of_session, wait_until

OLD, NEW = b"\x000.1.0\x00", b"\x009.9.9\x00"


def install(path, version=None):
    """As a package does: under another name first. The version is the only difference."""
    with open(find_program("velox-sidecar", "VELOX_SIDECAR"), "rb") as file:
        program = file.read()
    if version is not None:
        assert OLD in program
        program = program.replace(OLD, version)
    with open(path + ".dpkg-new", "wb") as file:
        file.write(program)
    os.chmod(path + ".dpkg-new", 0o755)
    os.rename(path + ".dpkg-new", path)


@pytest.fixture
def start_copy(start):
    """Starts a copy of the program that the test may replace."""
    def starter(**changes):
        folder = make_folder()
        path = os.path.join(folder, "velox-sidecar")
        install(path)
        command = shlex.split(os.environ.get("VELOX_SIDECAR_WRAPPER", "")) + [path]
        stack = start(folder=folder, process={"command": command}, **changes)
        stack.program = path
        return stack
    return starter


def version_that_serves(stack):
    """As PHP sees it."""
    front = stack.ask()
    worker = stack.fpm.accept()
    version = worker.read_request().get("VELOX_SIDECAR")
    worker.answer("\r\npage")
    assert front.read_answer().body == b"page"
    return version


def upgrade(stack):
    stack.reload(number=signal.SIGUSR2)


def test_the_new_program_serves_in_the_same_process(start_copy):
    stack = start_copy(sidecar={"pid_file": "{folder}/pid"})
    assert version_that_serves(stack) == "0.1.0"
    install(stack.program, NEW)
    pid = stack.sidecar.process.pid
    old = stack.sidecar.child()
    upgrade(stack)
    assert version_that_serves(stack) == "9.9.9"
    assert stack.sidecar.child() != old and stack.sidecar.process.pid == pid
    with open(f"{stack.folder}/pid") as file:
        assert int(file.read()) == pid
    stack.sidecar.wait_log("upgraded", old_version="0.1.0", version="9.9.9")
    # And once more, and a reload, and a crash.
    upgrade(stack)
    stack.reload()
    os.kill(stack.sidecar.child(), signal.SIGKILL)
    assert version_that_serves(stack) == "9.9.9"
    stack.sidecar.stop()
    assert not os.path.exists(f"{stack.folder}/pid") and not os.path.exists(f"{stack.folder}/front.sock")


@not_in_a_wrapper
def test_no_descriptor_is_left_behind(start_copy):
    stack = start_copy()
    stack.check_serves()

    def descriptors():
        pids = (stack.sidecar.process.pid, stack.sidecar.child())
        return [len(descriptors_of(pid)) for pid in pids]
    upgrade(stack)
    stack.sidecar.wait_log("child ended")   # whose descriptors the parent has closed by then
    before = descriptors()
    for _ in range(3):
        upgrade(stack)
        stack.sidecar.child()
        stack.reload()
    wait_until(lambda: descriptors() == before, f"as many descriptors as before, {before}; now {descriptors()}")


def test_builds_and_downloads_end_in_the_old_child_whose_lines_reach_the_log(start_copy):
    stack = start_copy()
    content = peers.random_bytes(4 << 20)
    download = stack.php_asks_for_build()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(content)}))
    _, got = download.read_head()
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    old = stack.sidecar.child()
    install(stack.program, NEW)
    upgrade(stack)
    assert version_that_serves(stack) == "9.9.9"
    assert old in stack.sidecar.children()
    rest = download.read_answer()
    assert got + rest.stdout == content and rest.ended
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert build.read_answer().body == b"built"
    wait_until(lambda: not os.path.exists(f"/proc/{old}"), "the old child's end")
    assert len(stack.sidecar.log("artifact sent")) == 2
    stack.sidecar.wait_log("child ended", pid=old)


@not_in_a_wrapper
def test_nobody_waits_or_is_refused(start_copy):
    stack = start_copy()

    def answer(worker):
        worker.read_request()
        worker.answer("\r\npage")
    stack.fpm.serve(answer)
    with SteadyRequests(stack) as clients:
        for number in range(3):
            install(stack.program, NEW if number % 2 == 0 else None)
            before = len(clients.answers)
            upgrade(stack)
            clients.wait_for_more(before)
    stack.fpm.stop_serving()


BROKEN = {
    "no program": lambda path: os.unlink(path),
    "not executable": lambda path: os.chmod(path, 0o600),
    "not a program": lambda path: write_program(path, "garbage"),
    "fails": lambda path: write_program(path, "#!/bin/sh\necho library is missing >&2\nexit 127\n"),
    "dies": lambda path: write_program(path, "#!/bin/sh\nkill -SEGV $$\n"),
}


def write_program(path, text):
    with open(path + ".new", "w") as file:
        file.write(text)
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)


@not_in_a_wrapper
@pytest.mark.parametrize("name", BROKEN)
def test_a_program_that_does_not_run_changes_nothing(start_copy, name):
    stack = start_copy()
    stack.check_serves()
    old = stack.sidecar.child()
    BROKEN[name](stack.program)
    stack.sidecar.signal(signal.SIGUSR2)
    wait_until(lambda: [line for line in stack.sidecar.log() if "upgrade failed" in line["msg"]], "an error")
    if name == "fails":
        assert "library is missing" in stack.sidecar.log_text()
    stack.check_serves()
    assert stack.sidecar.child() == old
    install(stack.program, NEW)
    upgrade(stack)
    assert version_that_serves(stack) == "9.9.9"


def test_a_wrong_configuration_changes_nothing(start_copy):
    stack = start_copy()
    stack.check_serves()
    old = stack.sidecar.child()
    with open(stack.sidecar.config, "a") as config:
        config.write("[policy]\nmax_plugin = 3\n")
    stack.sidecar.signal(signal.SIGUSR2)
    wait_until(lambda: [line for line in stack.sidecar.log() if "upgrade failed" in line["msg"]], "an error")
    assert "[policy] max_plugin: unknown key" in stack.sidecar.log_text()
    stack.check_serves()
    assert stack.sidecar.child() == old


@not_in_a_wrapper
def test_a_log_file_that_cannot_be_had_changes_nothing(start_copy):
    stack = start_copy()
    stack.check_serves()
    old = stack.sidecar.child()
    sections = {name: dict(keys) for name, keys in stack.sections.items()}
    sections["sidecar"]["log_file"] = f"{stack.folder}/no/folder"
    stack.sidecar.write_config(sections)
    stack.sidecar.signal(signal.SIGUSR2)
    wait_until(lambda: [line for line in stack.sidecar.log() if "upgrade failed" in line["msg"]], "an error")
    assert "cannot open the log file" in stack.sidecar.log_text()
    stack.check_serves()
    assert stack.sidecar.child() == old


@not_in_a_wrapper
def test_a_start_with_closed_standard_files(start):
    folder = make_folder()
    path = os.path.join(folder, "velox-sidecar")
    install(path)
    command = ["/bin/sh", "-c", 'exec "$0" "$@" <&- >&- 2>&-', path]
    stack = start(folder=folder, process={"command": command})
    pid = stack.sidecar.process.pid
    assert [os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    install(path, NEW)
    upgrade(stack)
    assert version_that_serves(stack) == "9.9.9"


@not_in_a_wrapper
def test_a_program_behind_a_link_that_moves(start):
    folder = make_folder()
    for name, version in (("one", None), ("two", NEW)):
        os.mkdir(f"{folder}/{name}")
        install(f"{folder}/{name}/velox-sidecar", version)
    os.symlink("one", f"{folder}/current")
    stack = start(folder=folder, process={"command": ["current/velox-sidecar"], "cwd": folder})
    assert version_that_serves(stack) == "0.1.0"
    os.symlink("two", f"{folder}/next")
    os.rename(f"{folder}/next", f"{folder}/current")
    upgrade(stack)
    assert version_that_serves(stack) == "9.9.9"


@not_in_a_wrapper
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle(start_copy, number):
    stack = start_copy()
    for delay in (0, 0.005, 0.01, 0.02):
        stack.sidecar.signal(signal.SIGUSR2)
        time.sleep(delay)
        stack.sidecar.signal(number)
        assert stack.sidecar.wait() == 0
        assert not processes_of_session(stack.sidecar.process.pid)
        stack.sidecar = type(stack.sidecar)(stack.folder, stack.sections, command=[stack.program])


@not_in_a_wrapper
def test_signals_of_all_kinds_in_a_row(start_copy):
    stack = start_copy()
    for _ in range(5):
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1):
            stack.sidecar.signal(number)
    upgrade(stack)
    stack.check_serves()
    upgrade(stack)
    stack.check_serves()
    stack.sidecar.child()
