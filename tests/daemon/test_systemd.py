# SPDX-License-Identifier: MIT
"""What a service manager is told and passes: $NOTIFY_SOCKET, $WATCHDOG_USEC, $LISTEN_FDS (sd_notify(3), sd_listen_fds(3))."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time

import pytest

import peers
from conftest import make_folder, not_in_a_wrapper, sidecar_command, wait_until
from peers import DEADLINE, SLOW


SO_TIMESTAMPNS = 35     # Python has no name for it


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, folder, abstract=False):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = f"@velox-test-{os.getpid()}" if abstract else f"{folder}/notify"
        self.socket.bind("\0" + path[1:] if abstract else path)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.environment = {**os.environ, "NOTIFY_SOCKET": path}
        self.history = []

    def next(self, timeout=DEADLINE):
        self.socket.settimeout(timeout)
        self._receive()
        return self.history[-1][1]

    def _receive(self):
        """With the time at which it was sent, by the wall clock: the kernel's, since a test may look late."""
        text, ((_, _, sent), *_), _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(16))
        seconds, nanoseconds = struct.unpack("@ll", sent)
        self.history.append((seconds + nanoseconds / 1e9, text.decode()))

    def wait(self, wanted):
        """The next message that holds a line like this."""
        while True:
            text = self.next()
            if re.search(f"^{wanted}$", text, re.M):
                return text

    def drain(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self.socket.setblocking(False)
                self._receive()

    def states(self):
        """READY, RELOADING and STOPPING, in the order in which they came."""
        self.drain()
        return [line.split("=")[0] for _, text in self.history for line in text.split("\n")
                if line in ("READY=1", "RELOADING=1", "STOPPING=1")]


@pytest.fixture
def managed(start):
    """A sidecar with a manager: (stack, manager)."""
    managers = []

    def starter(environment=None, abstract=False, **changes):
        folder = make_folder()
        manager = Manager(folder, abstract)
        managers.append(manager)
        stack = start(folder=folder, process={"environment": {**manager.environment, **(environment or {})}}, **changes)
        return stack, manager
    yield starter
    for manager in managers:
        manager.socket.close()


# ---- states --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_ready_reloading_ready_stopping(managed, abstract):
    stack, manager = managed(abstract=abstract)
    manager.wait("READY=1")
    stack.check_serves()
    for number in (signal.SIGHUP, signal.SIGUSR2):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        stack.sidecar.signal(number)
        told = manager.wait("RELOADING=1")
        at = int(re.search(r"^MONOTONIC_USEC=(\d+)$", told, re.M).group(1))
        assert before <= at <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        manager.wait("READY=1")
    stack.sidecar.stop()
    assert manager.states() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]


def test_ready_is_told_when_requests_are_served_and_not_before(managed):
    _, manager = managed()
    assert manager.wait("READY=1")
    assert not any("READY=1" in text for _, text in manager.history[:-1])


def test_a_start_that_fails_is_never_ready(folder):
    manager = Manager(folder)
    with open(f"{folder}/ini", "w") as config:
        config.write(f"[listen]\nfastcgi = unix:{folder}/no/folder.sock\n")
    result = subprocess.run(sidecar_command() + ["-c", f"{folder}/ini"], env=manager.environment, capture_output=True,
                            timeout=2 * DEADLINE, check=False)
    assert result.returncode == 71 and manager.states() == []
    manager.socket.close()


def test_a_reload_that_fails_ends_too_and_the_status_says_so(managed):
    stack, manager = managed()
    manager.wait("READY=1")
    with open(stack.sidecar.config, "a") as config:
        config.write("[policy]\nmax_plugin = 3\n")
    for number in (signal.SIGHUP, signal.SIGUSR2):
        stack.sidecar.signal(number)
        manager.wait("RELOADING=1")
        manager.wait("READY=1")
        manager.wait("STATUS=.*reload failed.*") if number == signal.SIGHUP else None
    stack.reload()
    manager.wait("STATUS=serving: [^;]*")
    stack.sidecar.stop()
    assert manager.states() == ["READY"] + ["RELOADING", "READY"] * 3 + ["STOPPING"]


def test_a_crash_of_the_child_is_no_news(managed):
    stack, manager = managed()
    manager.wait("READY=1")
    os.kill(stack.sidecar.child(), signal.SIGKILL)
    stack.check_serves()
    assert manager.states() == ["READY"]


# ---- status --------------------------------------------------------------------------------------------

def test_the_status_while_serving_and_draining(managed):
    stack, manager = managed()
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    idle = stack.front()
    manager.wait("STATUS=serving: 2 fronts, 1 build")
    idle.close()
    download = stack.php_asks_for_build()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(bytes(8 << 20))}))
    download.read_head()
    stack.reload()
    manager.wait(r"STATUS=serving: 0 fronts, 0 builds; draining: 1 build, 1 download, \d+ s")
    stack.sidecar.signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    manager.wait(r"STATUS=draining: 1 build, 1 download, \d+ s")
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert build.read_answer().body == b"built"
    manager.wait(r"STATUS=draining: 0 builds, 1 download, \d+ s")
    assert len(download.read_answer().stdout) > 1 << 20
    assert stack.sidecar.wait() == 0


@not_in_a_wrapper
def test_without_a_manager_nothing_wakes_up(start):
    stack = start()
    stack.check_serves()

    def switches():
        total = 0
        for pid in (stack.sidecar.process.pid, stack.sidecar.child()):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as status:
                    total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read(), re.M).group(1))
        return total
    wait_until(lambda: (time.sleep(0.05), switches())[1] == switches(), "rest")
    before = switches()
    time.sleep(1.2)
    assert switches() - before < 3 or stack.sidecar.is_watched()


# ---- watchdog ------------------------------------------------------------------------------------------

def fed(manager):
    manager.drain()
    return [at for at, text in manager.history if text == "WATCHDOG=1"]


def test_the_watchdog_is_fed_while_the_child_moves(managed):
    interval = 0.3 * SLOW
    stack, manager = managed({"WATCHDOG_USEC": str(int(interval * 1e6))})
    manager.wait("READY=1")
    began = time.monotonic()
    for _ in range(6):
        manager.wait("WATCHDOG=1")
    assert time.monotonic() - began < 6 * interval
    os.kill(stack.sidecar.child(), signal.SIGSTOP)
    stack.sidecar.wait_log("child makes no progress: the watchdog is not fed")
    before = len(fed(manager))
    time.sleep(1.5 * interval)
    assert len(fed(manager)) == before
    os.kill(stack.sidecar.child(), signal.SIGCONT)
    manager.wait("WATCHDOG=1")
    stack.check_serves()


def test_the_watchdog_of_another_process_is_not_ours(managed):
    stack, manager = managed({"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    manager.wait("READY=1")
    stack.check_serves()
    time.sleep(0.3)
    assert not fed(manager)


@not_in_a_wrapper
def test_the_watchdog_is_fed_over_reloads_and_upgrades(managed):
    interval = 0.6 * SLOW
    stack, manager = managed({"WATCHDOG_USEC": str(int(interval * 1e6))})
    manager.wait("READY=1")
    began = time.monotonic()
    while time.monotonic() - began < 2 * interval:
        stack.reload()
        fed(manager)  # its queue holds ten messages
        stack.reload(number=signal.SIGUSR2)
        times = fed(manager)
    assert len(times) > 2 and max(b - a for a, b in zip(times, times[1:])) < interval


# ---- activation ----------------------------------------------------------------------------------------

def passing(sockets, names):
    """Keywords of Popen: descriptors from 3 on, as a service manager passes them."""
    spare = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD_CLOEXEC, 100) for each in sockets]

    def place():
        for index, descriptor in enumerate(spare):
            os.dup2(descriptor, 3 + index)
    environment = {**os.environ, "LISTEN_FDS": str(len(sockets))}
    if names is not None:
        environment["LISTEN_FDNAMES"] = names
    return {"command": ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh"] + sidecar_command(),
            "environment": environment, "preexec_fn": place, "pass_fds": tuple(range(3, 3 + len(sockets)))}


def unix_listener(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    return listener


def page_from(stack, address):
    front = stack.front(address)
    front.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    return front.read_answer().body


def scgi_page_from(stack, connection):
    connection.sendall(b"24:CONTENT_LENGTH\x000\x00SCGI\x001\x00,")
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("Status: 200 OK\r\n\r\npage")
    connection.settimeout(DEADLINE)
    return connection.recv(4096).endswith(b"page")


def test_a_passed_socket_replaces_the_list_and_is_never_removed(start):
    folder = make_folder()
    with unix_listener(f"{folder}/passed.sock") as passed, socket.create_server(("127.0.0.1", 0)) as tcp:
        tcp_address = "127.0.0.1:%d" % tcp.getsockname()[1]
        stack = start(folder=folder, process={**passing([passed, tcp], "scgi:fastcgi"), "addresses": [tcp_address]},
                      listen={"fastcgi": tcp_address, "scgi": f"unix:{folder}/configured.sock"})
        for number in (None, signal.SIGHUP, signal.SIGUSR2, signal.SIGKILL):
            if number == signal.SIGKILL:
                os.kill(stack.sidecar.child(), number)
            elif number is not None:
                stack.reload(number=number)
            assert page_from(stack, tcp_address) == b"page"
            with peers.connect(f"unix:{folder}/passed.sock") as connection:
                assert scgi_page_from(stack, connection)
            assert not os.path.exists(f"{folder}/configured.sock")
        stack.sidecar.stop()
        assert os.path.exists(f"{folder}/passed.sock")


def test_the_list_of_the_other_kind_stays(start):
    folder = make_folder()
    with unix_listener(f"{folder}/passed.sock") as passed:
        stack = start(folder=folder, process=passing([passed], "scgi"))
        assert page_from(stack, stack.sidecar.address) == b"page"
        with peers.connect(f"unix:{folder}/passed.sock") as connection:
            assert scgi_page_from(stack, connection)


def test_connections_wait_in_a_passed_socket_while_the_service_is_restarted(start):
    folder = make_folder()
    with unix_listener(f"{folder}/front.sock") as passed:
        stack = start(folder=folder, process=passing([passed], "fastcgi"))
        stack.check_serves()
        stack.sidecar.stop()
        waiting = stack.ask()
        stack.sidecar = type(stack.sidecar)(stack.folder, stack.sections, **passing([passed], "fastcgi"))
        worker = stack.fpm.accept()
        worker.read_request()
        worker.answer("\r\npage")
        assert waiting.read_answer().body == b"page"


def test_a_new_list_under_a_passed_socket_is_warned_of(start):
    folder = make_folder()
    with unix_listener(f"{folder}/front.sock") as passed:
        stack = start(folder=folder, process=passing([passed], "fastcgi"))
        stack.sidecar.wait_log("ready")
        stack.reload(listen={"fastcgi": f"unix:{folder}/other.sock"})
        assert [line for line in stack.sidecar.log() if line["level"] == "warn" and "no effect" in line["msg"]]
        assert not os.path.exists(f"{folder}/other.sock")


@pytest.mark.parametrize("names", ["http", "fastcgi:http", "", None, "FASTCGI"])
def test_an_unknown_name_is_78(folder, names):
    with unix_listener(f"{folder}/a.sock") as first, unix_listener(f"{folder}/b.sock") as second:
        result = run_with(folder, [first, second], names)
    assert result.returncode == 78 and "unknown name" in result.stderr, result.stderr
    assert "allowed are fastcgi and scgi" in result.stderr


def test_a_wrong_descriptor_is_78(folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams, socket.socket() as deaf, \
            open(f"{folder}/file", "w") as file:
        datagrams.bind(f"{folder}/datagrams")
        for wrong in (datagrams, deaf, file):
            result = run_with(folder, [wrong], "fastcgi")
            assert result.returncode == 78 and "no listening stream socket" in result.stderr, result.stderr


def run_with(folder, descriptors, names):
    with open(f"{folder}/ini", "w") as config:
        config.write(f"[listen]\nfastcgi = unix:{folder}/never.sock\n")
    popen = passing(descriptors, names)
    return subprocess.run(popen.pop("command") + ["-c", f"{folder}/ini"], env=popen.pop("environment"), text=True,
                          capture_output=True, timeout=2 * DEADLINE, check=False, **popen)


def test_sockets_for_another_process_are_not_ours(start):
    folder = make_folder()
    stack = start(folder=folder, process={"environment": {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": "1",
                                                          "LISTEN_FDNAMES": "http"}})
    stack.check_serves()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd's own tool is not installed")
def test_systemds_own_tool(start):
    folder = make_folder()
    command = ["systemd-socket-activate", "-l", f"{folder}/front.sock", "--fdname=fastcgi"] + sidecar_command()
    stack = start(folder=folder, process={"command": command})
    stack.check_serves()
    assert stack.sidecar.log("socket of the service manager")
