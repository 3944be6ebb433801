# SPDX-License-Identifier: MIT
"""systemd's units, the user, the folders, the rotation of logs: judged by the programs that read these files."""

import os
import re
import shutil
import subprocess
import tempfile
import time

import peers
import pytest
from conftest import BUILD, TOP, run, tool

PROGRAM = os.path.join(BUILD, "velox-sidecar")


@pytest.fixture
def units(tmp_path, installed):
    """The units with paths that exist here, so that systemd-analyze judges the rest."""
    for name in ("velox-sidecar.service", "velox-sidecar.socket"):
        with open(installed.path("systemdsystemunitdir", name)) as unit:
            text = unit.read().replace(installed.where("sbindir") + "/velox-sidecar", PROGRAM)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_units_are_understood(units):
    said = run(tool("systemd-analyze"), "--man=no", "verify", str(units / "velox-sidecar.service"),
               str(units / "velox-sidecar.socket"))
    assert [line for line in said.splitlines() if "velox-sidecar" in line] == []


def test_exposure_is_under_2(units):
    said = run(tool("systemd-analyze"), "security", "--offline=yes", "--no-pager", str(units / "velox-sidecar.service"))
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert level and float(level.group(1)) < 2.0, said


def seconds(text):
    return {"": 1, "s": 1, "m": 60}[text.lstrip("0123456789")] * int(re.match(r"\d+", text).group())


def test_what_the_units_say(installed):
    with open(installed.path("systemdsystemunitdir", "velox-sidecar.service")) as file:
        service = file.read()
    with open(f"{TOP}/config/velox-sidecar.ini") as ini:
        shutdown = re.search(r"^;shutdown_timeout = (\S+)$", ini.read(), re.M).group(1)
    keys = dict(re.findall(r"^(\w+)=(.*)$", service, re.M))
    assert keys["Type"] == "notify"
    assert keys["User"] == "velox-sidecar" and keys["SupplementaryGroups"] == "www-data"
    assert seconds(keys["TimeoutStopSec"]) > seconds(shutdown)
    assert keys["LimitCORE"] == "0"
    assert keys["PrivateTmp"] == "no" and re.search(r"^# No PrivateTmp:.*/tmp", service, re.M)
    assert keys["ExecStart"] == (f"{installed.where('sbindir')}/velox-sidecar -c "
                                 f"{installed.where('sysconfdir')}/velox-sidecar/velox-sidecar.ini")
    with open(installed.path("systemdsystemunitdir", "velox-sidecar.socket")) as file:
        keys = dict(re.findall(r"^(\w+)=(.*)$", file.read(), re.M))
    assert keys["FileDescriptorName"] == "fastcgi"
    assert keys["SocketGroup"] == "www-data" and keys["SocketMode"] == "0660"


def test_user_and_folders(tmp_path, installed):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    # As Debian has it, so that no other's file must say it.
    (root / "etc/group").write_text("root:x:0:\nwww-data:x:33:\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    run(tool("systemd-sysusers"), f"--root={root}", installed.path("sysusersdir", "velox-sidecar.conf"))
    user = re.search(r"^velox-sidecar:x:(\d+):(\d+):[^:]*:/nonexistent:\S*nologin$", (root / "etc/passwd").read_text(), re.M)
    assert user
    assert "www-data:x:33:velox-sidecar" in (root / "etc/group").read_text()
    run(tool("systemd-tmpfiles"), f"--root={root}", "--create", installed.path("tmpfilesdir", "velox-sidecar.conf"))
    for folder, mode in (("run", 0o755), ("var/cache", 0o700), ("var/log", 0o750)):
        made = os.stat(root / folder / "velox-sidecar")
        assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (mode, int(user.group(1)), int(user.group(2)))


# ---- logrotate -----------------------------------------------------------------------------------

def wait_for(condition, what):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.01)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


@pytest.fixture
def daemon():
    folder = tempfile.mkdtemp(prefix="vx-")
    os.mkdir(f"{folder}/log", 0o750)
    with open(f"{folder}/ini", "w") as ini:
        ini.write(f"[sidecar]\nlog_file = {folder}/log/velox-sidecar.log\n[listen]\nfastcgi = unix:{folder}/s\n"
                  f"[php_fpm]\naddress = unix:{folder}/nobody\n")
    process = subprocess.Popen([PROGRAM, "-c", f"{folder}/ini"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: "msg=ready" in read(f"{folder}/log/velox-sidecar.log"), "readiness")
        yield folder, process
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


def make_log_line(folder):
    """A request that cannot be served."""
    front = peers.Front(f"unix:{folder}/s")
    front.ask()
    front.read_answer()
    front.close()


def test_rotation_with_a_running_daemon(daemon, installed):
    program = tool("logrotate")
    folder, process = daemon
    text = read(installed.path("logrotatedir", "velox-sidecar"))
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    group = subprocess.run(["id", "-gn"], capture_output=True, text=True).stdout.strip()
    assert "su velox-sidecar velox-sidecar" in text
    text = text.replace("/var/log/velox-sidecar", f"{folder}/log").replace("su velox-sidecar velox-sidecar",
                                                                        f"su {user} {group}")
    with open(f"{folder}/rotate", "w") as file:
        file.write(text)
    os.chmod(f"{folder}/rotate", 0o644)
    # Both ways of telling end at the process of this test, and at no other on this machine.
    os.mkdir(f"{folder}/bin")
    for name in ("systemctl", "pkill"):
        with open(f"{folder}/bin/{name}", "w") as file:
            file.write(f'#!/bin/sh\ncase "$*" in *USR1*) exec kill -USR1 {process.pid} ;; esac\nexit 1\n')
        os.chmod(f"{folder}/bin/{name}", 0o755)
    environment = {**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    log = f"{folder}/log/velox-sidecar.log"

    said = run(program, "-d", "-s", f"{folder}/state", f"{folder}/rotate", env=environment)
    assert "error" not in said.lower(), said
    before = read(log)
    run(program, "-f", "-s", f"{folder}/state", f"{folder}/rotate", env=environment)
    wait_for(lambda: os.path.exists(log), "the new file")
    make_log_line(folder)
    wait_for(lambda: "PHP-FPM cannot be reached" in read(log), "a line in the new file")
    assert read(f"{log}.1").startswith(before) and "PHP-FPM cannot be reached" not in read(f"{log}.1")
