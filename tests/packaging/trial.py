# SPDX-License-Identifier: MIT
"""The part of scripts/package-trial that serves and asks: python3 trial.py ROOT DEB NEWER_DEB

ROOT is a fresh Debian with nothing of ours in it; apt and the service run in it by chroot. PHP-FPM and Velox are scripted, outside of
it but with their sockets and files in it. Prints a line for each thing that is right, and ends with 1 at the first that is not."""

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "daemon"))

import peers  # noqa: E402

WWW_DATA = 33                   # Debian's number, user and group
ARTIFACT_BYTES = 64 << 20
PROGRAM = "/usr/sbin/velox-sidecar"
SOCKET = "/run/velox-sidecar/fastcgi.sock"
LOG = "/var/log/velox-sidecar/velox-sidecar.log"


def say(text):
    print(f"right: {text}", flush=True)


def wait_for(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"in vain: {what}")
        time.sleep(0.01)
    return value


class Root:
    """The fresh Debian."""

    def __init__(self, folder):
        self.folder = folder

    def run(self, *command):
        done = subprocess.run(["chroot", self.folder, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace",
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                   "DEBIAN_FRONTEND": "noninteractive"})
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def path(self, path):
        return self.folder + path

    def read(self, path):
        with open(self.path(path)) as file:
            return file.read()

    def install(self, deb):
        shutil.copy(deb, self.path("/root/"))
        return self.run("apt-get", "-y", "-q", "install", "--no-install-recommends", f"/root/{os.path.basename(deb)}")

    def version(self):
        return self.run("dpkg-query", "-W", "-f=${Version}", "velox-sidecar")

    def named_velox(self):
        """Every file of this name but the packages that we brought, in what is no log."""
        found = self.run("find", "/", "-xdev", "-name", "*velox*", "-not", "-path", "/root/*")
        return set(found.split())


class Service:
    def __init__(self, root):
        self.root = root
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(root.path("/run/notice"))
        self.notices.settimeout(30)
        self.stderr = open(root.path("/root/stderr"), "w+")
        self.process = subprocess.Popen(["chroot", root.folder, PROGRAM], stderr=self.stderr,
                                        env={"PATH": "/usr/sbin:/usr/bin", "NOTIFY_SOCKET": "/run/notice"})
        self.wait_notice("READY=1")

    def wait_notice(self, text):
        while text not in self.notices.recv(4096).decode():
            pass

    def children(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            return {int(pid) for pid in children.read().split()}

    def program(self):
        return os.readlink(f"/proc/{self.process.pid}/exe")

    def user(self, pid):
        with open(f"/proc/{pid}/status") as status:
            return int(re.search(r"^Uid:\s+(\d+)", status.read(), re.M).group(1))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0


class Php:
    """Answers every page; /build asks for a build."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.fpm = peers.Fpm(f"unix:{path}", backlog=1024)
        os.chown(path, WWW_DATA, WWW_DATA)
        os.chmod(path, 0o660)
        self.fpm.serve(self.serve)

    @staticmethod
    def serve(worker):
        name = dict(worker.read_request().pairs)[b"REQUEST_URI"].decode()
        if name.startswith("/build"):
            worker.answer("X-Velox-Build: true\r\n\r\n" + json.dumps(
                {"rr_version": "v2025.1.2", "plugins": [{"module_name": "example.org/x", "tag": name[1:]}]}))
        else:
            worker.answer("Content-Type: text/plain\r\n\r\nhello")
        worker.wait_closed()


class Pages:
    """Ordinary pages, one after the other without a pause, some on kept connections, until stopped; what goes wrong is kept."""

    def __init__(self, address):
        self.address = address
        self.count = 0
        self.errors = []
        self.is_stopping = False
        self.threads = [threading.Thread(target=self.run, args=(keep,), daemon=True) for keep in (False, False, True)]
        for thread in self.threads:
            thread.start()

    def run(self, keep):
        front, served = None, 0
        while not self.is_stopping:
            if front is None:
                front, served = peers.Front(self.address), 0
            try:
                answer = self.ask(front, keep)
            except Exception as error:  # noqa: BLE001  every kind is a lost request
                # An idle kept connection may be closed by either side at any time: whoever finds it so takes another.
                if served == 0 or not isinstance(error, (ConnectionError, peers.PeerClosed)):
                    self.errors.append(f"{time.strftime('%X')} keep={keep}: {error!r}")
                front.close()
                front = None
                continue
            if answer.body != b"hello":
                self.errors.append(f"{time.strftime('%X')} keep={keep}: {answer.stdout!r}")
            self.count += 1
            served += 1
            if not keep:
                front.close()
                front = None

    @staticmethod
    def ask(front, keep):
        front.ask(keep=keep)
        answer = front.read_answer()
        if not answer.records:
            raise peers.PeerClosed("closed without a byte")
        assert answer.ended, f"cut after {answer.stdout!r}"
        return answer

    def stop(self):
        self.is_stopping = True
        for thread in self.threads:
            thread.join()


class Download(threading.Thread):
    """A build whose file is read slowly until `hurry` is set. `answer` is the whole of it."""

    def __init__(self, address, name):
        super().__init__(daemon=True)
        self.front = peers.Front(address)
        self.front.ask(peers.environment(uri=f"/{name}"))
        self.began = threading.Event()
        self.hurry = threading.Event()
        self.digest = hashlib.sha256()
        self.error = None
        self.length = 0
        self.head = b""
        self.start()

    def run(self):
        try:
            self.front.connection.settimeout(120)
            answer = self.front.read_answer(sink=self.take)
            self.head = answer.head
            assert answer.ended, "no END_REQUEST"
        except Exception as error:  # noqa: BLE001
            self.error = error

    def take(self, content):
        self.digest.update(content)
        self.length += len(content)
        self.began.set()
        if not self.hurry.is_set():
            self.hurry.wait(0.2)

    def check(self, digest):
        self.hurry.set()
        self.join(120)
        assert self.error is None and b"200 OK" in self.head, (self.error, self.head)
        assert self.digest.hexdigest() == digest and self.length == ARTIFACT_BYTES, self.length


def configure(root, velox_url):
    """The administrator's part."""
    path = root.path("/etc/velox-sidecar/velox-sidecar.ini")
    with open(path) as file:
        ini = file.read()
    assert "\nuser = velox-sidecar\n" in ini
    ini = ini.replace("\n;server_url =\n", f"\nserver_url = {velox_url}\n").replace("\n;log_file = stderr\n", f"\nlog_file = {LOG}\n")
    with open(path, "w") as file:
        file.write(ini)
    assert "configuration is valid\n" in root.run(PROGRAM, "-t"), root.run(PROGRAM, "-t")


def connect_as_www_data(path):
    """In a process of its own; nginx is another user than ours."""
    subprocess.run([sys.executable, "-c", "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])", path],
                   user=WWW_DATA, group=WWW_DATA, extra_groups=[], check=True)


def main():
    root = Root(sys.argv[1])
    deb, newer = sys.argv[2:]

    root.install(deb)
    assert "velox-sidecar" in root.run("id", "velox-sidecar") and "www-data" in root.run("id", "-Gn", "velox-sidecar")
    assert not root.run("dpkg", "--verify", "velox-sidecar")
    say(f"{root.version()} is installed by apt, with its user in the group www-data")

    php = Php(root.path("/run/php/php-fpm.sock"))
    velox = peers.Velox()
    content = os.urandom(1 << 20) * (ARTIFACT_BYTES >> 20)
    digest = hashlib.sha256(content).hexdigest()
    with open(root.path("/tmp/rr"), "wb") as file:
        file.write(content)
    configure(root, velox.url)
    service = Service(root)
    address = f"unix:{root.path(SOCKET)}"
    user = int(root.run("id", "-u", "velox-sidecar"))
    for child in service.children():
        assert service.user(child) == user
    connect_as_www_data(root.path(SOCKET))
    say("it starts with only [velox] server_url set; its child has no rights, and www-data may connect")

    pages = Pages(address)
    download = Download(address, "build-download")
    velox.calls.get(timeout=10).answer(json.dumps({"path": "/tmp/rr"}))
    assert download.began.wait(20)
    building = Download(address, "build-waiting")
    call = velox.calls.get(timeout=10)
    old, pid = service.children(), service.process.pid
    before = pages.count
    wait_for(lambda: pages.count > before + 200, "ordinary pages")
    say("it serves pages and a build")

    root.install(newer)
    assert root.version().endswith("+trial1"), root.version()
    wait_for(lambda: "(deleted)" not in service.program(), "the new program in the old process")
    wait_for(lambda: service.children() - old, "a new child")
    after = pages.count
    wait_for(lambda: pages.count > after + 200, "ordinary pages")
    assert service.process.poll() is None and service.process.pid == pid
    call.answer(json.dumps({"path": "/tmp/rr"}))
    building.check(digest)
    download.check(digest)
    wait_for(lambda: not service.children() & old, "the end of the old child")
    again = Download(address, "build-again")
    velox.calls.get(timeout=10).answer(json.dumps({"path": "/tmp/rr"}))
    again.check(digest)
    pages.stop()
    assert not pages.errors, pages.errors[:5]
    connect_as_www_data(root.path(SOCKET))
    say(f"upgrade to {root.version()}: of {pages.count} pages, a build and a slow download none was lost, the process is the same")

    # What logrotate's file does, as it does it where there is no systemd.
    os.rename(root.path(LOG), root.path(LOG) + ".1")
    service.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: os.path.exists(root.path(LOG)), "the new log file")
    say("the log is opened anew")

    service.stop()
    say("it stops with exit code 0")
    php.fpm.close()
    root.run("apt-get", "-y", "-q", "purge", "velox-sidecar")
    assert root.named_velox() == set(), root.named_velox()
    assert "velox-sidecar:" in root.read("/etc/passwd")
    say("purged: nothing is left but the user")


try:
    main()
except Exception:  # noqa: BLE001
    print(f"WRONG: {traceback.format_exc()}", flush=True)
    for name in ("/root/stderr", LOG):
        try:
            with open(sys.argv[1] + name, errors="replace") as log:
                print(f"--- {name}", *log.read().splitlines()[-20:], sep="\n", flush=True)
        except FileNotFoundError:
            pass
    # Threads may still wait for what does not come.
    os._exit(1)
os._exit(0)
