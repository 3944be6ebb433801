# SPDX-License-Identifier: MIT
"""What the child has given up of the rights that the sidecar was started with."""

import errno
import os
import platform
import pwd
import re
import resource
import shutil
import signal
import subprocess

import pytest

from conftest import refusing, sidecar_command, wait_until
from peers import DEADLINE

CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
WATCHED = bool(os.environ.get("VELOX_SIDECAR_WRAPPER"))
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def status_of(pid):
    with open(f"/proc/{pid}/status") as status:
        return dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)


def limit_of(pid, name):
    with open(f"/proc/{pid}/limits") as limits:
        soft, hard = re.search(rf"^{name} +(\S+) +(\S+)", limits.read(), re.M).groups()
    return soft, hard


@needs_root
@pytest.mark.parametrize("user", ["nobody", "daemon"])
def test_a_user_takes_everything(start, user):
    stack = start(sidecar={"user": user})
    assert stack.build().body == b"built"
    child = stack.sidecar.child()
    status, entry = status_of(child), pwd.getpwnam(user)
    assert set(status["Uid"].split()) == {str(entry.pw_uid)} and set(status["Gid"].split()) == {str(entry.pw_gid)}
    assert {int(group) for group in status["Groups"].split()} == set(os.getgrouplist(user, entry.pw_gid))
    for kind in CAPABILITIES:
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1" and status["Umask"] == "0077"
    assert limit_of(child, "Max core file size") == ("0", "0")
    # Root's, so that nobody else of the same user looks into the memory.
    assert os.stat(f"/proc/{child}/mem").st_uid == 0


@needs_root
def test_the_log_belongs_to_the_user(start):
    """logrotate works with the user's rights (`su`), or the user could have it work on others' files."""
    stack = start(sidecar={"user": "nobody"})
    log, entry = f"{stack.folder}/log", pwd.getpwnam("nobody")
    stack.sidecar.wait_log("ready")
    assert (os.stat(log).st_uid, os.stat(log).st_gid) == (entry.pw_uid, entry.pw_gid)
    os.rename(log, log + ".1")
    stack.sidecar.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: os.path.exists(log) and os.stat(log).st_uid == entry.pw_uid, "a new log of nobody's")


@needs_root
def test_root_is_not_led_to_another_file(start):
    """By a link that the user, whose folder it is, puts in the place of the log; nor is a file that is there given to the user."""
    stack = start(sidecar={"user": "nobody"})
    log, secret = f"{stack.folder}/log", f"{stack.folder}/secret"
    with open(secret, "w") as file:
        file.write("x")
    os.rename(log, log + ".1")
    os.symlink(secret, log)
    os.lchown(log, pwd.getpwnam("nobody").pw_uid, -1)
    stack.sidecar.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "cannot reopen the log file" in open(log + ".1").read(), "the refusal")
    with open(secret) as file:
        assert file.read() == "x"
    assert os.stat(secret).st_uid == 0


@needs_root
def test_a_group_of_its_own(start):
    stack = start(sidecar={"user": "nobody", "group": "daemon"})
    assert stack.build().body == b"built"
    status, group = status_of(stack.sidecar.child()), str(os.stat("/").st_gid)
    assert status["Gid"].split()[0] != group and set(status["Gid"].split()) <= set(status["Groups"].split())


def program_for_others(folder):
    """A copy of the program that another user may run: build folders are often closed to others."""
    os.chmod(folder, 0o777)
    return shutil.copy(sidecar_command()[-1], f"{folder}/velox-sidecar")


@needs_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="gives a capability with setpriv (util-linux)")
@pytest.mark.skipif(WATCHED, reason="valgrind is not started as the sidecar is")
def test_a_capability_of_the_start_is_not_kept(folder):
    """As a unit with User= and AmbientCapabilities= starts it."""
    program = program_for_others(folder)
    with open(f"{folder}/ini", "w") as config:
        config.write(f"[listen]\nfastcgi = unix:{folder}/sock\n[php_fpm]\nspool_directory = {folder}\n")
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                    "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service",
                                    program, "-c", f"{folder}/ini"], stderr=log)
        try:
            ready = wait_until(lambda: re.search(r"msg=ready.* pid=(\d+)", open(f"{folder}/log").read()), "its begin")
            assert int(status_of(process.pid)["CapAmb"], 16) != 0
            status = status_of(int(ready[1]))
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                assert int(status[kind], 16) == 0, kind
        finally:
            process.terminate()
        assert process.wait(2 * DEADLINE) == 0


@needs_root
@pytest.mark.skipif(WATCHED, reason="valgrind is not started as the sidecar is")
@pytest.mark.skipif(platform.machine() not in CAPSET, reason="the number of capset is not known")
def test_a_unit_that_filters_capset(folder):
    """As the shipped one does: without capabilities there is nothing to set."""
    program = program_for_others(folder)
    with open(f"{folder}/ini", "w") as config:
        config.write(f"[listen]\nfastcgi = unix:{folder}/sock\n[php_fpm]\nspool_directory = {folder}\n")
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen([program, "-c", f"{folder}/ini"], stderr=log, user=65534, group=65534,
                                   extra_groups=[], preexec_fn=refusing(CAPSET[platform.machine()], errno.EPERM))
        try:
            wait_until(lambda: "msg=ready" in open(f"{folder}/log").read(), "its begin")
        finally:
            process.terminate()
        assert process.wait(2 * DEADLINE) == 0


@pytest.mark.skipif(WATCHED, reason="valgrind sets limits of its own")
def test_the_limit_of_open_files_is_raised(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= 256:
        pytest.skip("the hard limit is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        stack = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    stack.sidecar.wait_log("ready")
    assert limit_of(stack.sidecar.child(), "Max open files") == (str(hard), str(hard))


def test_more_connections_than_files_are_warned_of(start):
    stack = start(listen={"max_connections": 900000000})
    line = stack.sidecar.wait_log("max_connections is more than the limit of open files allows")
    assert line["level"] == "warn" and int(line["possible"]) < int(line["open_files"])
