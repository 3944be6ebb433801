# SPDX-License-Identifier: MIT
"""Runs load through one hop and says what came of it."""
import json
import socket
import struct
import subprocess
import time


def settled_cpu(server):
    """CPU seconds once the last connections of a run are closed."""
    before = server.cpu_seconds()
    while True:
        time.sleep(0.02)
        now = server.cpu_seconds()
        # A loop that wakes for its timers costs microseconds.
        if now - before < 0.0005:
            return now
        before = now


def load(tools, listen, *options):
    """What load-front prints, as a dictionary of numbers."""
    done = subprocess.run([tools / "load-front", *options, listen], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120, check=False)
    result = numbers(done.stdout, done.stderr)
    if done.returncode != 0:
        raise RuntimeError(f"{listen} gives no answers: {done.stdout}")
    return result


def numbers(line, errors=""):
    values = dict(field.split("=") for field in line.split())
    if "requests" not in values:
        raise RuntimeError(f"load-front: {errors}")
    return {name: float(value) for name, value in values.items()}


def through(hop, run):
    """run() with the hop's CPU seconds during it; hop is None where there is no hop."""
    if hop is None:
        result = run()
        result["cpu"] = 0.0
        return result
    before = settled_cpu(hop)
    result = run()
    result["cpu"] = settled_cpu(hop) - before
    return result


def small(tools, hop, listen, case, seconds, page):
    """One run of small answers: per_second, p50_us, p99_us, cpu per 100,000 requests."""
    options = ["-c", str(case.clients), "-s", str(seconds), "-u", "/small.php", "-f", str(page)]
    if case.is_kept:
        options.append("-k")
    result = through(hop, lambda: load(tools, listen, *options))
    result["cpu_per_100k"] = result["cpu"] / max(result["requests"], 1) * 1e5
    return result


def big(tools, hop, listen):
    """One answer of 1 GiB: gb_per_second, cpu per GB (10^9 bytes)."""
    result = through(hop, lambda: load(tools, listen, "-n", "1", "-u", "/big"))
    gigabytes = result["bytes"] / 1e9
    result["gb_per_second"] = gigabytes / result["seconds"]
    result["cpu_per_gb"] = result["cpu"] / gigabytes if gigabytes else 0.0
    return result


class IdleFronts:
    """Kept connections that have had their answer and stay open."""

    def __init__(self, tools, listen, count, page):
        self.process = subprocess.Popen(
            [tools / "load-front", "-i", "-c", str(count), "-u", "/small.php", "-f", str(page),
             listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.result = numbers(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()


def idle_kb_each(tools, hop, count, page):
    """Resident KB that each idle kept front adds to the hop."""
    before = hop.resident_kb()
    with IdleFronts(tools, hop.listen, count, page):
        return (hop.resident_kb() - before) / count


# ---- PHP-FPM's status page ----------------------------------------------------------------------


def record(kind, content=b""):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def pair(name, value):
    return bytes([len(name), len(value)]) + name.encode() + value.encode()


def fpm_status(listen, path="/fpm-status"):
    params = b"".join(pair(name, value) for name, value in {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": path, "SCRIPT_FILENAME": path,
        "REQUEST_URI": path, "QUERY_STRING": "json"}.items())
    answer = b""
    with socket.socket(socket.AF_UNIX) as fpm:
        fpm.settimeout(5)
        fpm.connect(listen)
        fpm.sendall(record(1, struct.pack(">HB5x", 1, 0)) + record(4, params) + record(4) +
                    record(5))
        while chunk := fpm.recv(65536):
            answer += chunk
    return json.loads(answer[answer.index(b"{"):answer.rindex(b"}") + 1])


def busy_workers_with_idle_fronts(tools, hop, php, count, page):
    """Workers that are not idle while kept fronts have nothing to ask, the status page's own not
    counted."""
    with IdleFronts(tools, hop.listen, count, page):
        for _ in range(50):
            try:
                busy = fpm_status(php.listen)["active processes"] - 1
            except TimeoutError:
                return float("inf")
            if busy == 0:
                break
            time.sleep(0.02)
    return busy
