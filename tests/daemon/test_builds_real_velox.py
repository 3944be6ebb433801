# SPDX-License-Identifier: MIT
"""Against a real Velox server: VELOX_VX names its program.

No network is needed. The server believes that it downloads RoadRunner from github.com, by way of a proxy of ours, and
gets a program of a few lines, whose plugins are modules in a folder. Needs the go command and openssl; the first build
compiles Go's standard library, which takes half a minute.
"""

import http.server
import io
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
import uuid
import zipfile

import pytest

import peers
from conftest import check_error, make_folder, wait_until
from ports import unused_port

VX = os.environ.get("VELOX_VX")
pytestmark = pytest.mark.skipif(not (VX and shutil.which("go") and shutil.which("openssl")),
                                reason="VELOX_VX names no Velox server, or there is no go command")

MODULES = {"github.com/roadrunner-server/informer/v6": "informer",
           "github.com/roadrunner-server/resetter/v6": "resetter", "example.org/demo": "demo"}
PLUGINS = [{"module_name": "example.org/demo", "tag": "v1.0.0"}]
MAIN = """package main

import (
	"fmt"

	"github.com/roadrunner-server/roadrunner/v3/container"
)

func main() { fmt.Println("plugins:", len(container.Plugins())) }
"""


def source_archive(folder):
    """What GitHub would send, made of nothing but local modules."""
    go_mod = "module github.com/roadrunner-server/roadrunner/v3\n\ngo 1.21\n\nrequire (\n"
    go_mod += "".join(f"\t{module} v6.0.0\n" for module in MODULES if module.endswith("/v6")) + ")\n"
    for module, name in MODULES.items():
        os.makedirs(f"{folder}/modules/{name}")
        with open(f"{folder}/modules/{name}/go.mod", "w") as file:
            file.write(f"module {module}\n\ngo 1.21\n")
        with open(f"{folder}/modules/{name}/plugin.go", "w") as file:
            file.write(f"package {name}\n\ntype Plugin struct{{}}\n")
        go_mod += f"replace {module} => {folder}/modules/{name}\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        for name in ("", "cmd/", "cmd/rr/", "container/"):
            files.writestr(f"roadrunner-1/{name}", "")
        files.writestr("roadrunner-1/go.mod", go_mod)
        files.writestr("roadrunner-1/cmd/rr/main.go", MAIN)
        files.writestr("roadrunner-1/container/plugins.go", "package container\n")
    return archive.getvalue()


def github(folder):
    """A proxy that is github.com itself; its URL and the certificate to trust."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", f"{folder}/key.pem", "-out", f"{folder}/github.pem", "-days", "1",
                    "-subj", "/CN=github.com", "-addext", "subjectAltName=DNS:github.com"],
                   check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/github.pem", f"{folder}/key.pem")
    archive = source_archive(folder)

    class Server(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_CONNECT(self):
            self.send_response(200)
            self.end_headers()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb")
            self.close_connection = False

        def do_GET(self):
            if self.path == "/archive":
                self.send_response(200)
            elif self.path.endswith("/v9.9.9.zip"):
                self.send_response(404)
            else:
                self.send_response(302)
                self.send_header("Location", "https://github.com/archive")
            body = archive if self.path == "/archive" else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def real():
    """URL of the server, and the folder of what it builds."""
    folder = make_folder()
    os.mkdir(f"{folder}/built")
    proxy = github(folder)
    address = f"127.0.0.1:{unused_port()}"
    environment = {**os.environ, "HTTPS_PROXY": f"http://127.0.0.1:{proxy.server_port}",
                   "SSL_CERT_FILE": f"{folder}/github.pem", "TMPDIR": f"{folder}/built", "HOME": folder,
                   "GOFLAGS": "-mod=mod -modcacherw", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    with open(f"{folder}/velox.toml", "w") as file:
        file.write('[roadrunner]\nref = "v1"\n')
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen([VX, "server", "-c", f"{folder}/velox.toml", "-a", address], env=environment,
                                   cwd=folder, stdout=log, stderr=log)

    def listens():
        assert process.poll() is None, open(f"{folder}/log").read()
        try:
            peers.connect(address).close()
            return True
        except OSError:
            return False
    wait_until(listens, "the Velox server")
    yield f"http://{address}", f"{folder}/built"
    process.terminate()
    process.wait()
    proxy.shutdown()
    proxy.server_close()
    shutil.rmtree(folder)


@pytest.fixture
def stack(start, real):
    return start(velox={"server_url": real[0], "failure_ttl": 0}, artifact={"root": real[1]},
                 retry={"max_delay": "200ms"})


def ask(stack, **members):
    front = stack.php_asks_for_build(stack.build_request(
        **{"request_id": str(uuid.uuid4()), "plugins": PLUGINS, "rr_version": "v2025.1.2", **members}))
    front.connection.settimeout(300)
    return front


def built_file(stack, answer):
    (line,) = stack.sidecar.log("build completed", request_id=answer.get("X-Build-Request-ID"))
    with open(line["file_path"], "rb") as file:
        return file.read()


def test_the_client_gets_the_binary_that_the_server_built(stack, folder):
    answer = ask(stack).read_answer()
    assert answer.status == 200 and answer.body == built_file(stack, answer)
    with open(f"{folder}/rr", "wb") as file:
        file.write(answer.body)
    os.chmod(f"{folder}/rr", 0o755)
    assert subprocess.run([f"{folder}/rr"], capture_output=True, text=True).stdout == "plugins: 3\n"
    # From the server's own cache, and with an id of the sidecar's making.
    assert ask(stack, request_id=...).read_answer().body == answer.body
    again = ask(stack, force_rebuild=True).read_answer()
    assert again.body == built_file(stack, again)


@pytest.mark.parametrize("members,status,error,named", [
    ({"request_id": "no-uuid"}, 400, "invalid_request", "request_id"),
    ({"rr_version": "1.2"}, 400, "invalid_request", "rr_version"),
    ({"plugins": []}, 400, "invalid_request", "plugins"),
    ({"plugins": [{"module_name": "", "tag": "v1"}]}, 400, "invalid_request", "module_name"),
    ({"plugins": [{"module_name": "example.org/none", "tag": "v1.0.0"}]}, 500, "build_failed", "example.org/none"),
    ({"rr_version": "v9.9.9"}, 500, "build_failed", "404"),
    ({"target_platform": {"os": "windows", "arch": "amd64"}}, 500, "build_failed", "Windows"),
])
def test_what_the_server_refuses(stack, members, status, error, named):
    assert named in check_error(ask(stack, **members).read_answer(), status, error)


def test_a_build_that_runs_for_somebody_else_is_waited_for(stack):
    """`race: null` and no `race` are two builds here and one at Velox: already_exists."""
    fronts = [ask(stack, rr_version="v2025.1.3"), ask(stack, rr_version="v2025.1.3", race=None)]
    bodies = [front.read_answer().body for front in fronts]
    assert bodies[0] == bodies[1] and len(bodies[0]) > 500000
    assert stack.sidecar.log("build retry", reason="already_exists")
    assert not stack.sidecar.log("build retry", reason="code")


def test_ten_equal_requests_are_one_build(stack):
    fronts = [ask(stack, rr_version="v2025.1.4") for _ in range(10)]
    assert len({front.read_answer().body for front in fronts}) == 1
    assert len(stack.sidecar.log("build started")) == 1


def test_a_client_that_leaves_ends_the_build_there(stack, real):
    front = ask(stack, rr_version="v2025.1.5")
    stack.sidecar.wait_log("build started")
    time.sleep(0.2)  # the compiler is at work
    front.close()
    stack.sidecar.wait_log("build cancelled")
    with open(os.path.join(os.path.dirname(real[1]), "log")) as log:
        wait_until(lambda: "build failed" in log.read(), "the end of the build at Velox")
    assert ask(stack, rr_version="v2025.1.5").read_answer().status == 200
