# SPDX-License-Identifier: MIT
"""scripts/quickstart as a newcomer runs it, with the programs that are built already."""
import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from stack import SOURCE, program_from, wait_until

SCRIPT = SOURCE / "scripts" / "quickstart"


def start(*arguments):
    environment = dict(os.environ)
    environment["VELOX_SIDECAR"] = str(program_from("VELOX_SIDECAR", SOURCE / "velox-sidecar"))
    environment["VELOX_TOOLS"] = str(program_from("VELOX_TOOLS", SOURCE / "tests" / "tools"))
    return subprocess.Popen([str(SCRIPT), *arguments], env=environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def left_by(folder):
    """Processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue
        if folder.encode() in line:
            found.append(line.replace(b"\0", b" ").decode(errors="replace"))
    return found


def test_shows_what_it_promises():
    code, out, err = run()
    assert code == 0, err
    lines = out.splitlines()
    assert 5 <= len(lines) <= 12
    assert "1 worker" in lines[0]
    assert re.search(r"^SHA-256: +right: [0-9a-f]{64}$", out, re.M)
    assert re.search(r"^file: +64\.0 MB in ", out, re.M)
    free_ms = float(re.search(r"^worker free: .* ([\d.]+) ms after", out, re.M)[1])
    pages = int(re.search(r"^meanwhile: +(\d+) ordinary pages", out, re.M)[1])
    build_s = float(re.search(r"^build: +([\d.]+) s", out, re.M)[1])
    assert free_ms < build_s * 1000 / 10
    assert pages > 100


def test_keep_and_stop():
    code, out, err = run("--keep")
    assert code == 0, err
    assert len(out.splitlines()) <= 12
    folder = re.search(r"--stop (/\S+)$", out, re.M)[1]
    try:
        url = re.search(r"http://\S+/hello\.php", out)[0]
        assert urllib.request.urlopen(url, timeout=20).read().startswith(b"worker ")
        assert len(left_by(folder)) >= 4
    finally:
        code, out, err = run("--stop", folder)
    assert code == 0, err
    assert left_by(folder) == []
    assert not Path(folder).exists()


def test_failure_says_what_to_do():
    code, out, err = run("--velox", "http://127.0.0.1:1")
    assert code == 1
    assert out == ""
    assert "velox_unavailable" in err
    assert "What to do:" in err
    assert "http://127.0.0.1:1" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(number):
    before = set(Path("/tmp").glob("velox-quickstart.*"))

    def new_folder():
        return next(iter(set(Path("/tmp").glob("velox-quickstart.*")) - before), None)

    process = start()
    folder = wait_until(new_folder, "the folder")
    wait_until(lambda: (folder / "run" / "began").exists(), "the build request")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert left_by(str(folder)) == []
    assert not folder.exists()


def test_stops_only_what_is_its_own(tmp_path):
    (tmp_path / "file").write_text("kept")
    code, _, err = run("--stop", str(tmp_path))
    assert code == 1
    assert "What to do:" in err
    assert (tmp_path / "file").exists()
