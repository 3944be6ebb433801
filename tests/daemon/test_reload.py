# SPDX-License-Identifier: MIT
"""HUP: a new child with a new configuration, an old one that finishes what it has begun, and nobody who notices."""

import contextlib
import grp
import json
import os
import pwd
import resource
import signal
import socket
import stat
import time

import pytest

import peers
from conftest import SteadyRequests, check_error, not_in_a_wrapper, processes_of_session, wait_until
from ports import unused_port


def serve_pages(stack, body="page"):
    def answer(worker):
        worker.read_request()
        worker.answer(f"\r\n{body}")
    stack.fpm.serve(answer)


def wait_gone(pid):
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), f"the end of {pid}")


def wait_errors(stack, text):
    return wait_until(lambda: [line for line in stack.sidecar.log() if line["level"] == "error" and text in str(line)],
                      f"an error with {text!r}")


# ---- what is under way ---------------------------------------------------------------------------------

def test_the_new_configuration_is_in_force(start):
    stack = start()
    stack.check_serves()
    old = stack.sidecar.child()
    new = stack.reload(php_fpm={"response_timeout": "100ms"})
    assert new != old and stack.sidecar.child() == new
    front = stack.ask()
    stack.fpm.accept().read_request()
    check_error(front.read_answer(), 504, "timeout")


def test_a_build_ends_in_the_old_child_and_new_requests_go_to_the_new_one(start):
    stack = start()
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    old = stack.sidecar.child()
    new = stack.reload(velox={"server_url": None})
    # The new child intercepts nothing: so it is the one that answers.
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("X-Velox-Build: true\r\n\r\n{}")
    assert front.read_answer().body == b"{}"
    assert set(stack.sidecar.children()) == {old, new}
    content = peers.random_bytes(3 << 20)
    call.answer(json.dumps({"path": stack.artifact(content)}))
    assert build.read_answer().body == content
    wait_gone(old)
    assert stack.sidecar.child() == new
    stack.sidecar.wait_log("child ended", pid=old)


def test_a_download_goes_on_to_its_last_byte(start):
    stack = start()
    content = peers.random_bytes(8 << 20)
    front = stack.php_asks_for_build()
    stack.velox.accept().answer(json.dumps({"path": stack.artifact(content)}))
    _, got = front.read_head()
    old = stack.sidecar.child()
    stack.reload()
    stack.reload()
    assert old in stack.sidecar.children()
    rest = front.read_answer()
    assert got + rest.stdout == content and rest.ended
    wait_gone(old)


def test_an_event_stream_goes_on(start):
    stack = start()
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("Content-Type: text/event-stream\r\n\r\n")
    front.read_head()
    for number in range(3):
        event = f"data: {number}\n\n".encode()
        worker.stdout(event)
        assert front.read_stdout(len(event)) == event
        stack.reload()
    worker.stdout("data: last\n\n")
    worker.end()
    answer = front.read_answer()
    assert answer.stdout == b"data: last\n\n" and answer.ended


def test_a_kept_connection_is_closed_when_idle_and_its_answer_is_the_last(start):
    stack = start()
    serve_pages(stack)
    idle = stack.ask(keep=True)
    assert idle.read_answer().body == b"page"
    stack.fpm.stop_serving()
    busy = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    old = stack.sidecar.child()
    stack.reload()
    assert idle.read_record() is None
    worker.answer("\r\nlast")
    assert busy.read_answer().body == b"last"
    assert busy.read_record() is None
    wait_gone(old)
    stack.check_serves()


def test_a_connection_whose_request_is_on_its_way_is_served(start):
    stack = start()
    kept = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    kept.read_answer()
    fresh = stack.front()
    # Accepted by the old child, since one accepted after it has its answer.
    stack.check_serves()
    stack.check_serves()
    stack.reload()
    serve_pages(stack)
    for front in (fresh, kept):
        front.ask()
        assert front.read_answer().body == b"page"


@not_in_a_wrapper
def test_nobody_waits_or_is_refused_over_ten_reloads(start):
    stack = start()
    serve_pages(stack)
    with SteadyRequests(stack) as clients:
        for _ in range(10):
            before = len(clients.answers)
            stack.reload()
            clients.wait_for_more(before)
    stack.fpm.stop_serving()
    assert not [line for line in stack.sidecar.log()
                if line["level"] in ("error", "warn") and line["msg"] != "configuration: warning"]


def test_connections_in_the_backlog_survive(start):
    stack = start()
    stack.sidecar.wait_log("ready")
    serve_pages(stack)
    old = stack.sidecar.child()
    os.kill(old, signal.SIGSTOP)
    fronts = [stack.ask() for _ in range(20)]
    stack.reload()
    os.kill(old, signal.SIGCONT)
    for front in fronts:
        assert front.read_answer().body == b"page"
    wait_gone(old)


def test_an_old_child_ends_at_its_shutdown_timeout(start):
    stack = start(sidecar={"shutdown_timeout": "300ms"})
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    page = stack.ask()
    stack.fpm.accept().read_request()
    old = stack.sidecar.child()
    stack.reload(sidecar={"shutdown_timeout": "330s"})
    check_error(build.read_answer(), 503, "busy")
    page.wait_closed()
    call.wait_closed()
    wait_gone(old)
    stack.check_serves()


# ---- several at once -----------------------------------------------------------------------------------

@not_in_a_wrapper
def test_several_signals_in_a_row(start):
    stack = start()
    for _ in range(20):
        stack.sidecar.signal(signal.SIGHUP)
    wait_until(lambda: stack.sidecar.log("configuration reloaded"), "a reload")
    stack.check_serves()
    stack.reload()
    stack.check_serves()
    stack.sidecar.child()


@not_in_a_wrapper
def test_many_old_children_and_a_reload_that_waits_for_one(start):
    stack = start(sidecar={"threads": 1})
    waiting = []
    for _ in range(16):
        front = stack.ask()
        worker = stack.fpm.accept()
        worker.read_request()
        waiting.append((front, worker))
        stack.reload()
    assert len(stack.sidecar.children()) == 17
    before = len(stack.sidecar.log("configuration reloaded"))
    stack.sidecar.signal(signal.SIGHUP)
    stack.sidecar.wait_log("reload waits for an old child to end")
    stack.check_serves()
    for front, worker in waiting:
        worker.answer("\r\nold")
        assert front.read_answer().body == b"old"
    wait_until(lambda: len(stack.sidecar.log("configuration reloaded")) > before, "the one that waited")
    stack.sidecar.child()


def test_a_stop_ends_old_children_too(start):
    stack = start()
    builds = []
    for _ in range(2):
        builds.append((stack.php_asks_for_build(), stack.velox.accept()))
        stack.reload()
    stack.sidecar.signal(signal.SIGTERM)
    for front, call in builds:
        assert stack.sidecar.process.poll() is None
        call.answer(json.dumps({"path": stack.artifact(b"built")}))
        assert front.read_answer().body == b"built"
    assert stack.sidecar.wait() == 0


def test_int_ends_old_children_at_once(start):
    stack = start()
    stack.php_asks_for_build()
    stack.reload()
    stack.sidecar.signal(signal.SIGINT)
    assert stack.sidecar.wait() == 0


@not_in_a_wrapper
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_a_reload(start, number):
    stack = start(sidecar={"pid_file": "{folder}/pid"})
    for delay in (0, 0.002, 0.01):
        stack.sidecar.signal(signal.SIGHUP)
        time.sleep(delay)
        stack.sidecar.signal(number)
        assert stack.sidecar.wait() == 0
        assert not processes_of_session(stack.sidecar.process.pid)
        assert not os.path.exists(f"{stack.folder}/pid") and not os.path.exists(f"{stack.folder}/front.sock")
        stack.sidecar = type(stack.sidecar)(stack.folder, stack.sections)


def test_an_old_child_that_dies_is_not_replaced(start):
    stack = start()
    stack.php_asks_for_build()
    old = stack.sidecar.child()
    new = stack.reload()
    os.kill(old, signal.SIGKILL)
    stack.sidecar.wait_log("child died", pid=old)
    stack.check_serves()
    assert stack.sidecar.children() == [new]


def test_the_child_that_serves_dies_during_a_reload(start):
    stack = start()
    old = stack.sidecar.child()
    stack.sidecar.signal(signal.SIGHUP)
    os.kill(old, signal.SIGKILL)
    stack.check_serves()
    stack.check_serves()
    stack.sidecar.child()


def test_a_reload_ends_the_wait_after_many_deaths(start):
    stack = start()
    stack.check_serves()
    for _ in range(5):
        child = stack.sidecar.child()
        os.kill(child, signal.SIGKILL)
        wait_gone(child)
        if _ < 4:
            stack.check_serves()
    stack.sidecar.wait_log("child dies again and again: waiting before the next start")
    waiting = stack.ask()
    stack.reload()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    assert waiting.read_answer().body == b"page"


# ---- mistakes ------------------------------------------------------------------------------------------

def test_a_mistake_changes_nothing_and_is_logged_as_by_t(start):
    stack = start()
    old = stack.sidecar.child()
    with open(stack.sidecar.config, "a") as config:
        config.write("[policy]\nmax_plugin = 3\nallow_replaces = perhaps\n")
    stack.sidecar.signal(signal.SIGHUP)
    wait_errors(stack, f"{stack.sidecar.config}:")
    wait_errors(stack, "[policy] max_plugin: unknown key, perhaps max_plugins is meant; allowed are")
    wait_errors(stack, "[policy] allow_replaces: ")
    wait_errors(stack, "reload failed")
    stack.check_serves()
    assert stack.sidecar.child() == old
    assert stack.reload() != old


@pytest.mark.parametrize("change", [
    {"listen": {"fastcgi": "unix:{folder}/front.sock, unix:{folder}/no/folder.sock"}},
    {"sidecar": {"log_file": "{folder}/no/folder"}},
    {"velox": {"ca_file": "/nonexistent/ca.pem"}, "listen": {"fastcgi": "unix:{folder}/a.sock, 192.0.2.1:9000"}},
])
def test_what_cannot_be_had_changes_nothing(start, change):
    stack = start()
    old = stack.sidecar.child()
    sections = {name: dict(keys) for name, keys in stack.sections.items()}
    for section, keys in change.items():
        sections[section].update({key: value.replace("{folder}", stack.folder) for key, value in keys.items()})
    stack.sidecar.write_config(sections)
    stack.sidecar.signal(signal.SIGHUP)
    wait_errors(stack, "reload failed")
    stack.check_serves()
    assert stack.sidecar.child() == old and not os.path.exists(f"{stack.folder}/a.sock")


def test_a_child_that_cannot_start_changes_nothing(start):
    stack = start()
    old = stack.sidecar.child()
    sections = {name: dict(keys) for name, keys in stack.sections.items()}
    sections["listen"]["fastcgi"] += f", unix:{stack.folder}/added.sock"
    sections["sidecar"]["threads"] = "64"
    stack.sidecar.write_config(sections)
    # The parent has enough of them for itself, a child of 64 threads has not.
    resource.prlimit(stack.sidecar.process.pid, resource.RLIMIT_NOFILE, (60, 60))
    stack.sidecar.signal(signal.SIGHUP)
    wait_errors(stack, "reload failed")
    stack.check_serves()
    assert stack.sidecar.child() == old and not os.path.exists(f"{stack.folder}/added.sock")
    assert stack.reload() != old


# ---- listeners -----------------------------------------------------------------------------------------

def page_from(stack, address):
    front = stack.front(address)
    front.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    return front.read_answer().body


def test_listeners_are_added_and_dropped(start):
    stack = start()
    port = unused_port()
    first = stack.sections["listen"]["fastcgi"]
    second, third = f"unix:{stack.folder}/second.sock", f"127.0.0.1:{port}"
    stack.reload(listen={"fastcgi": f"{first}, {second}, {third}"})
    for address in (first, second, third):
        assert page_from(stack, address) == b"page"
    stack.reload(listen={"fastcgi": second})
    assert page_from(stack, second) == b"page"
    for address in (first, third):
        wait_until(lambda: refused(address), "the dropped ones to be closed")
    assert not os.path.exists(f"{stack.folder}/front.sock")
    stack.reload(listen={"fastcgi": first})
    assert page_from(stack, first) == b"page"
    assert not os.path.exists(f"{stack.folder}/second.sock")


def refused(address):
    try:
        peers.connect(address).close()
    except OSError:
        return True
    return False


def test_a_listener_changes_its_protocol(start):
    stack = start()
    address = stack.sections["listen"]["fastcgi"]
    stack.reload(listen={"fastcgi": f"unix:{stack.folder}/other.sock", "scgi": address})
    with peers.connect(address) as connection:
        connection.sendall(b"24:CONTENT_LENGTH\x000\x00SCGI\x001\x00,")
        worker = stack.fpm.accept()
        worker.read_request()
        worker.answer("Status: 200 OK\r\n\r\npage")
        connection.settimeout(peers.DEADLINE)
        assert b"page" in connection.recv(4096)


def test_a_socket_file_that_was_removed_comes_back(start):
    stack = start()
    stack.sidecar.wait_log("ready")
    os.unlink(f"{stack.folder}/front.sock")
    stack.reload()
    stack.check_serves()


def test_the_mode_of_a_socket_that_stays_is_changed(start):
    stack = start(listen={"socket_mode": "0600"})
    stack.reload(listen={"socket_mode": "0666"})
    wait_until(lambda: stat.S_IMODE(os.stat(f"{stack.folder}/front.sock").st_mode) == 0o666, "the mode")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_and_group_of_a_socket_that_stays_are_changed(start):
    stack = start()
    nobody = pwd.getpwnam("nobody")
    stack.reload(listen={"socket_owner": "nobody", "socket_group": "www-data"})

    def is_given():
        info = os.stat(f"{stack.folder}/front.sock")
        return info.st_uid == nobody.pw_uid and info.st_gid != 0
    wait_until(is_given, "owner and group")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_group_is_that_of_php_fpms_socket_even_when_it_comes_later(start):
    stack = start()
    front, php = f"{stack.folder}/front.sock", f"{stack.folder}/late.sock"
    assert os.stat(front).st_gid == os.stat(f"{stack.folder}/php.sock").st_gid
    stack.reload(php_fpm={"address": f"unix:{php}"})
    assert stack.sidecar.log("no PHP-FPM socket to take the group of our socket from: the web server may not be able "
                             "to connect; set [listen] socket_group")
    with contextlib.suppress(KeyError):
        assert os.stat(front).st_gid == grp.getgrnam("www-data").gr_gid
    with socket.socket(socket.AF_UNIX) as late:
        late.bind(php + ".new")
        os.chown(php + ".new", 0, 12345)
        os.rename(php + ".new", php)
        wait_until(lambda: os.stat(front).st_gid == 12345, "the group")


# ---- the log and the pid file --------------------------------------------------------------------------

def test_an_old_child_writes_into_the_reopened_log(start):
    stack = start()
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    stack.reload()
    os.rename(stack.sidecar.log_path, f"{stack.folder}/log.1")
    stack.sidecar.signal(signal.SIGUSR1)
    wait_until(lambda: os.path.exists(stack.sidecar.log_path), "a new file")
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert build.read_answer().body == b"built"
    stack.sidecar.wait_log("artifact sent")
    with open(f"{stack.folder}/log.1") as rotated:
        assert "artifact sent" not in rotated.read()


def test_the_log_is_reopened_and_may_move(start):
    stack = start()
    stack.check_serves()
    os.rename(stack.sidecar.log_path, f"{stack.folder}/log.1")
    stack.reload()
    stack.sidecar.wait_log("ready")
    build = stack.php_asks_for_build()
    call = stack.velox.accept()
    stack.sidecar.write_config({**stack.sections,
                                "sidecar": {**stack.sections["sidecar"], "log_file": f"{stack.folder}/elsewhere"}})
    stack.sidecar.signal(signal.SIGHUP)
    stack.sidecar.log_path = f"{stack.folder}/elsewhere"
    stack.sidecar.wait_log("configuration reloaded")
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert build.read_answer().body == b"built"
    stack.sidecar.wait_log("artifact sent")


def test_a_log_file_that_is_a_pipe_without_a_reader_holds_nobody_up(start):
    stack = start()
    stack.check_serves()
    os.mkfifo(f"{stack.folder}/pipe")
    os.rename(f"{stack.folder}/pipe", stack.sidecar.log_path)
    stack.sidecar.signal(signal.SIGUSR1)
    stack.check_serves()
    stack.sidecar.stop()


def test_the_pid_file_stays_and_may_move(start):
    stack = start(sidecar={"pid_file": "{folder}/pid"})
    pid = str(stack.sidecar.process.pid)
    stack.reload()
    with open(f"{stack.folder}/pid") as file:
        assert file.read().strip() == pid
    stack.reload(sidecar={"pid_file": "{folder}/pid2"})
    wait_until(lambda: not os.path.exists(f"{stack.folder}/pid"), "the old one to go")
    with open(f"{stack.folder}/pid2") as file:
        assert file.read().strip() == pid
    stack.sidecar.stop()
    assert not os.path.exists(f"{stack.folder}/pid2")


def test_a_child_does_not_outlive_its_parent_after_a_reload(start):
    stack = start()
    stack.php_asks_for_build()
    stack.reload(sidecar={"shutdown_timeout": "100ms"})
    stack.reload()
    stack.sidecar.signal(signal.SIGKILL)
    stack.sidecar.process.wait()
    stack.tidy()
    wait_until(lambda: not processes_of_session(stack.sidecar.process.pid), "the children's end")
    stack.sidecar = type(stack.sidecar)(stack.folder, stack.sections)
