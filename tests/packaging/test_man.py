# SPDX-License-Identifier: MIT
"""The manual: rendered without a warning, and nothing forgotten."""

import os
import re
import shutil
import signal
import subprocess
import tempfile

import peers
import pytest
from conftest import BUILD, TOP, run, tool

PAGES = ["velox-sidecar.8", "velox-sidecar.ini.5"]
PROGRAM = os.path.join(BUILD, "velox-sidecar")


def page_text(name):
    with open(f"{TOP}/man/{name}") as page:
        return page.read()


def plain(text):
    """Without mdoc's requests and escapes, in one line."""
    text = re.sub(r"^\.[A-Z]\w", "", text.replace("\\-", "-").replace("\\&", ""), flags=re.M)
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("name", PAGES)
def test_rendered_by_groff(name):
    assert run(tool("groff"), "-ww", "-mandoc", "-Tutf8", "-z", f"{TOP}/man/{name}") == ""


@pytest.mark.parametrize("name", PAGES)
def test_rendered_by_man(name):
    program = tool("man")
    shown = subprocess.run([program, "--warnings=w", "-E", "UTF-8", "-l", f"{TOP}/man/{name}"], text=True,
                           capture_output=True, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"})
    assert shown.returncode == 0 and shown.stderr == "", shown.stderr
    if "minimized" not in shown.stdout:     # a Debian image whose man says that there are no pages
        assert "NAME" in shown.stdout and len(shown.stdout) > 5000


@pytest.mark.parametrize("name", PAGES)
def test_linted_by_mandoc(name):
    assert run(tool("mandoc"), "-Tlint", "-W", "warning", f"{TOP}/man/{name}") == ""


def keys_of_the_program():
    shown = subprocess.run([PROGRAM, "-T", "-c", "/dev/null"], capture_output=True, text=True, check=True).stdout
    keys, section = {}, None
    for line in shown.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif " =" in line:
            name, _, value = line.partition(" =")
            keys[section, name] = value.strip()
    # The plugin's name for max_size, which -T prints as max_size.
    keys.setdefault(("cache", "max_size_gb"), "0")
    return keys


def keys_of_the_page():
    keys, section = {}, None
    for line in page_text("velox-sidecar.ini.5").splitlines():
        if line.startswith(".Ss"):
            section = line[4:].strip("[]")
        elif line.startswith(".It Ic "):
            name = line[7:]
        elif line.startswith(".Pq ") and (given := re.search(r", default (?:Cm (\S+)|(empty))$", line)):
            keys[section, name] = given.group(1) or ""
    return keys


def test_every_key_with_its_default():
    assert len(keys_of_the_program()) > 60
    assert keys_of_the_page() == keys_of_the_program()


def test_every_key_has_a_meaning():
    for entry in re.split(r"^\.It Ic ", page_text("velox-sidecar.ini.5"), flags=re.M)[1:]:
        lines = entry.split("\n.El")[0].splitlines()
        assert len(lines) >= 3 and lines[1].startswith(".Pq "), lines[0]


def test_every_option_of_the_usage():
    usage = run(PROGRAM, "-h")
    page = page_text("velox-sidecar.8")
    for option in re.findall(r"^  -(\w)\b", usage, re.M):
        assert f".It Fl {option}" in page, option
    for option in re.findall(r"^  --(\w+)", usage, re.M):
        assert f".It Fl \\-{option}" in page, option


def test_every_signal_error_and_exit_code():
    page = page_text("velox-sidecar.8")
    for name in ("TERM", "QUIT", "INT", "HUP", "USR1", "USR2"):
        assert re.search(rf"^\.It Dv .*\b{name}\b", page, re.M), name
    with open(f"{TOP}/sidecar/base/failure.c") as table:
        errors = re.findall(r'= \{ (\d{3}), "[^"]*",\s*"(\w+)"', table.read())
    assert len(errors) > 8
    for status, error in errors:
        assert f".It {status} {error}" in page
    for code in (0, 1, 64, 71, 78):
        assert re.search(rf"^\.It {code}$", page, re.M), code


def test_every_log_line_that_is_named_exists():
    sources = ""
    for folder, _, names in os.walk(f"{TOP}/sidecar"):
        for name in names:
            with open(os.path.join(folder, name)) as file:
                sources += file.read()
    section = page_text("velox-sidecar.8").split(".Sh LOG\n")[1].split("\n.Sh ")[0]
    named = re.findall(r"^\.It Li (.*)$", section, re.M)
    named += [line.rstrip(" .,:") for line in re.findall(r"^\.Ql (.*)$", section.split("For the process:")[1], re.M)]
    assert len(named) > 20
    assert [line for line in named if f'"{line}' not in sources] == []


@pytest.fixture(scope="module")
def status():
    """Asks a running sidecar for its status page, by query."""
    folder = tempfile.mkdtemp(prefix="vx-")
    try:
        with open(f"{folder}/ini", "w") as ini:
            ini.write(f"[sidecar]\nstatus_path = /status\n[listen]\nfastcgi = unix:{folder}/s\n")
        process = subprocess.Popen([PROGRAM, "-c", f"{folder}/ini"], stderr=subprocess.PIPE, text=True)
        for line in process.stderr:
            if "msg=ready" in line:
                break

        def ask(query):
            front = peers.Front(f"unix:{folder}/s")
            front.ask([("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/status"), ("QUERY_STRING", query)])
            answer = front.read_answer()
            front.close()
            return answer.body.decode()
        yield ask
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    finally:
        shutil.rmtree(folder)


def test_every_status_field(status):
    fields = re.findall(r"^([a-z ]+):", status(""), re.M)
    assert len(fields) > 20
    text = plain(page_text("velox-sidecar.8").split(".Sh STATUS PAGE")[1].split(".Sh ")[0])
    for field in fields:
        assert field in text, field


def test_every_metric(status):
    samples = re.findall(r"^velox_([a-z_]+?)(?:_bucket|_sum|_count)?(?:\{(\w+)=\"(\w*)[^}]*\})? ", status("openmetrics"),
                         re.M)
    assert len(samples) > 30
    text = plain(page_text("velox-sidecar.8").split(".Sh STATUS PAGE")[1].split(".Sh ")[0])
    for name, label, value in samples:
        assert name in text, name
        if label and label not in ("le", "version"):
            assert label in text, (name, label)
            if name != "errors_total":
                assert value in text, (name, value)
