# SPDX-License-Identifier: MIT
"""velox-sidecar doctor: one line a finding, and what to do; exit 1 where one is FAIL."""

import os
import pwd
import re
import socket
import subprocess
import threading

import pytest

import peers
from conftest import TOP, ini_text, sidecar_command

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
PHP_ANSWER = peers.record(peers.GET_VALUES_RESULT, 0, peers.pair("FCGI_MAX_CONNS", "5"))


class Listener:
    """Answers each connection with fixed bytes after its first read; without any it stays silent."""

    def __init__(self, address, answer):
        self.answer = answer
        self.got = []
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(address[5:])
            os.chmod(address[5:], 0o666)
        else:
            self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.listen(5)
        self.held = []
        threading.Thread(target=self.serve, daemon=True).start()

    @property
    def port(self):
        return self.socket.getsockname()[1]

    def serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.got.append(connection.recv(65536))
            if self.answer is None:
                self.held.append(connection)
                continue
            connection.sendall(self.answer)
            connection.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.held:
            connection.close()


class Doctor:
    def __init__(self, folder):
        self.folder = folder
        self.listeners = []
        os.makedirs(f"{folder}/root")
        self.sections = {
            "listen": {"fastcgi": f"unix:{folder}/front.sock"},
            "php_fpm": {"address": f"unix:{folder}/php.sock", "spool_directory": folder},
            "velox": {}, "artifact": {"root": f"{folder}/root"}}

    def listen(self, address, answer):
        self.listeners.append(Listener(address, answer))
        return self.listeners[-1]

    def php(self, answer=PHP_ANSWER):
        return self.listen(f"unix:{self.folder}/php.sock", answer)

    def velox(self, status="400 Bad Request", body='{"code":"invalid_argument","message":"rr_version"}'):
        listener = self.listen("tcp", f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n"
                                      f"Content-Type: application/json\r\n\r\n{body}".encode())
        self.sections["velox"]["server_url"] = f"http://127.0.0.1:{listener.port}"
        return listener

    def run(self, *options, nginx=None, code=None):
        """Its lines, as (finding, rest)."""
        path = f"{self.folder}/ini"
        with open(path, "w") as config:
            config.write(ini_text(self.sections))
        if nginx is not None:
            with open(f"{self.folder}/nginx", "w") as dump:
                dump.write(nginx)
            options += ("--nginx", f"{self.folder}/nginx")
        done = subprocess.run(sidecar_command() + ["doctor", "-c", path, *options], capture_output=True,
                              text=True, timeout=60)
        self.stderr = done.stderr
        lines = [(line[:5].strip(), line[6:]) for line in done.stdout.splitlines()]
        assert all(finding in ("ok", "warn", "FAIL") and ": " in rest for finding, rest in lines), done.stdout
        expected = 1 if any(finding == "FAIL" for finding, _ in lines) else 0
        assert done.returncode == expected, done
        return lines

    def find(self, lines, start):
        found = [(finding, rest) for finding, rest in lines if rest.startswith(start)]
        assert found, (start, lines)
        return found[0]


@pytest.fixture
def doctor(folder):
    doctor = Doctor(folder)
    yield doctor
    for listener in doctor.listeners:
        listener.close()


def test_all_is_well(doctor):
    php, velox = doctor.php(), doctor.velox()
    lines = doctor.run()
    assert [line for line in lines if line[0] == "FAIL"] == []
    for start in ("PHP-FPM at unix:", "Velox at http:", "artifact root", "spool_directory", "file limit"):
        assert doctor.find(lines, start)[0] in ("ok", "warn")
    assert doctor.find(lines, "PHP-FPM")[0] == "ok"
    assert doctor.find(lines, "Velox")[0] == "ok"
    # Nothing was begun: PHP-FPM saw no request, Velox an empty one.
    assert php.got[0][1] == peers.GET_VALUES
    assert b"POST " in velox.got[0] and velox.got[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("answer, finding, told", [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "FAIL", "does not speak FastCGI"),
    (b"", "FAIL", "does not speak FastCGI"),
    (None, "warn", "no worker answers"),
])
def test_what_listens_is_no_php_fpm(doctor, answer, finding, told):
    doctor.php(answer)
    line = doctor.find(doctor.run(), "PHP-FPM")
    assert line[0] == finding and told in line[1]


def test_nobody_answers(doctor):
    doctor.sections["velox"]["server_url"] = "http://127.0.0.1:1"
    lines = doctor.run()
    php = doctor.find(lines, "PHP-FPM")
    assert php[0] == "FAIL" and "no such socket" in php[1] and "[php_fpm] address" in php[1]
    velox = doctor.find(lines, "Velox")
    assert velox[0] == "FAIL" and "cannot connect" in velox[1] and "server_url" in velox[1]


@pytest.mark.parametrize("status, body, finding, told", [
    ("401 Unauthorized", "", "FAIL", "token_file"),
    ("404 Not Found", "<html>", "FAIL", "build_path"),
    ("200 OK", "<html>", "FAIL", "build_path"),
    ("503 Service Unavailable", "", "warn", "503"),
    ("500 Internal Server Error", '{"code":"internal","message":"no"}', "ok", "answers"),
    ("200 OK", '{"success":false,"error":"rr_version is required","code":"BAD"}', "ok", "answers"),
])
def test_answers_of_velox(doctor, status, body, finding, told):
    doctor.velox(status, body)
    line = doctor.find(doctor.run(), "Velox")
    assert line[0] == finding and told in line[1], line


def test_token_that_cannot_be_read(doctor):
    doctor.velox()
    doctor.sections["velox"]["token_file"] = f"{doctor.folder}/none"
    lines = doctor.run()
    assert doctor.find(lines, "Velox")[0] == "FAIL"
    assert f"{doctor.folder}/none" in doctor.stderr


def test_velox_is_not_configured(doctor):
    doctor.php()
    line = doctor.find(doctor.run(), "Velox")
    assert line[0] == "warn" and "server_url" in line[1]


def test_root_that_is_missing(doctor):
    doctor.velox()
    doctor.sections["artifact"]["root"] = f"{doctor.folder}/none"
    line = doctor.find(doctor.run(), f"artifact root {doctor.folder}/none")
    assert line[0] == "FAIL" and "[artifact] root" in line[1] and "path_map" in line[1]


@AS_ROOT
def test_rights_are_those_of_the_service(doctor):
    doctor.php()
    os.chmod(f"{doctor.folder}/php.sock", 0o600)
    os.chmod(f"{doctor.folder}/root", 0o700)
    doctor.velox()
    doctor.sections["sidecar"] = {"user": "nobody"}
    doctor.sections["php_fpm"]["spool_directory"] = f"{doctor.folder}/root"
    lines = doctor.run()
    php = doctor.find(lines, "PHP-FPM")
    assert php[0] == "FAIL" and "permission denied" in php[1] and "group root" in php[1]
    assert doctor.find(lines, "artifact root")[0] == "FAIL"
    assert doctor.find(lines, "spool_directory")[0] == "FAIL"


def test_mistake_in_the_configuration(doctor):
    doctor.sections["velox"]["build_timeut"] = "5m"
    lines = doctor.run()
    assert [finding for finding, _ in lines] == ["FAIL"]
    assert "build_timeut" in doctor.stderr


# ---- nginx -------------------------------------------------------------------------------------

def nginx_dump(doctor, location, around=""):
    return ("nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n"
            "# configuration file /etc/nginx/nginx.conf:\n"
            f"events {{ }}\nhttp {{\n upstream app {{ server unix:{doctor.folder}/front.sock; }}\n"
            " include sites-enabled/*;\n}\n"
            "# configuration file /etc/nginx/sites-enabled/site:\n"
            f"server {{\n {around}\n location = /build.php {{\n  {location}\n }}\n}}\n")


GOOD = ("fastcgi_read_timeout 330s; fastcgi_buffer_size 64k; fastcgi_buffers 16 64k; fastcgi_max_temp_file_size 0; ")


@pytest.mark.parametrize("location, around, finding, told", [
    (GOOD, "", "ok", "330 s"),
    ("", GOOD, "ok", "330 s"),
    (GOOD.replace("330s", "'5m 30s'"), "", "ok", "330 s"),
    ("", "", "warn", "fastcgi_read_timeout is 60 s (nginx's default)"),
    (GOOD.replace("330s", "300s"), "", "warn", "fastcgi_read_timeout 330s"),
    (GOOD + "fastcgi_ignore_client_abort on;", "", "warn", "fastcgi_ignore_client_abort"),
    (GOOD, "fastcgi_ignore_client_abort on;", "warn", "fastcgi_ignore_client_abort"),
    (GOOD + "fastcgi_ignore_client_abort off;", "fastcgi_ignore_client_abort on;", "ok", ""),
    (GOOD + "fastcgi_cache zone;", "", "warn", "fastcgi_cache"),
    (GOOD + "fastcgi_cache off;", "fastcgi_cache zone;", "ok", ""),
    (GOOD + "fastcgi_intercept_errors on;", "", "warn", "fastcgi_intercept_errors"),
    (GOOD.replace("16 64k", "8 4k"), "", "warn", "fastcgi_buffers 16 64k"),
    (GOOD.replace("max_temp_file_size 0", "max_temp_file_size 1m"), "", "warn", "fastcgi_max_temp_file_size 0"),
    (GOOD.replace("64k; fastcgi_buffers", "4k; fastcgi_buffers") + "fastcgi_buffering off;", "", "warn",
     "fastcgi_buffer_size 256k"),
])
@pytest.mark.parametrize("target", ["unix:{}/front.sock", "app"])
def test_nginx_locations(doctor, location, around, finding, told, target):
    pass_line = f"\n  fastcgi_pass {target.format(doctor.folder)};"
    lines = [line for line in doctor.run(nginx=nginx_dump(doctor, location + pass_line, around))
             if "/etc/nginx" in line[1]]
    assert all("location = /build.php (/etc/nginx/sites-enabled/site:" in rest for _, rest in lines), lines
    worst = [line for line in lines if line[0] != "ok"]
    if finding == "ok":
        assert worst == [] and told in lines[0][1]
    else:
        assert any(told in rest for _, rest in worst), lines


def test_pages_of_our_own_need_no_time(doctor):
    doctor.sections["sidecar"] = {"status_path": "/velox-status", "ping_path": "/build.php"}
    lines = doctor.run(nginx=nginx_dump(doctor, "fastcgi_pass app;"))
    assert [line for line in lines if "location = /build.php" in line[1]] == [
        ("ok", "location = /build.php (/etc/nginx/sites-enabled/site:4): our own page")]


def test_service_that_does_not_run(doctor):
    finding, told = doctor.find(doctor.run(), "our socket unix:")
    assert finding == "warn" and "systemctl start velox-sidecar" in told
    # A file that was left behind is no service either.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{doctor.folder}/front.sock")
    finding, told = doctor.find(doctor.run(), "our socket unix:")
    assert finding == "warn" and "nobody listens" in told


def test_service_that_runs(doctor):
    service = doctor.listen(f"unix:{doctor.folder}/front.sock", b"")
    assert doctor.find(doctor.run(), "our socket unix:") == (
        "ok", f"our socket unix:{doctor.folder}/front.sock: the service listens")
    assert service.got == []


@AS_ROOT
@pytest.mark.parametrize("mode, group, finding, told", [
    (0o666, 0, "ok", "nginx's user nobody may connect"),
    (0o660, None, "ok", "nginx's user nobody may connect"),
    (0o660, 0, "FAIL", "nginx's user nobody may not connect (group root, mode 0660): set [listen] socket_group"),
])
def test_user_of_nginx(doctor, mode, group, finding, told):
    os.chmod(doctor.folder, 0o755)
    path = f"{doctor.folder}/front.sock"
    service = doctor.listen(f"unix:{path}", b"")
    os.chown(path, 0, pwd.getpwnam("nobody").pw_gid if group is None else group)
    os.chmod(path, mode)
    dump = nginx_dump(doctor, "fastcgi_pass app;").replace("events {", "user nobody;\nevents {")
    found = [line for line in doctor.run(nginx=dump) if "nginx's user" in line[1]]
    assert len(found) == 1 and found[0][0] == finding and told in found[0][1], found
    assert service.got == []


def test_nginx_passes_to_somebody_else(doctor):
    lines = doctor.run(nginx=nginx_dump(doctor, "fastcgi_pass unix:/run/php/php-fpm.sock;"))
    line = doctor.find(lines, "nginx")
    assert line[0] == "warn" and f"fastcgi_pass unix:{doctor.folder}/front.sock" in line[1]


@pytest.mark.parametrize("change, finding, told", [
    (lambda text: text, "ok", "sends what lies below"),
    (lambda text: text.replace("internal;", ""), "FAIL", "add internal;"),
    (lambda text: text.replace("alias ", "alias /srv"), "FAIL", "set alias "),
    (lambda text: re.sub(" alias ([^;]*)/;", r" alias \1;", text), "FAIL", "set alias "),
    (lambda text: text.replace("alias ", "root "), "FAIL", "set alias "),
    (lambda text: re.sub("disable_symlinks [^;]*;", "", text), "warn", "disable_symlinks on from="),
    (lambda text: text.replace("location /velox", "location ^~ /velox"), "ok", "sends what lies below"),
    (lambda text: text.replace("/velox-artifacts/", "/other/"), "FAIL", "there is no location /velox-artifacts/"),
])
def test_nginx_location_of_the_files(doctor, change, finding, told):
    doctor.sections["artifact"]["delivery"] = "x-accel-redirect"
    with open(os.path.join(TOP, "config", "nginx-accel.conf")) as sample:
        location = sample.read().replace("/tmp/;", f"{doctor.folder}/root/;")
    pass_line = f"{GOOD} fastcgi_pass unix:{doctor.folder}/front.sock;"
    lines = doctor.run(nginx=nginx_dump(doctor, pass_line, change(location)))
    assert [line for line in lines if line[0] == finding and told in line[1]
            and line[1].startswith("nginx: " if "no location" in told else "location /velox-artifacts/ (/etc/nginx/")], lines


def test_without_x_accel_redirect_nothing_is_said_of_its_location(doctor):
    lines = doctor.run(nginx=nginx_dump(doctor, "", "location /velox-artifacts/ { alias /; }"))
    assert not any("velox-artifacts" in rest for _, rest in lines)


def test_nginx_passes_to_a_variable(doctor):
    lines = doctor.run(nginx=nginx_dump(doctor, "fastcgi_pass $backend;"))
    line = doctor.find(lines, "location = /build.php")
    assert line[0] == "warn" and "fastcgi_pass $backend" in line[1]


@pytest.mark.parametrize("ours, theirs, is_found", [
    ("127.0.0.1:9000", "127.0.0.1:9000", True), ("0.0.0.0:9000", "localhost:9000", True),
    ("[::1]:9000", "localhost:9000", True), ("127.0.0.1:9000", "127.0.0.1:9001", False),
    ("127.0.0.1:9000", "10.0.0.1:9000", False),
])
@pytest.mark.parametrize("protocol", ["fastcgi", "scgi"])
def test_nginx_over_tcp(doctor, ours, theirs, is_found, protocol):
    doctor.sections["listen"][protocol] = ours
    lines = doctor.run(nginx=nginx_dump(doctor, f"{protocol}_pass {theirs};"))
    assert any(rest.startswith("location") and f"{protocol}_read_timeout" in rest
               for _, rest in lines) == is_found, lines


@pytest.mark.parametrize("text", ["", "hello", "user www-data;\nevents {}\n"])
def test_file_is_not_what_nginx_prints(doctor, text):
    line = doctor.find(doctor.run(nginx=text), "nginx")
    assert line[0] == "FAIL" and "nginx -T" in line[1]


def test_file_of_nginx_is_missing(doctor):
    line = doctor.find(doctor.run("--nginx", f"{doctor.folder}/none"), f"{doctor.folder}/none")
    assert line[0] == "FAIL" and "nginx -T" in line[1]


@pytest.mark.parametrize("options", [["--bad"], ["extra"], ["--nginx"], ["-t"]])
def test_usage(options):
    done = subprocess.run(sidecar_command() + ["doctor", *options], capture_output=True, text=True)
    assert done.returncode == 64 and "usage:" in done.stderr and done.stdout == ""


# ---- PrivateTmp --------------------------------------------------------------------------------

@AS_ROOT
def test_private_tmp_of_velox(doctor):
    """A process named velox in a mount namespace as systemd makes it for PrivateTmp=yes."""
    doctor.velox()
    doctor.sections["artifact"]["root"] = "/tmp"
    private = "/tmp/systemd-private-0123456789abcdef-velox.service-AbCdEf"
    script = (f"mount --bind {private}/tmp /tmp && echo velox >/proc/self/comm && echo ready && read line")
    os.makedirs(f"{private}/tmp", exist_ok=True)
    fake = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        if fake.stdout.readline() != b"ready\n":
            pytest.skip("no mount namespace to be had here")
        line = doctor.find(doctor.run(), "PrivateTmp")
        assert line[0] == "FAIL" and f"velox (pid {fake.pid})" in line[1] and "PrivateTmp=no" in line[1]
    finally:
        fake.communicate(b"\n")
        os.rmdir(f"{private}/tmp")
        os.rmdir(private)
    assert doctor.find(doctor.run(), "PrivateTmp")[0] == "ok"
