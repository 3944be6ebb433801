# SPDX-License-Identifier: MIT
"""The other web servers in front of one sidecar: lighttpd, Apache, Caddy, HAProxy, nginx over SCGI.

Each runs the very file of config/examples, in which only addresses and folders are replaced, and
once more with the address of PHP-FPM instead of the sidecar's, to compare with ("direct").
PHP-FPM speaks no SCGI: where the front does, "direct" is the same server's FastCGI.
"""
import http.client
import os
import re
from pathlib import Path
from typing import NamedTuple

from ports import unused_ports
from stack import CONFIG, Stack, find_nginx_file, find_program

EXAMPLES = CONFIG / "examples"
FASTCGI = "/run/velox-sidecar/fastcgi.sock"
SCGI = "/run/velox-sidecar/scgi.sock"

# Every server's own limit of a wait is this short, so a build that takes longer arrives only where
# the example raises the limit.
GENERAL_TIMEOUT_S = 8


class WebServer(NamedTuple):
    server: str
    example: str                      # config/examples/...
    direct: str                       # the example that is run against PHP-FPM
    kept: bool = False                # connections to the sidecar are kept
    tells_leaving: bool = False       # a client that leaves in mid-wait is seen behind the server
    streams: bool = True              # flushed output passes at once
    stderr_in: str = ""               # the log with PHP's error output; empty: nobody's
    most_chunked: int = 1 << 40       # bytes of an upload of unannounced length
    refuses_chunked: int = 0          # the status beyond them


FRONTS = {
    # lighttpd takes a half-closed client for one that still reads.
    "lighttpd": WebServer("lighttpd", "lighttpd-fastcgi.conf", "lighttpd-fastcgi.conf",
                          stderr_in="lighttpd"),
    "lighttpd_scgi": WebServer("lighttpd", "lighttpd-scgi.conf", "lighttpd-fastcgi.conf",
                               stderr_in="sidecar"),
    # Apache looks at the client only when it writes to it.
    "apache": WebServer("apache", "apache-fcgi.conf", "apache-fcgi.conf", kept=True,
                        stderr_in="apache"),
    # Flushing is an option of Apache's FastCGI only. mod_proxy_scgi must know a body's length.
    "apache_scgi": WebServer("apache", "apache-scgi.conf", "apache-fcgi.conf", streams=False,
                             stderr_in="sidecar", most_chunked=0, refuses_chunked=411),
    # Caddy's transport reads on for a client that has left; 2.6 logs no error output of PHP.
    "caddy": WebServer("caddy", "caddy.conf", "caddy.conf"),
    # HAProxy finds the length of a chunked body out where it fits its buffer, and refuses others.
    "haproxy": WebServer("haproxy", "haproxy.cfg", "haproxy.cfg", tells_leaving=True,
                         stderr_in="haproxy", most_chunked=8000, refuses_chunked=400),
    "haproxy_kept": WebServer("haproxy", "haproxy.cfg", "haproxy.cfg", kept=True,
                              stderr_in="haproxy", most_chunked=8000, refuses_chunked=400),
    "nginx_scgi": WebServer("nginx", "nginx-scgi.conf", "nginx-server.conf", tells_leaving=True,
                            stderr_in="sidecar"),
}

# What makes a front keep its connections, and what does not. PHP-FPM itself is never asked to: a
# kept connection would hold one of its workers.
KEEPING = {
    "apache": ("ProxySet enablereuse=on", "ProxySet disablereuse=on"),
    "haproxy": ("option keep-conn", "no option keep-conn"),
}


APACHE_MODULES = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules",
                  "/usr/local/apache2/modules")


def modules(*names):
    """LoadModule lines for those modules of Apache that are not built in."""
    folder = next(path for path in map(Path, APACHE_MODULES) if path.is_dir())
    return "".join(f"LoadModule {name}_module {folder}/mod_{name}.so\n" for name in names
                   if (folder / f"mod_{name}.so").exists())


class Fronts(Stack):
    """Ports: self.ports[name] and self.ports["direct-" + name], all on 127.0.0.1."""

    def __init__(self):
        super().__init__(php_workers=6)
        self.scgi_address = f"unix:{self.directory}/scgi.sock"
        self.ini = {"listen": {"scgi": self.scgi_address}}
        names = list(FRONTS) + [f"direct-{name}" for name in FRONTS]
        self.ports = dict(zip(names, unused_ports(len(names))))

    # ---- the examples, with addresses replaced ----

    def example(self, name, direct):
        """The path of an example's copy that talks to this stack."""
        front = FRONTS[name]
        file = front.direct if direct else front.example
        text = ((CONFIG if file == "nginx-server.conf" else EXAMPLES) / file).read_text()
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        text = "\n".join(lines) + "\n"
        old = SCGI if SCGI in text else FASTCGI
        new = self.scgi_address if old == SCGI else self.sidecar_address
        if direct:
            new = self.php_address
        assert old in text, f"{file} names no socket"
        text = text.replace(old, new.removeprefix("unix:")).replace("/srv/www", str(self.www))
        if front.server in KEEPING:
            on, off = KEEPING[front.server]
            wanted = on if front.kept and not direct else off
            text = text.replace(off, "KEEP").replace(on, "KEEP").replace("KEEP", wanted)
        if front.server == "haproxy":      # names that all sites share
            text = text.replace("velox-sidecar", f"{'direct-' if direct else ''}{name}")
            text = text.replace("timeout server 60s", f"timeout server {GENERAL_TIMEOUT_S}s")
        elif direct:
            text = text.replace("//velox-sidecar", "//direct")
        path = self.directory / f"{'direct-' if direct else ''}{name}-{file}"
        path.write_text(text)
        return path

    def sites(self, server):
        """(name, port, path of the configuration) of each site that `server` has."""
        for name, front in FRONTS.items():
            if front.server == server:
                yield name, self.ports[name], self.example(name, False)
                yield f"direct-{name}", self.ports[f"direct-{name}"], self.example(name, True)

    # ---- the servers ----

    def _lay_files(self):
        super()._lay_files()
        # What apache-scgi.conf asks for; PHP-FPM's workers stand in this folder.
        link = self.directory / "proxy:scgi:" / "velox-sidecar"
        link.parent.mkdir()
        link.symlink_to("/")

    def _start_nginx(self):
        """Stack calls this last: all fronts start here."""
        for start in (self._start_lighttpd, self._start_apache, self._start_caddy,
                      self._start_haproxy, self._start_nginx_scgi):
            start()
        for name, port in self.ports.items():
            server = FRONTS[name.removeprefix("direct-")].server
            process = next(process for known, process in self.processes if known == server)
            self._wait_for_socket(process, f"127.0.0.1:{port}", server)

    def _start_server(self, name, text, *command, **options):
        conf = self.directory / f"{name}-main.conf"
        conf.write_text(text)
        self._spawn(name, [conf if word == "CONF" else word for word in command], **options)

    def _start_lighttpd(self):
        user = (f'server.username = "{self.user}"\nserver.groupname = "{self.group}"\n'
                if self.as_root else "")
        blocks = "".join(f'$SERVER["socket"] == "127.0.0.1:{port}" {{ include "{path}" }}\n'
                         for _, port, path in self.sites("lighttpd"))
        self._start_server("lighttpd", f"""\
server.modules = ( "mod_fastcgi", "mod_scgi" )
server.document-root = "{self.www}"
server.upload-dirs = ( "{self.directory}/run" )
server.bind = "127.0.0.1"
server.port = {self.ports["lighttpd"]}
{user}{blocks}""", find_program("lighttpd", "/usr/sbin/lighttpd"), "-D", "-f", "CONF")

    def _start_apache(self):
        user = f"User {self.user}\nGroup {self.group}\n" if self.as_root else ""
        hosts = "".join(f"Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>\nInclude {path}\n"
                        "</VirtualHost>\n" for _, port, path in self.sites("apache"))
        self._start_server("apache", f"""\
ServerRoot {self.directory}
ServerName localhost
PidFile {self.directory}/apache.pid
ErrorLog {self.directory}/apache.error.log
DefaultRuntimeDir {self.directory}/run
{modules("mpm_event", "authz_core", "unixd", "proxy", "proxy_fcgi", "proxy_scgi")}
{user}Timeout {GENERAL_TIMEOUT_S}
StartServers 1
ThreadsPerChild 32
MaxRequestWorkers 64
DocumentRoot {self.www}
<Directory {self.www}>
Require all granted
</Directory>
{hosts}""", find_program("apache2", "/usr/sbin/apache2", "/usr/sbin/httpd"), "-DFOREGROUND",
                           "-f", "CONF")

    def _start_caddy(self):
        sites = "".join(f"http://127.0.0.1:{port} {{\nroot * {self.www}\nimport {path}\n}}\n"
                        for _, port, path in self.sites("caddy"))
        home = {"HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory / "run"),
                "XDG_CONFIG_HOME": str(self.directory / "run")}
        self._start_server("caddy", f"""\
{{
	admin off
	auto_https off
}}
{sites}""", find_program("caddy"), "run", "--config", "CONF", "--adapter", "caddyfile",
                           env={**os.environ, **home})

    def _start_haproxy(self):
        user = f"user {self.user}\ngroup {self.group}\n" if self.as_root else ""
        frontends, files = "", []
        for name, port, path in self.sites("haproxy"):
            frontends += f"frontend front-{name}\nbind 127.0.0.1:{port}\ndefault_backend {name}\n"
            files += ["-f", path]
        # The frontends stand behind the examples' `defaults`, which they are to have as well.
        (self.directory / "haproxy-frontends.cfg").write_text(frontends)
        self._start_server("haproxy", f"""\
global
log stderr format raw local0
{user}
""", find_program("haproxy", "/usr/sbin/haproxy"), "-db", "-f", "CONF", *files,
                           "-f", self.directory / "haproxy-frontends.cfg")

    def _start_nginx_scgi(self):
        for file in ("fastcgi_params", "scgi_params"):
            (self.directory / file).write_bytes(find_nginx_file(file).read_bytes())
        servers = "".join(f"server {{\nlisten 127.0.0.1:{port};\nroot {self.www};\n"
                          f"include {path};\n}}\n"
                          for _, port, path in self.sites("nginx"))
        folders = "".join(f"{kind}_temp_path {self.directory}/run/{kind};\n" for kind in
                          ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = f"user {self.user} {self.group};" if self.as_root else ""
        self._start_server("nginx", f"""\
daemon off;
{user}
worker_processes 1;
pid {self.directory}/nginx.pid;
error_log {self.directory}/nginx.error.log notice;
events {{ worker_connections 512; }}
http {{
access_log off;
client_max_body_size 0;
scgi_read_timeout {GENERAL_TIMEOUT_S}s;
{folders}
{servers}
}}
""", find_program("nginx", "/usr/sbin/nginx"), "-p", self.directory, "-c", "CONF")

    # ---- what tests ask for ----

    def connect(self, front="nginx_scgi", timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.ports[front], timeout=timeout)

    def log_of(self, server):
        return "".join(path.read_text(errors="replace") for path in
                       sorted(self.directory.glob(f"{server}*.log")))
