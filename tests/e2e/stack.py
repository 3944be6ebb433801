# SPDX-License-Identifier: MIT
"""One stack of real servers: nginx, velox-sidecar, PHP-FPM and the Velox stand-in.

Everything lives in one temporary folder and listens on unix sockets in it (the stand-in on a free
port), so several stacks and the machine's own servers do not meet. nginx and PHP-FPM run the files
of config/, in which only the addresses are replaced.
"""
import glob
import grp
import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from ports import unused_port, unused_ports

SOURCE = Path(__file__).resolve().parents[2]
CONFIG = SOURCE / "config"
WWW = Path(__file__).resolve().parent / "www"

SIDECAR_ADDRESS = "unix:/run/velox-sidecar/fastcgi.sock"
START_SECONDS = 20
STOP_SECONDS = 20

# How nginx may talk to what is behind it: name, kept connections, buffering.
FRONTS = {
    "plain": (False, True),
    "kept": (True, True),
    "unbuffered": (False, False),
    "kept_unbuffered": (True, False),
}


def find_program(name, *patterns):
    found = shutil.which(name)
    if found:
        return found
    for pattern in patterns:
        matches = sorted(glob.glob(pattern))
        if matches:
            return matches[-1]
    raise RuntimeError(f"{name} is not installed; scripts/test installs it")


def program_from(variable, default):
    path = Path(os.environ.get(variable, default))
    if not path.exists():
        raise RuntimeError(f"{path} does not exist; set {variable} or run scripts/test")
    return path


def wait_until(condition, what, seconds=START_SECONDS):
    """Polls; only for what has no event to wait for, such as another process's start."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.005)


def can_connect(address):
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address.removeprefix("unix:"))
        else:
            host, port = address.rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    """A complete answer: status, the headers in order, the body."""

    def __init__(self, response):
        self.status = response.status
        self.reason = response.reason
        self.headers = response.getheaders()
        self.body = response.read()

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self):
        return json.loads(self.body)


class Stack:
    def __init__(self, php_workers=4, ini=None, tcp=False, accel=False, status=False, remote=False, cached=False):
        """`ini`: sections and keys for the sidecar's file, on top of what the stack itself sets.
        `tcp`: nginx, the sidecar and PHP-FPM talk over loopback instead of unix sockets.
        `accel`: nginx sends the built files itself, by config/nginx-accel.conf.
        `status`: status pages by config/nginx-status.conf, and PHP-FPM's own at /php-status; nginx's
        server "plain" listens at 127.0.0.1:http_port, too."""
        self.accel = accel
        # `remote`: to the sidecar the built files are on another machine, where nginx serves them.
        self.remote_port = unused_port() if remote else None
        self.status = status
        self.processes = []
        self.php_workers = php_workers
        self.ini = ini or {}
        if accel:
            self.ini.setdefault("artifact", {})["delivery"] = "x-accel-redirect"
        if status:
            self.ini.setdefault("sidecar", {}).update(status_path="/velox-status",
                                                      ping_path="/velox-ping")
            self.http_port = unused_port()
        self.as_root = os.geteuid() == 0
        self.user = "www-data" if self.as_root else pwd.getpwuid(os.geteuid()).pw_name
        self.group = "www-data" if self.as_root else grp.getgrgid(os.getegid()).gr_name
        self.directory = Path(tempfile.mkdtemp(prefix="e2e-"))
        self.directory.chmod(0o755)
        self.www = self.directory / "www"
        self.artifacts = self.directory / "artifacts"
        self.sync = self.directory / "sync"
        if tcp:
            self.sidecar_address, self.php_address = (f"127.0.0.1:{port}" for port in unused_ports(2))
        else:
            self.sidecar_address = f"unix:{self.directory}/sidecar.sock"
            self.php_address = f"unix:{self.directory}/php.sock"
        self.sidecar_log = self.directory / "sidecar.log"
        if remote:
            self.ini.setdefault("artifact", {}).update(
                root=f"{self.directory}/not-here", path_map=f"{self.artifacts}={self.directory}/not-here",
                artifact_url=f"http://127.0.0.1:{self.remote_port}/files{{path}}")

        if cached:
            (self.directory / "kept").mkdir(mode=0o700)
            if self.as_root:
                shutil.chown(self.directory / "kept", self.user, self.group)
            self.ini.setdefault("cache", {}).update(enabled="yes", directory=f"{self.directory}/kept")

    # ---- start and stop ----

    def start(self):
        try:
            self._lay_files()
            self._start_php()
            self._start_standin()
            self._start_sidecar()
            self._start_nginx()
        except Exception:
            print(self.logs())
            self.stop(check=False)
            raise
        return self

    def _lay_files(self):
        shutil.copytree(WWW, self.www)
        shutil.copy(CONFIG / "examples" / "build.php", self.www / "build.php")
        for folder in (self.artifacts, self.sync, self.directory / "run"):
            folder.mkdir()
            if self.as_root:
                shutil.chown(folder, self.user, self.group)

    def _spawn(self, name, command, **options):
        log = open(self.directory / f"{name}.log", "ab")
        process = subprocess.Popen(
            [str(word) for word in command], cwd=self.directory, stdin=subprocess.DEVNULL,
            stderr=log, stdout=options.pop("stdout", log), start_new_session=True, **options)
        log.close()
        self.processes.append((name, process))
        return process

    def _wait_for_socket(self, process, address, name):
        def ready():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}")
            return can_connect(address)
        wait_until(ready, f"{name} listens")

    def _start_php(self):
        (self.directory / "php-fpm.conf").write_text(f"""\
[global]
daemonize = no
error_log = {self.directory}/php-fpm.error.log
include = {CONFIG}/php-fpm-pool.conf

[www]
listen = {self.php_address.removeprefix("unix:")}
listen.owner = {self.user}
listen.group = {self.group}
user = {self.user}
group = {self.group}
pm.max_children = {self.php_workers}
env[E2E_SYNC] = {self.sync}
php_admin_value[sys_temp_dir] = {self.directory}/run
php_admin_value[post_max_size] = 8G
php_admin_value[memory_limit] = 512M
{"pm.status_path = /php-status" if self.status else ""}
""")
        command = [find_program("php-fpm", "/usr/sbin/php-fpm*", "/usr/local/sbin/php-fpm*"),
                   "--nodaemonize", "--fpm-config", self.directory / "php-fpm.conf"]
        if self.as_root:
            command.append("--allow-to-run-as-root")
        process = self._spawn("php-fpm", command)
        self._wait_for_socket(process, self.php_address, "PHP-FPM")

    def _start_standin(self):
        tools = program_from("VELOX_TOOLS", SOURCE / "tests" / "tools")
        command = [tools / "velox-standin", "--listen", "127.0.0.1:0",
                   "--directory", self.artifacts]
        process = self._spawn("velox-standin", command, stdout=subprocess.PIPE)
        line = process.stdout.readline().decode()
        if not line.startswith("listening on http://"):
            raise RuntimeError(f"velox-standin said {line!r}")
        self.velox_url = line.split()[-1]

    def _write_ini(self):
        sections = {
            "sidecar": {"log_level": "debug"},
            "listen": {"fastcgi": self.sidecar_address},
            "php_fpm": {"address": self.php_address},
            "velox": {"server_url": self.velox_url},
            "retry": {"initial_delay": "50ms", "max_delay": "200ms"},
            "artifact": {"root": str(self.artifacts)},
        }
        if self.as_root:
            sections["sidecar"].update(user=self.user, group=self.group)
        for section, keys in self.ini.items():
            sections.setdefault(section, {}).update(keys)
        text = ""
        for section, keys in sections.items():
            text += f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        path = self.directory / "velox-sidecar.ini"
        path.write_text(text)
        return path

    def _start_sidecar(self):
        binary = program_from("VELOX_SIDECAR", SOURCE / "velox-sidecar")
        self.sidecar = self._spawn("sidecar", [binary, "-c", self._write_ini()])
        self._wait_for_socket(self.sidecar, self.sidecar_address, "velox-sidecar")

    def _server(self, name, address, kept, buffered):
        """A server block around config/nginx-server.conf, in which only the address is replaced."""
        text = (CONFIG / "nginx-server.conf").read_text()
        assert text.count(SIDECAR_ADDRESS) == 2
        path = self.directory / f"nginx-{name}.conf"
        path.write_text(text.replace(SIDECAR_ADDRESS, address))
        lines = [f"listen unix:{self.directory}/nginx-{name}.sock;", f"root {self.www};"]
        if kept:
            lines.append("fastcgi_keep_conn on;")
        if not buffered:
            lines += ["fastcgi_buffering off;", "fastcgi_request_buffering off;"]
        if self.accel:
            lines.append(self._accel())
        if self.status:
            lines += self._status(name, address)
        return "server {\n" + "\n".join(lines) + f"\ninclude {path};\n}}\n"

    def _status(self, name, address):
        """config/nginx-status.conf, in which only the address is replaced."""
        text = (CONFIG / "nginx-status.conf").read_text()
        assert text.count(SIDECAR_ADDRESS) == 2
        lines = [text.replace(SIDECAR_ADDRESS, address), "location = /php-status {",
                 "include fastcgi_params;",
                 "fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;",
                 f"fastcgi_pass {address};", "}"]
        if name == "plain":
            lines.append(f"listen 127.0.0.1:{self.http_port};")
        return lines

    def _accel(self):
        """config/nginx-accel.conf, in which only the root is replaced."""
        text = (CONFIG / "nginx-accel.conf").read_text()
        assert text.count(" alias /tmp/;") == 1 and text.count(" from=/tmp/;") == 1
        return text.replace(" alias /tmp/;", f" alias {self.artifacts}/;").replace(
            " from=/tmp/;", f" from={self.artifacts}/;")

    def _remote(self):
        """The other machine's web server."""
        if self.remote_port is None:
            return ""
        return f"server {{ listen 127.0.0.1:{self.remote_port}; location /files/ {{ alias /; }} }}\n"

    def _start_nginx(self):
        shutil.copy(find_nginx_file("fastcgi_params"), self.directory / "fastcgi_params")
        upstream = (CONFIG / "nginx-upstream.conf").read_text()
        assert upstream.count(SIDECAR_ADDRESS) == 1
        servers = upstream.replace(SIDECAR_ADDRESS, self.sidecar_address) + self._remote()
        for name, (kept, buffered) in FRONTS.items():
            address = "velox_sidecar" if kept else self.sidecar_address
            servers += self._server(name, address, kept, buffered)
            servers += self._server(f"direct-{name}", self.php_address, False, buffered)
        folders = "".join(f"{kind}_temp_path {self.directory}/run/{kind};\n" for kind in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = f"user {self.user} {self.group};" if self.as_root else ""
        conf = self.directory / "nginx.conf"
        conf.write_text(f"""\
daemon off;
{user}
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/nginx.error.log notice;
events {{ worker_connections 512; }}
http {{
access_log off;
client_max_body_size 0;
{folders}
{servers}
}}
""")
        process = self._spawn("nginx", [find_program("nginx", "/usr/sbin/nginx"),
                                        "-p", self.directory, "-c", conf])
        self._wait_for_socket(process, f"unix:{self.directory}/nginx-plain.sock", "nginx")
        if self.status:
            self._wait_for_socket(process, f"127.0.0.1:{self.http_port}", "nginx")

    def stop(self, check=True):
        codes = {}
        for name, process in reversed(self.processes):
            process.terminate()
            try:
                codes[name] = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                codes[name] = "still running after SIGTERM"
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            if process.stdout:
                process.stdout.close()
        text = self.logs()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.processes = []
        if check and codes.get("sidecar") != 0:
            raise AssertionError(f"velox-sidecar after SIGTERM: {codes.get('sidecar')}\n{text}")

    def logs(self):
        text = ""
        for path in sorted(self.directory.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-40:]
            text += f"--- {path.name}\n" + "".join(f"{line[:400]}\n" for line in lines)
        return text

    # ---- what tests ask for ----

    def connect(self, front="plain", timeout=60):
        return UnixConnection(self.directory / f"nginx-{front}.sock", timeout)

    def request(self, method, target, body=None, headers=None, front="plain", **options):
        connection = self.connect(front)
        try:
            connection.request(method, target, body, headers or {}, **options)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, target, headers=None, front="plain"):
        return self.request("GET", target, headers=headers, front=front)

    def send(self, target, front="plain"):
        """Sends a GET and gives the connection without waiting for the answer."""
        connection = self.connect(front)
        connection.request("GET", target)
        return connection

    def sidecar_child(self):
        """The pid of the process that does the work."""
        children = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z" and int(fields[1]) == self.sidecar.pid:
                children.append(int(stat.parent.name))
        return max(children, default=None)

    def builds(self):
        """What the stand-in has received, in order."""
        host, port = self.velox_url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request("GET", "/standin/log")
            return json.loads(connection.getresponse().read())["builds"]
        finally:
            connection.close()

    def builds_of(self, request_id):
        return [build for build in self.builds() if build["request_id"] == request_id]

    def build_of(self, request_id):
        builds = self.builds_of(request_id)
        assert len(builds) == 1, f"{len(builds)} builds of {request_id}"
        return builds[0]

    def flag(self, name):
        """A file that a page of tests/e2e/www waits for or makes."""
        return self.sync / name


def find_nginx_file(name):
    for folder in ("/etc/nginx", "/usr/local/nginx/conf"):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise RuntimeError(f"nginx's {name} is not installed")
