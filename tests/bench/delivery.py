# SPDX-License-Identifier: MIT
"""Downloads of a file that is in the page cache: scripts/bench delivery.

The sidecar gets each file as it would in life: a page of PHP-FPM asks for a build, a Velox (here)
names the path. Everything is asked in turn in every round, and ratios are taken within a round.
"""
import http.server
import json
import os
import subprocess
import threading

import measure
import report

MIB = 1 << 20
# Bytes of each download, so that a round with many clients takes seconds as well.
SIZES = {1: 1024 * MIB, 8: 256 * MIB, 64: 64 * MIB}
SEND_BUFFERS = (212992, 524288, 1048576)
STOCK = SEND_BUFFERS[0]
LONG_CLIENTS = 64

SIDECAR = "sidecar"
RAW = "sendfile"
LOOP = "read, write"
NGINX = "nginx itself"
READFILE = "readfile()"

BUILD_PAGE = """\
<?php
header('X-Velox-Build: true');
header('Content-Type: application/json');
echo json_encode(['rr_version' => 'v2025.1.2', 'plugins' => [
    ['module_name' => 'file', 'tag' => {path!r}]]]);
"""

READFILE_PAGE = """\
<?php
header('Content-Type: application/octet-stream');
header('Content-Length: ' . filesize({path!r}));
readfile({path!r});
"""


class Velox(http.server.ThreadingHTTPServer):
    """Builds nothing: the file is the one that the tag names."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"path": request["plugins"][0]["tag"], "logs": ""}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Group:
    """Servers whose CPU seconds count together."""

    def __init__(self, listen, *servers):
        self.listen = listen
        self.servers = servers

    def cpu_seconds(self):
        return sum(server.cpu_seconds() for server in self.servers)

    def forget_peak(self):
        for server in self.servers:
            server.forget_peak()

    def peak_kb(self):
        return max(server.peak_kb() for server in self.servers)


def read(tools, listen, request, clients, stopped=0):
    command = [tools / "download-reader", "-c", str(clients), "-s", str(stopped), listen]
    done = subprocess.run(command, input=request, capture_output=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"download-reader: {done.stderr.decode()}")
    return {name: float(value) for name, value in
            (field.split("=") for field in done.stdout.decode().split())}


class Bench:
    def __init__(self, servers):
        self.servers = servers
        self.tools = servers.tools
        self.velox = Velox()
        self.php = servers.php()
        self.paths = {size: self.write_file(size) for size in SIZES.values()}
        listen = self.php.listen
        self.sidecars = {wmem: servers.sidecar_downloads(
            listen, self.velox.url, None if wmem == SEND_BUFFERS[-1] else wmem)
            for wmem in SEND_BUFFERS}
        self.senders = {(size, how, wmem): servers.file_sender(path, how, wmem)
                        for size, path in self.paths.items()
                        for how, wmem in [("sendfile", wmem) for wmem in SEND_BUFFERS]
                        + [("loop", None)]}
        best = self.sidecars[SEND_BUFFERS[-1]]
        self.nginx = servers.nginx_http(best.listen)
        self.nginx_php = servers.nginx_http(listen)
        self.chain = Group(self.nginx.listen, self.nginx, best, self.php)
        self.php_chain = Group(self.nginx_php.listen, self.nginx_php, self.php)

    def write_file(self, size):
        name = f"{size // MIB}"
        path = self.servers.folder / f"file-{name}"
        block = os.urandom(MIB)
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        self.servers.write(f"build-{name}.php", BUILD_PAGE.format(path=str(path)))
        self.servers.write(f"readfile-{name}.php", READFILE_PAGE.format(path=str(path)))
        return path

    def fcgi(self, size):
        script = str(self.servers.folder / f"build-{size // MIB}.php")
        params = b"".join(measure.pair(name, value) for name, value in {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "/build.php", "SCRIPT_FILENAME": script}.items())
        return (measure.record(1, b"\0\1\0\0\0\0\0\0") + measure.record(4, params) +
                measure.record(4) + measure.record(5))

    @staticmethod
    def http(name, size):
        return (f"GET /{name.format(size // MIB)} HTTP/1.1\r\nHost: bench\r\n"
                "Connection: close\r\n\r\n").encode()

    def run(self, server, request, clients, size, stopped=0):
        server.forget_peak()
        result = measure.through(server, lambda: read(self.tools, server.listen, request, clients,
                                                      stopped))
        gigabytes = result["bytes"] / 1e9
        if result["bytes"] < clients * size:
            raise RuntimeError(f"{server.listen}: {result['bytes']:.0f} bytes came of {clients} downloads of {size}")
        result["gb_per_second"] = gigabytes / result["seconds"]
        result["cpu_per_gb"] = result["cpu"] / gigabytes
        result["gb_per_cpu"] = gigabytes / result["cpu"] if result["cpu"] else 0.0
        result["peak_mb"] = server.peak_kb() / 1024
        return result

    def bare(self, clients, wmem, who):
        size = SIZES[clients]
        if who == SIDECAR:
            return self.run(self.sidecars[wmem], self.fcgi(size), clients, size)
        how = ("sendfile", wmem) if who == RAW else ("loop", None)
        return self.run(self.senders[(size, *how)], b"", clients, size)

    def through_nginx(self, clients, who):
        size = SIZES[clients]
        server, name = {SIDECAR: (self.chain, "build-{}.php"), NGINX: (self.nginx, "file-{}"),
                        READFILE: (self.php_chain, "readfile-{}.php")}[who]
        return self.run(server, self.http(name, size), clients, size)

    def long(self, clients, stopped=0):
        size = SIZES[1]
        return self.run(self.sidecars[SEND_BUFFERS[-1]], self.fcgi(size), clients, size, stopped)


def cases(plan):
    for clients in SIZES:
        for wmem in SEND_BUFFERS:
            if plan.is_wanted(f"bare-{clients}-{wmem}"):
                yield f"bare-{clients}-{wmem}", (SIDECAR, RAW, LOOP), (
                    lambda bench, who, clients=clients, wmem=wmem: bench.bare(clients, wmem, who))
    for clients in SIZES:
        if plan.is_wanted(f"nginx-{clients}"):
            yield f"nginx-{clients}", (SIDECAR, NGINX, READFILE), (
                lambda bench, who, clients=clients: bench.through_nginx(clients, who))


def rotated(items, number):
    return [items[(number + i) % len(items)] for i in range(len(items))]


def print_case(results, name, hops):
    print(f"\n{name}")
    print(f"  {'sender':<14}{'GB/s':>8}{'CPU s/GB':>10}{'GB/CPU s':>10}{'peak MB':>9}")
    for who in hops:
        own = (name, who)
        print(f"  {who:<14}{results.median(*own, 'gb_per_second'):8.2f}"
              f"{results.median(*own, 'cpu_per_gb'):10.3f}{results.median(*own, 'gb_per_cpu'):10.2f}"
              f"{results.median(*own, 'peak_mb'):9.1f}")


class Judge(report.Judge):
    def ratio(self, name, field, over, under):
        return self.results.ratio(field, (name, over), (name, under))

    def bare(self, name, wmem):
        speed, cpu = (1.2, 1.5) if wmem == STOCK else (0.95, 1.35)
        self.line(f"{name}: GB/s / sendfile's", self.ratio(name, "gb_per_second", SIDECAR, RAW),
                  speed, at_most=False)
        self.line(f"{name}: CPU a GB / sendfile's", self.ratio(name, "cpu_per_gb", SIDECAR, RAW), cpu)

    def nginx(self, name):
        self.line(f"{name}: GB/s / nginx serving the file itself",
                  self.ratio(name, "gb_per_second", SIDECAR, NGINX), 0.5, at_most=False)
        self.line(f"{name}: GB a CPU second of the chain / readfile()'s",
                  self.ratio(name, "gb_per_cpu", SIDECAR, READFILE), 3.0, at_most=False)

    def long(self, one, many, free, stopped):
        self.line(f"{LONG_CLIENTS} downloads of 1 GiB: peak RSS, MB", many["peak_mb"], 16.0, form="{:.1f}")
        self.line(f"{LONG_CLIENTS} downloads of 1 GiB: CPU a GB / that of one",
                  many["cpu_per_gb"] / one["cpu_per_gb"], 1.2)
        self.line(f"{LONG_CLIENTS - 1} downloads beside a stopped reader: time / without it",
                  stopped["seconds"] / free["seconds"], 1.15)
        self.line("the slowest of them / the slowest without it", stopped["slowest"] / free["slowest"], 1.15)


def long_downloads(bench, verdict):
    bench.long(1)  # to warm up
    verdict.long(bench.long(1), bench.long(LONG_CLIENTS), bench.long(LONG_CLIENTS - 1),
                 bench.long(LONG_CLIENTS - 1, stopped=1))


def run(servers, plan):
    bench = Bench(servers)
    wanted = list(cases(plan))
    results = report.Results()
    one, _, _ = os.getloadavg()
    print(f"{os.cpu_count()} CPUs, Linux {os.uname().release}, load average {one:.1f} before; "
          f"{plan.rounds} rounds, and one to warm up")
    for number in range(-1, plan.rounds):
        for name, hops, act in wanted:
            for who in rotated(hops, number + 1):
                result = act(bench, who)
                if number >= 0:
                    results.add(name, who, result)
    verdict = Judge(results)
    for name, hops, _ in wanted:
        print_case(results, name, hops)
    print("\nTargets: value, bound, what")
    for name, _, _ in wanted:
        if name.startswith("bare-1-"):
            verdict.bare(name, int(name.rsplit("-", 1)[1]))
        elif name.startswith("nginx"):
            verdict.nginx(name)
    if plan.is_wanted("long"):
        long_downloads(bench, verdict)
    print(f"{verdict.judged - verdict.missed} of {verdict.judged} targets reached")
