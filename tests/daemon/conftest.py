# SPDX-License-Identifier: MIT
"""Starts the real binary between scripted peers.

Environment: VELOX_SIDECAR the binary (else it is looked for in VELOX_BUILD and in the top folder),
VELOX_SIDECAR_WRAPPER a command before it, such as "valgrind -q --error-exitcode=99",
VELOX_TOOLS the folder of velox-standin and fcgx-responder (else next to the binary),
VELOX_TEST_SLOW how many times slower than usual the machine is taken to be (10 under valgrind).
"""

import ctypes
import itertools
import json
import os
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

import pytest

sys.path[:0] = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

import peers  # noqa: E402
from peers import DEADLINE, SLOW, Answer, Fpm, Front, Velox  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REPORTS = re.compile(r"ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:"
                     r"|ERROR SUMMARY: [1-9]|definitely lost: [1-9]|Invalid (read|write) of size"
                     r"|uninitialised value|[Aa]ssertion .* failed")


def find_program(name, variable):
    given = os.environ.get(variable)
    if given:
        return given if variable != "VELOX_TOOLS" else os.path.join(given, name)
    folders = [os.environ.get("VELOX_BUILD"), os.getcwd(), TOP]
    if os.environ.get("VELOX_SIDECAR"):
        folders.insert(0, os.path.dirname(os.environ["VELOX_SIDECAR"]))
    for folder in filter(None, folders):
        for path in (name, "tests/tools/" + name, "tests/" + name):
            if os.access(os.path.join(folder, path), os.X_OK):
                return os.path.join(folder, path)
    pytest.fail(f"{name} is not built: set {variable}, or VELOX_BUILD to the build folder", pytrace=False)


def sidecar_command():
    return shlex.split(os.environ.get("VELOX_SIDECAR_WRAPPER", "")) + [
        find_program("velox-sidecar", "VELOX_SIDECAR")]


def processes_of_session(session):
    """Living processes of a session; zombies do not count, unless a thread of theirs lives on."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and (fields[0] != "Z" or int(fields[17]) > 1):
            found.append(int(name))
    return found


def wait_until(condition, what, timeout=None):
    """For what sends no event, such as a line in a file or a process that appears."""
    end = time.monotonic() + (timeout or DEADLINE)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.002)


class Sidecar:
    """The real program, running."""

    def __init__(self, folder, sections, environment=None, command=None, addresses=None, **popen):
        """`addresses`: where it will listen, if not at all that are configured."""
        self.folder = folder
        self.config = os.path.join(folder, "velox-sidecar.ini")
        self.log_path = os.path.join(folder, "log")
        self.stderr_path = os.path.join(folder, "stderr")
        self.log_offset = 0
        configured = [each.strip() for key in ("fastcgi", "scgi")
                      for each in (sections["listen"].get(key) or "").split(",") if each]
        self.address = configured[0]
        self.write_config(sections)
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen((command or sidecar_command()) + ["-c", self.config],
                                            stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                                            start_new_session=True, env=environment, **popen)
        try:
            for address in addresses or configured:
                self._wait_listening(address)
        except BaseException:
            self.kill()
            raise

    def _wait_listening(self, address):
        def listening():
            assert self.process.poll() is None, f"the sidecar ended: {self.everything()}"
            try:
                peers.connect(address).close()
                return True
            except OSError:
                return False
        wait_until(listening, f"a listener at {address}", 2 * DEADLINE)

    def write_config(self, sections):
        # Under its name at once: a reload may be reading it.
        with open(self.config + ".new", "w") as config:
            config.write(ini_text(sections))
        os.rename(self.config + ".new", self.config)

    def children(self):
        """The pids of all children; more than one while old ones drain."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(child) for child in children.read().split()]

    def child(self):
        """The pid of the child that does the work."""
        return wait_until(lambda: self.children() if len(self.children()) == 1 else None, "one child process")[0]

    def reload(self, sections=None, number=signal.SIGHUP):
        """Until a new child serves; its pid."""
        if sections is not None:
            self.write_config(sections)
        before = len(self.log("configuration reloaded"))
        self.signal(number)
        return wait_until(lambda: self.log("configuration reloaded")[before:], "the reload", 2 * DEADLINE)[0]["pid"]

    def peak_memory_kb(self):
        with open(f"/proc/{self.child()}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1))

    def is_watched(self):
        """Under valgrind or a sanitizer: what is measured says little."""
        if os.environ.get("VELOX_SIDECAR_WRAPPER") or SLOW > 1:
            return True
        # The parent is the same program, and the child lets nobody look.
        with open(f"/proc/{self.process.pid}/maps") as maps:
            return "san.so" in maps.read()

    def assert_grew_less(self, before_kb, limit_kb):
        grown = self.peak_memory_kb() - before_kb
        assert grown < limit_kb or self.is_watched(), f"grew by {grown} kB"

    def log_text(self):
        try:
            with open(self.log_path, "rb") as log:
                log.seek(self.log_offset)
                return log.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def mark_log(self):
        if os.path.exists(self.log_path):
            self.log_offset = os.path.getsize(self.log_path)

    def log(self, message=None, **fields):
        """Lines of the json log since the test began that have these members."""
        lines = [json.loads(line) for line in self.log_text().split("\n") if line.endswith("}")]
        return [line for line in lines if (message is None or line.get("msg") == message)
                and all(line.get(name) == value for name, value in fields.items())]

    def wait_log(self, message, **fields):
        return wait_until(lambda: self.log(message, **fields), f"a log line {message!r} {fields}")[0]

    def everything(self):
        with open(self.stderr_path, errors="replace") as stderr:
            return f"--- stderr\n{stderr.read()}--- log\n{self.log_text()}"

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=None):
        return self.process.wait(timeout or 2 * DEADLINE)

    def kill(self):
        """All of it, until it is gone: what comes next may want its addresses."""
        def gone():
            left = processes_of_session(self.process.pid)
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not left
        wait_until(gone, "the end of killed processes", 2 * DEADLINE)
        self.process.wait()

    def stop(self):
        """SIGTERM, exit 0, nobody left behind, no report of a checker."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        problems = []
        try:
            code = self.wait()
            if code != 0:
                problems.append(f"exit code {code}")
        except subprocess.TimeoutExpired:
            problems.append("still running after SIGTERM")
        left = processes_of_session(self.process.pid)
        if left:
            problems.append(f"processes left behind: {left}")
        self.kill()
        with open(self.stderr_path, errors="replace") as stderr:
            if REPORTS.search(stderr.read()):
                problems.append("a checker found something")
        assert not problems, "; ".join(problems) + "\n" + self.everything()


def descriptors_of(pid):
    """Names of a process's open files. A child hides them, and its memory, from others of its user."""
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        pytest.skip("only root may count the child's descriptors")


def refusing(call, error):
    """For preexec_fn: a filter of four instructions, under which a system call, by its number, gives that error."""
    instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7fff0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in instructions))
    program = struct.pack("@HP", len(instructions), ctypes.addressof(code))

    def filter_calls(keep=code):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, program, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no filter")
    return filter_calls


# For tests that start dozens of processes and look at their number or time, not at their memory.
not_in_a_wrapper = pytest.mark.skipif(bool(os.environ.get("VELOX_SIDECAR_WRAPPER")),
                                      reason="many processes, each of them slow in a wrapper such as valgrind")


def check_waits(began, times, waits):
    """POSTs came at `times`, `waits` seconds apart. One that is seen late, on a busy machine, makes the next gap look short:
    so what is certain is that none came before all waits since `began` were over. (tests/sim have the exact figures.)"""
    assert len(times) == len(waits) + 1
    for number, at in enumerate(times):
        total = sum(waits[:number])
        assert total - 0.002 * number <= at - began < total + (0.3 + 0.1 * number) * SLOW, \
            (number, [at - began for at in times], waits)


def ini_text(sections):
    out = []
    for section, keys in sections.items():
        out.append(f"[{section}]")
        out += [f"{key} = {value}" for key, value in keys.items() if value is not None]
    return "\n".join(out) + "\n"


class SteadyRequests:
    """Two clients that ask for a page again and again, each time on a new connection, while the block runs. At its end none has failed."""

    def __init__(self, stack):
        self.stack = stack
        self.failures, self.answers, self.done = [], [], threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(2)]

    def _ask(self):
        try:
            while not self.done.is_set():
                front = Front(self.stack.sidecar.address)
                front.ask()
                answer = front.read_answer()
                self.answers.append(answer.body == b"page" and answer.ended)
                front.close()
                time.sleep(0.005)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
            self.failures.append(repr(error))

    def wait_for_more(self, before):
        wait_until(lambda: len(self.answers) > before + 1 or self.failures, "further requests")

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()
        if kind is None:
            assert not self.failures and self.answers and all(self.answers)


class Stack:
    """A sidecar with its scripted PHP-FPM and Velox."""

    numbers = itertools.count(1)

    def __init__(self, folder, changes, with_velox=True, **process):
        self.folder = folder
        self.root = os.path.join(folder, "artifacts")
        os.makedirs(self.root, exist_ok=True)
        fpm_address = f"unix:{folder}/php.sock"
        self.fpm = Fpm(fpm_address)
        self.velox = Velox() if with_velox else None
        sections = {
            # valgrind makes system calls of its own in the child.
            "sidecar": {"threads": 2, "log_format": "json", "log_file": f"{folder}/log",
                        "sandbox": "off" if os.environ.get("VELOX_SIDECAR_WRAPPER") else None},
            "listen": {"fastcgi": f"unix:{folder}/front.sock"},
            "php_fpm": {"address": fpm_address, "spool_directory": folder},
            "velox": {"server_url": self.velox.url if with_velox else None},
            # Real delays and no drawing of lots, a hundred times faster than the defaults.
            "retry": {"initial_delay": "10ms", "max_delay": "50ms", "jitter": 0},
            "artifact": {"root": self.root},
        }
        for section, keys in changes.items():
            sections.setdefault(section, {}).update(keys)
        sections = {name: {key: str(value).replace("{folder}", folder) if value is not None else None
                           for key, value in keys.items()} for name, keys in sections.items()}
        self.sections = sections
        self.fronts = []
        try:
            self.sidecar = Sidecar(folder, sections, **process)
        except BaseException:
            self.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise

    # -- the front's side

    def front(self, address=None):
        front = Front(address or self.sidecar.address)
        self.fronts.append(front)
        return front

    def ask(self, *arguments, **named):
        """A request on a new connection."""
        front = self.front()
        front.ask(*arguments, **named)
        return front

    def reload(self, number=signal.SIGHUP, **changes):
        """With these keys changed; the new child's pid."""
        for section, keys in changes.items():
            self.sections.setdefault(section, {}).update(
                {key: value if value is None else str(value).replace("{folder}", self.folder)
                 for key, value in keys.items()})
        return self.sidecar.reload(self.sections, number)

    def check_serves(self):
        """An ordinary request passes."""
        front = self.ask()
        worker = self.fpm.accept()
        worker.read_request()
        worker.answer("Content-Type: text/plain\r\n\r\nstill here")
        answer = front.read_answer()
        assert answer.body == b"still here" and answer.ended
        front.close()

    def check_serves_next(self, front):
        """A kept connection takes a further request."""
        front.ask(keep=True)
        worker = self.fpm.accept()
        worker.read_request()
        worker.answer("\r\nnext")
        assert front.read_answer().body == b"next"

    # -- builds

    def build_request(self, **members):
        """JSON bytes of a build that no other test asks for."""
        number = next(self.numbers)
        members = {
            "request_id": f"test-{os.getpid()}-{number}",
            "target_platform": {"os": "linux", "arch": "amd64"},
            "rr_version": "v2025.1.2",
            "plugins": [{"module_name": "github.com/roadrunner-server/http/v5", "tag": f"v5.2.{number}"}],
            **members}
        return json.dumps({name: value for name, value in members.items()
                           if value is not ...}).encode()

    def artifact(self, content, name=None):
        """Writes a built file; its path."""
        path = os.path.join(self.root, name or f"rr-{next(self.numbers)}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def php_asks_for_build(self, request=None, head="", front=None, **ask):
        """Front asks, PHP answers with a build request and is let go. Returns the front."""
        front = front or self.front()
        front.ask(**ask)
        worker = self.fpm.accept()
        worker.read_request()
        worker.answer(b"X-Velox-Build: true\r\nContent-Type: application/json\r\n" + peers.to_bytes(head)
                      + b"\r\n" + (self.build_request() if request is None else request))
        worker.wait_closed()
        return front

    def build(self, velox_body=None, request=None, head="", **answer):
        """A whole build with one call at Velox; the front's answer."""
        front = self.php_asks_for_build(request, head)
        call = self.velox.accept()
        if velox_body is None:
            velox_body = json.dumps({"path": self.artifact(b"built"), "logs": ""})
        call.answer(velox_body, **answer)
        return front.read_answer()

    # -- the end

    def tidy(self):
        for front in self.fronts:
            front.close()
        self.fronts.clear()
        self.fpm.tidy()
        if self.velox:
            self.velox.tidy()

    def close(self):
        self.tidy()
        for peer in (self.fpm, self.velox):
            if peer:
                peer.close()

    def stop(self):
        try:
            self.tidy()
            self.sidecar.stop()
        finally:
            self.close()


def check_error(answer, status, error, request_id=None):
    """The sidecar's own answer, as the contract words it. Returns its message."""
    assert answer.ended, "no END_REQUEST"
    assert answer.app_status == 0 and answer.protocol_status == peers.REQUEST_COMPLETE
    assert answer.status == status, answer.stdout
    assert answer.get("Content-Type") == "application/json"
    assert answer.get("Cache-Control") == "no-store"
    body = json.loads(answer.body)
    assert body["error"] == error, body
    assert isinstance(body["message"], str) and body["message"]
    if request_id is None:
        assert set(body) <= {"error", "message", "request_id"}
    else:
        assert body["request_id"] == request_id
    if status == 503:
        assert int(answer.get("Retry-After")) >= 1
    return body["message"]


# ---- fixtures ----------------------------------------------------------------------------------

def pytest_make_parametrize_id(val):
    """Bytes of any length make a short name: pytest puts it into the environment."""
    if isinstance(val, (bytes, str)):
        text = repr(val[:60])[1 + isinstance(val, bytes):-1]
        return re.sub(r"[^ -~]|[\[\]]", "_", text)[:40] + ("…" if len(text) > 40 else "")
    return None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.failed = True
        for stack in getattr(item, "stacks", []) if report.when != "teardown" else []:
            report.sections.append((f"sidecar in {stack.folder}", stack.sidecar.everything()))


def make_folder():
    """Short, since the path of a unix socket is at most 107 bytes; open to an unprivileged child."""
    folder = tempfile.mkdtemp(prefix="vx-")
    os.chmod(folder, 0o755)
    return folder


@pytest.fixture
def folder():
    folder = make_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class SharedStack:
    def __init__(self, changes=None):
        self.stack = None
        self.changes = changes or {}

    def get(self):
        if self.stack is None:
            self.stack = Stack(make_folder(), self.changes)
        return self.stack

    def drop(self):
        if self.stack is not None:
            stack, self.stack = self.stack, None
            try:
                stack.stop()
            finally:
                shutil.rmtree(stack.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shared_stack():
    shared = SharedStack()
    yield shared
    shared.drop()


@pytest.fixture
def stack(request, shared_stack):
    """The usual configuration. Tests of a module share the process, not connections; after a failure
    the next test gets a new one."""
    stack = shared_stack.get()
    stack.sidecar.mark_log()
    child = stack.sidecar.child()
    request.node.stacks = [stack]
    yield stack
    stack.tidy()
    if getattr(request.node, "failed", False) or stack.sidecar.child() != child:
        try:
            shared_stack.drop()
        except AssertionError:
            if not getattr(request.node, "failed", False):
                raise
    else:
        assert stack.sidecar.process.poll() is None, "the sidecar ended"


@pytest.fixture
def start(request):
    """start(section={key: value}, …): a sidecar of its own with these keys changed."""
    request.node.stacks = []

    def starter(with_velox=True, folder=None, process=None, **changes):
        """`process`: keywords of Sidecar."""
        stack = Stack(folder or make_folder(), changes, with_velox, **(process or {}))
        request.node.stacks.append(stack)
        return stack

    yield starter
    try:
        for stack in request.node.stacks:
            stack.stop()
    finally:
        for stack in request.node.stacks:
            stack.sidecar.kill()
            shutil.rmtree(stack.folder, ignore_errors=True)


@pytest.fixture
def responder(folder):
    """Address of a libfcgi application."""
    address = f"unix:{folder}/fcgx.sock"
    process = subprocess.Popen([find_program("fcgx-responder", "VELOX_TOOLS"), "--listen", address,
                                "--workers", "4"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"listening\n"
    yield address
    process.terminate()
    process.wait()
    process.stdout.close()


@pytest.fixture
def standin(folder):
    """URL of a Velox stand-in that writes below `folder`/built."""
    built = os.path.join(folder, "built")
    os.mkdir(built)
    process = subprocess.Popen([find_program("velox-standin", "VELOX_TOOLS"), "--listen", "127.0.0.1:0",
                                "--directory", built, "--size", "100000"], stdout=subprocess.PIPE)
    url = process.stdout.readline().decode().removeprefix("listening on ").strip()
    yield url
    process.terminate()
    assert process.wait() == 0
    process.stdout.close()
