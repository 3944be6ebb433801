# SPDX-License-Identifier: MIT
"""The servers of a benchmark: what answers, and the hops that stand before it.

Each listens on a unix socket in one temporary folder and has a configuration file of its own there,
so the machine's own servers are not met. Every hop has one thread (nginx one worker), so that their
CPU seconds can be compared.
"""
import getpass
import glob
import grp
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
START_SECONDS = 20
BIG_BYTES = 1 << 30
PHP_WORKERS = 4

STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

NGINX_CONF = """\
{load_module}
{user}
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log error;
events {{ worker_connections 16384; }}
stream {{
    server {{
        listen unix:{listen} backlog=4096;
        proxy_pass unix:{target};
    }}
}}
"""

HAPROXY_CONF = """\
global
    nbthread 1
    maxconn 8000
defaults
    mode tcp
    timeout connect 5s
    timeout client 10m
    timeout server 10m
frontend front
    bind unix@{listen} mode 666 backlog 4096
    default_backend back
backend back
    server target unix@{target}
"""

# server_url: so that every response head is read for X-Velox-Build. Nobody is asked there.
SIDECAR_INI = """\
[sidecar]
threads = 1
log_level = warn
{user}
[listen]
fastcgi = unix:{listen}
socket_mode = 0666
[php_fpm]
address = unix:{target}
[velox]
server_url = http://127.0.0.1:9
"""

PHP_FPM_CONF = """\
[global]
daemonize = no
error_log = {folder}/{name}.log
log_level = warning
[www]
{user}
listen = {listen}
listen.mode = 0666
listen.backlog = 4096
pm = static
pm.max_children = {workers}
pm.status_path = /fpm-status
"""


# The file goes out on its own, and by way of whatever stands behind config/nginx-server.conf.
NGINX_HTTP_CONF = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/{name}.pid;
error_log {folder}/{name}.log error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {folder}/{name}-body;
    fastcgi_temp_path {folder}/{name}-fastcgi;
    proxy_temp_path {folder}/{name}-proxy;
    uwsgi_temp_path {folder}/{name}-uwsgi;
    scgi_temp_path {folder}/{name}-scgi;
    server {{
        listen unix:{listen} backlog=4096;
        root {folder};
        include {sample};
    }}
}}
"""

# What nginx's own fastcgi_params has, as far as PHP-FPM needs it.
FASTCGI_PARAMS = """\
fastcgi_param QUERY_STRING $query_string;
fastcgi_param REQUEST_METHOD $request_method;
fastcgi_param CONTENT_TYPE $content_type;
fastcgi_param CONTENT_LENGTH $content_length;
fastcgi_param SCRIPT_NAME $fastcgi_script_name;
fastcgi_param REQUEST_URI $request_uri;
"""


class Missing(Exception):
    """A program is not installed; the message says which package has it."""


def find(name, package, *patterns):
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    for pattern in patterns:
        found = found or next(iter(sorted(glob.glob(pattern), reverse=True)), None)
    if not found:
        raise Missing(f"{name} is not installed: apt-get install --no-install-recommends {package}")
    return found


def unprivileged():
    """The user and group that servers started as root change to, or None."""
    if os.geteuid() != 0:
        return None
    for name in ("www-data", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, grp.getgrgid(entry.pw_gid).gr_name
    return getpass.getuser(), grp.getgrgid(os.getgid()).gr_name


def processes_below(pid):
    """pid and all its descendants."""
    children = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = Path(path).read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        own, fields = int(text.split(" ", 1)[0]), text.rsplit(")", 1)[1].split()
        children.setdefault(int(fields[1]), []).append(own)
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def thread_seconds(pid):
    """CPU seconds of a process's living threads; to the nanosecond where the kernel tells."""
    total = 0.0
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            total += int(Path(task, "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
        except (OSError, IndexError):
            fields = Path(task, "stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


class Server:
    """A running server: the socket it listens on and the processes that are its."""

    def __init__(self, process, listen):
        self.process = process
        self.listen = str(listen)
        self.pids = []

    def pin(self, cpu):
        for pid in self.pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(task), {cpu})

    def cpu_seconds(self):
        return sum(thread_seconds(pid) for pid in self.pids)

    def resident_kb(self):
        total = 0
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total

    def forget_peak(self):
        """peak_kb counts from here."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_kb(self):
        """Of the process with the most."""
        found = []
        for pid in self.pids:
            for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    found.append(int(line.split()[1]))
        return max(found)


class Servers:
    """Starts servers in a temporary folder; ends them and removes it on leaving."""

    def __init__(self, sidecar, tools):
        self.sidecar = str(sidecar)
        self.tools = Path(tools)
        self.running = []
        self.user = unprivileged()
        self.folder = None
        self.socket_count = 0

    def __enter__(self):
        # Under /tmp: the path of a unix socket ends at 107 bytes. Servers that give up root enter.
        self.folder = Path(tempfile.mkdtemp(prefix="vx-bench.", dir="/tmp"))
        self.folder.chmod(0o755)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return self

    def __exit__(self, *_):
        for server in reversed(self.running):
            for pid in processes_below(server.process.pid)[::-1]:
                try:
                    os.kill(pid, signal.SIGKILL if pid != server.process.pid else signal.SIGTERM)
                except ProcessLookupError:
                    pass
            try:
                server.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text, encoding="ascii")
        return path

    def new_socket(self, name):
        self.socket_count += 1
        return self.folder / f"{self.socket_count}-{name}.sock"

    def start(self, name, listen, command, **environment):
        log = open(self.folder / f"{name}.out", "ab")
        with log:
            process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=log, env={**os.environ, **environment})
        server = Server(process, listen)
        self.running.append(server)
        deadline = time.monotonic() + START_SECONDS
        while not accepts(listen):
            if process.poll() is not None or time.monotonic() > deadline:
                text = (self.folder / f"{name}.out").read_text(errors="replace")
                raise RuntimeError(f"{name} does not start:\n{text}")
            time.sleep(0.01)
        # nginx, PHP-FPM and the sidecar make their processes before they take connections, or
        # moments after.
        time.sleep(0.2)
        server.pids = processes_below(process.pid)
        return server

    # ---- what answers ---------------------------------------------------------------------------

    def cheap(self):
        listen = self.new_socket("cheap")
        return self.start("cheap", listen,
                          [self.tools / "cheap-responder", listen, str(BIG_BYTES)])

    def php(self):
        program = find("php-fpm", "php-fpm", "/usr/sbin/php-fpm*", "/usr/local/sbin/php-fpm*")
        listen = self.new_socket("php")
        user = "user = {}\ngroup = {}".format(*self.user) if self.user else ""
        conf = self.write("php-fpm.conf", PHP_FPM_CONF.format(
            folder=self.folder, name="php-fpm", user=user, listen=listen, workers=PHP_WORKERS))
        self.write("small.php", "<p><?php echo 'A small page.'; ?></p>\n")
        return self.start("php-fpm", listen, [program, "--nodaemonize", "--fpm-config", conf])

    def file_sender(self, path, how, send_buffer=None):
        """Sends the file at path to whoever connects; how: "sendfile" or "loop"."""
        listen = self.new_socket("file")
        command = [self.tools / "file-sender", listen, path, how]
        return self.start(f"file-{self.socket_count}", listen,
                          command + ([str(send_buffer)] if send_buffer else []))

    def sidecar_downloads(self, php, velox_url, wmem_max=None):
        """A sidecar that delivers files of the folder; wmem_max: as on a machine with that."""
        listen = self.new_socket("downloads")
        name = f"sidecar-{self.socket_count}"
        user = "user = {}\ngroup = {}".format(*self.user) if self.user else ""
        ini = self.write(f"{name}.ini", SIDECAR_INI.format(
            listen=listen, target=php, user=user).replace("http://127.0.0.1:9", velox_url) +
            f"[artifact]\nroot = {self.folder}\n")
        cap = {"LD_PRELOAD": str(self.tools / "cap-send-buffer.so"),
               "BENCH_WMEM_MAX": str(wmem_max)} if wmem_max else {}
        return self.start(name, listen, [self.sidecar, "-c", ini], **cap)

    def nginx_http(self, target):
        """Before target with the sample configuration, and a file server itself."""
        program = find("nginx", "nginx")
        listen = self.new_socket("http")
        name = f"http-{self.socket_count}"
        text = (TOP / "config" / "nginx-server.conf").read_text(encoding="ascii")
        sample = self.write(f"{name}.sample", text.replace(
            "unix:/run/velox-sidecar/fastcgi.sock", f"unix:{target}"))
        self.write("fastcgi_params", FASTCGI_PARAMS)
        conf = self.write(f"{name}.conf", NGINX_HTTP_CONF.format(
            folder=self.folder, name=name, listen=listen, sample=sample,
            user="user {} {};".format(*self.user) if self.user else ""))
        return self.start(name, listen, [program, "-e", self.folder / f"{name}.log", "-c", conf])

    # ---- hops -----------------------------------------------------------------------------------

    def nginx_stream(self, target):
        program = find("nginx", "nginx")
        built = subprocess.run([program, "-V"], capture_output=True, text=True, check=False).stderr
        is_inside = "--with-stream " in built + " " and "--with-stream=dynamic" not in built
        if not is_inside and not os.path.exists(STREAM_MODULE):
            raise Missing("nginx has no stream module: "
                          "apt-get install --no-install-recommends libnginx-mod-stream")
        listen = self.new_socket("nginx")
        name = f"nginx-{self.socket_count}"
        conf = self.write(f"{name}.conf", NGINX_CONF.format(
            folder=self.folder, name=name, listen=listen, target=target,
            load_module="" if is_inside else f"load_module {STREAM_MODULE};",
            user="user {} {};".format(*self.user) if self.user else ""))
        return self.start(name, listen, [program, "-e", self.folder / f"{name}.log", "-c", conf])

    def haproxy(self, target):
        program = find("haproxy", "haproxy")
        listen = self.new_socket("haproxy")
        name = f"haproxy-{self.socket_count}"
        conf = self.write(f"{name}.cfg", HAPROXY_CONF.format(listen=listen, target=target))
        return self.start(name, listen, [program, "-db", "-f", conf])

    def bare_relay(self, target):
        listen = self.new_socket("bare")
        return self.start(f"bare-{self.socket_count}", listen,
                          [self.tools / "bare-relay", listen, target])

    def sidecar_hop(self, target):
        listen = self.new_socket("sidecar")
        name = f"sidecar-{self.socket_count}"
        user = "user = {}\ngroup = {}".format(*self.user) if self.user else ""
        ini = self.write(f"{name}.ini",
                         SIDECAR_INI.format(listen=listen, target=target, user=user))
        return self.start(name, listen, [self.sidecar, "-c", ini])


def accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
