# SPDX-License-Identifier: MIT
"""The three peers of the sidecar, scripted by a test: a web server (Front), PHP-FPM (Fpm, Worker)
and a Velox server (Velox, Call).

Records are encoded and decoded here from the FastCGI specification alone; nothing is shared with the
sidecar's own code. Sockets block with a timeout: a test that waits in vain fails, it does not hang.
"""

import os
import queue
import random
import socket
import struct
import threading
import time
from typing import NamedTuple

SLOW = float(os.environ.get("VELOX_TEST_SLOW", "1"))
# How long anything may take that should happen at once.
DEADLINE = 5.0 * SLOW
# How long to look before saying that something did not happen.
A_MOMENT = 0.08 * min(SLOW, 5)

BEGIN_REQUEST, ABORT_REQUEST, END_REQUEST, PARAMS, STDIN, STDOUT, STDERR, DATA = range(1, 9)
GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = 9, 10, 11
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3
REQUEST_COMPLETE, CANT_MPX_CONN, OVERLOADED, UNKNOWN_ROLE = range(4)
KEEP_CONN = 1


class PeerClosed(Exception):
    """The connection ended where a test wanted more bytes."""


# ---- records -----------------------------------------------------------------------------------

class Record(NamedTuple):
    type: int
    id: int
    content: bytes
    padding: bytes
    at: float          # time.monotonic() when its last byte was there
    version: int = 1
    reserved: int = 0


def record(kind, request_id=1, content=b"", padding=0, version=1, reserved=0):
    return struct.pack("!BBHHBB", version, kind, request_id, len(content), padding,
                       reserved) + content + bytes(padding)


def stream(kind, content, request_id=1, size=65535, padding=False):
    """The records of a stream without the empty one that ends it."""
    out = []
    for at in range(0, len(content), size):
        part = content[at:at + size]
        out.append(record(kind, request_id, part, -len(part) % 8 if padding else 0))
    return b"".join(out)


def begin_request(request_id=1, role=RESPONDER, flags=0):
    return record(BEGIN_REQUEST, request_id, struct.pack("!HB5x", role, flags))


def end_request(request_id=1, app_status=0, protocol_status=REQUEST_COMPLETE, reserved=b"\0\0\0"):
    return record(END_REQUEST, request_id, struct.pack("!IB", app_status, protocol_status) + reserved)


def pair(name, value):
    name, value = to_bytes(name), to_bytes(value)
    out = b""
    for length in (len(name), len(value)):
        out += bytes([length]) if length < 128 else struct.pack("!I", length | 0x80000000)
    return out + name + value


def read_pairs(content):
    """All pairs of `content`, which must end at the end of one."""
    pairs, at = [], 0
    while at < len(content):
        lengths = []
        for _ in range(2):
            length = content[at]
            if length & 0x80:
                length = struct.unpack_from("!I", content, at)[0] & 0x7fffffff
                at += 3
            at += 1
            lengths.append(length)
        if at + sum(lengths) > len(content):
            raise ValueError("a pair goes past the end of its record")
        pairs.append((content[at:at + lengths[0]], content[at + lengths[0]:at + sum(lengths)]))
        at += sum(lengths)
    return pairs


def to_bytes(text):
    return text if isinstance(text, bytes) else str(text).encode()


class RecordSource:
    """Records from a socket, and the time at which the peer closed it."""

    def __init__(self, connection):
        self.connection = connection
        self.buffer = bytearray()
        self.closed_at = None

    def fill(self):
        """Reads once; False at the end of input."""
        try:
            received = self.connection.recv(1 << 20)
        except ConnectionResetError:
            received = b""
        if not received:
            self.closed_at = self.closed_at or time.monotonic()
            return False
        self.buffer += received
        return True

    def next(self):
        """The next record, or None when the peer closed between two records."""
        while len(self.buffer) < 8 or len(self.buffer) < 8 + self._length():
            if not self.fill():
                if self.buffer:
                    raise PeerClosed(f"closed within a record: {bytes(self.buffer[:80])!r}")
                return None
        version, kind, request_id, length, padding, reserved = struct.unpack_from("!BBHHBB", self.buffer)
        content = bytes(self.buffer[8:8 + length])
        pad = bytes(self.buffer[8 + length:8 + length + padding])
        del self.buffer[:8 + length + padding]
        return Record(kind, request_id, content, pad, time.monotonic(), version, reserved)

    def _length(self):
        return struct.unpack_from("!H", self.buffer, 4)[0] + self.buffer[6]

    def wait_closed(self):
        """Reads on until the peer closes; the time at which it did."""
        while self.closed_at is None:
            self.fill()
        return self.closed_at


def connect(address, timeout=None):
    """`unix:/path` or `host:port`."""
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        target = address[5:]
    else:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        target = (host, int(port))
    connection.settimeout(timeout or DEADLINE)
    try:
        connection.connect(target)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        connection.close()
        raise
    return connection


def reset(connection):
    """Closes with a reset (TCP); a unix socket with unread bytes does the same by itself."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def is_silent(connection, duration=None):
    """True when neither a byte nor the end comes within `duration`."""
    connection.settimeout(duration or A_MOMENT)
    try:
        connection.recv(1, socket.MSG_PEEK)
        return False
    except socket.timeout:
        return True
    finally:
        connection.settimeout(DEADLINE)


# ---- the web server ----------------------------------------------------------------------------

class Answer:
    """What came for one request up to its END_REQUEST or the end of the connection."""

    def __init__(self):
        self.records = []
        self.stdout = b""
        self.stderr = b""
        self.app_status = None
        self.protocol_status = None
        self.end_reserved = None

    @property
    def ended(self):
        """By END_REQUEST."""
        return self.protocol_status is not None

    @property
    def head(self):
        return self._split()[0]

    @property
    def body(self):
        return self._split()[1]

    def _split(self):
        for mark in (b"\r\n", b"\n"):
            if self.stdout.startswith(mark):
                return b"", self.stdout[len(mark):]
        ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n", b"\n\r\n")
                for at in [self.stdout.find(mark)] if at >= 0]
        if not ends:
            return self.stdout, b""
        at, length = min(ends)
        return self.stdout[:at], self.stdout[at + length:]

    @property
    def headers(self):
        lines = self.head.replace(b"\r\n", b"\n").split(b"\n")
        return [(name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
                for name, _, value in (line.partition(b":") for line in lines if line)]

    def get_all(self, name):
        return [value for known, value in self.headers if known == name.lower()]

    def get(self, name):
        values = self.get_all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def status(self):
        value = self.get("Status")
        return int(value.split()[0]) if value else 200


def environment(method="GET", body=b"", length=True, uri="/index.php", extra=()):
    """About what nginx's fastcgi.conf passes. `length`: True counts the body; False leaves the
    variable out; anything else is its value. `extra` replaces or adds."""
    pairs = [("SCRIPT_FILENAME", "/srv" + uri), ("QUERY_STRING", ""), ("REQUEST_METHOD", method),
             ("CONTENT_TYPE", "application/octet-stream" if body else "")]
    if length is True:
        pairs.append(("CONTENT_LENGTH", str(len(body)) if body else ""))
    elif length is not False:
        pairs.append(("CONTENT_LENGTH", length))
    pairs += [("SCRIPT_NAME", uri), ("REQUEST_URI", uri), ("DOCUMENT_URI", uri),
              ("SERVER_PROTOCOL", "HTTP/1.1"), ("GATEWAY_INTERFACE", "CGI/1.1"),
              ("REMOTE_ADDR", "127.0.0.1"), ("SERVER_NAME", "localhost"), ("REDIRECT_STATUS", "200"),
              ("HTTP_HOST", "localhost")]
    replaced = {name for name, _ in extra}
    return [each for each in pairs if each[0] not in replaced] + list(extra)


def encode_params(pairs):
    return b"".join(pair(name, value) for name, value in pairs)


class Front:
    """One connection to the sidecar, as a web server holds it."""

    def __init__(self, address):
        self.address = address
        self.connection = connect(address)
        self.source = RecordSource(self.connection)
        self.sender = None

    def close(self):
        self.connection.close()

    def reset(self):
        reset(self.connection)

    def send(self, *parts):
        self.connection.sendall(b"".join(parts))

    def send_in_background(self, *parts):
        """For more bytes than the sockets hold; a peer that closes meanwhile is no error."""
        def run():
            try:
                self.connection.sendall(b"".join(parts))
            except OSError:
                pass
        self.sender = threading.Thread(target=run, daemon=True)
        self.sender.start()

    def begin(self, pairs, request_id=1, keep=False, role=RESPONDER, padding=True):
        """All of a request but its body."""
        self.send(begin_request(request_id, role, KEEP_CONN if keep else 0),
                  stream(PARAMS, encode_params(pairs), request_id, 65528, padding),
                  record(PARAMS, request_id))

    def ask(self, pairs=None, body=b"", request_id=1, keep=False, stdin_size=32768):
        """A whole request. A long body goes out in the background."""
        if pairs is None:
            pairs = environment("POST" if body else "GET", body)
        self.begin(pairs, request_id, keep)
        parts = (stream(STDIN, body, request_id, stdin_size, padding=True), record(STDIN, request_id))
        if len(body) > 60000:
            self.send_in_background(*parts)
        else:
            self.send(*parts)

    def read_record(self):
        return self.source.next()

    def read_answer(self, request_id=1, sink=None):
        """Up to END_REQUEST or the end, be it within a record. `sink` gets the contents of STDOUT instead of Answer.stdout
        once the head is complete."""
        answer = Answer()
        parts, head_done = [], False
        while True:
            try:
                received = self.source.next()
            except PeerClosed:
                break
            if received is None:
                break
            assert received.version == 1 and received.id == request_id, received[:2]
            if sink is None or received.type != STDOUT:
                answer.records.append(received)
            if received.type == STDOUT:
                if sink is not None and head_done:
                    sink(received.content)
                    continue
                parts.append(received.content)
                if sink is not None:
                    together = b"".join(parts)
                    at = together.find(b"\r\n\r\n")
                    if at >= 0:
                        head_done = True
                        parts = [together[:at + 4]]
                        sink(together[at + 4:])
            elif received.type == STDERR:
                answer.stderr += received.content
            elif received.type == END_REQUEST:
                answer.app_status, answer.protocol_status = struct.unpack_from("!IB", received.content)
                answer.end_reserved = received.content[5:]
                break
            else:
                raise AssertionError(f"unexpected record {received}")
        answer.stdout = b"".join(parts)
        return answer

    def read_stdout(self, length):
        """Exactly the next `length` bytes of STDOUT."""
        out = b""
        while len(out) < length:
            received = self.source.next()
            if received is None:
                raise PeerClosed(f"closed after {out!r}")
            assert received.type == STDOUT, received
            out += received.content
        assert len(out) == length, out
        return out

    def read_head(self):
        """STDOUT up to the blank line; the bytes of the body that came with it are returned too."""
        out = b""
        while b"\r\n\r\n" not in out:
            received = self.source.next()
            if received is None:
                raise PeerClosed(f"closed after {out!r}")
            if received.type == STDOUT:
                out += received.content
        head, _, body = out.partition(b"\r\n\r\n")
        return head, body

    def wait_closed(self):
        return self.source.wait_closed()

    def assert_closed_without_answer(self):
        received = self.source.next()
        while received is not None and received.type == STDERR:
            received = self.source.next()
        assert received is None, f"an answer came: {received}"

    def is_silent(self, duration=None):
        return not self.source.buffer and is_silent(self.connection, duration)


# ---- PHP-FPM -----------------------------------------------------------------------------------

class WorkerRequest(NamedTuple):
    id: int
    role: int
    flags: int
    pairs: list
    stdin: bytes
    records: list

    def get(self, name):
        values = [value for known, value in self.pairs if known == to_bytes(name)]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0].decode("latin-1") if values else None


class Worker:
    """One connection that the sidecar opened to PHP-FPM."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(DEADLINE)
        self.source = RecordSource(connection)
        self.records = []

    def read_record(self):
        received = self.source.next()
        if received is not None:
            self.records.append(received)
        return received

    def read_params(self):
        """Up to the empty PARAMS record."""
        while not (self.records and self.records[-1].type == PARAMS and not self.records[-1].content):
            if self.read_record() is None:
                raise PeerClosed(f"closed before the end of PARAMS, after {self.records}")
        return self._request()

    def read_request(self):
        """Up to the empty STDIN record."""
        while not (self.records and self.records[-1].type == STDIN and not self.records[-1].content):
            if self.read_record() is None:
                raise PeerClosed(f"closed before the end of STDIN, after {len(self.records)} records")
        return self._request()

    def _request(self):
        begin = self.records[0]
        assert begin.type == BEGIN_REQUEST, begin
        role, flags = struct.unpack_from("!HB", begin.content)
        # PHP-FPM resets on a pair that is cut in two: each record must decode by itself.
        pairs = [each for received in self.records if received.type == PARAMS
                 for each in read_pairs(received.content)]
        stdin = b"".join(received.content for received in self.records if received.type == STDIN)
        return WorkerRequest(begin.id, role, flags, pairs, stdin, list(self.records))

    def send(self, *parts):
        self.connection.sendall(b"".join(parts))

    def stdout(self, content):
        self.send(stream(STDOUT, to_bytes(content), size=65528))

    def stderr(self, content):
        self.send(stream(STDERR, to_bytes(content), size=65528))

    def end(self, app_status=0):
        self.send(end_request(1, app_status))

    def answer(self, content, app_status=0):
        """As PHP-FPM does for small pages: everything in one write."""
        self.send(stream(STDOUT, to_bytes(content), size=65528), end_request(1, app_status))

    def close(self):
        self.connection.close()

    def reset(self):
        reset(self.connection)

    def wait_closed(self):
        return self.source.wait_closed()

    def is_silent(self, duration=None):
        return not self.source.buffer and is_silent(self.connection, duration)


class Fpm:
    """PHP-FPM's socket. A test takes connections by accept() and plays the worker, or lets serve()
    answer them on a thread each."""

    def __init__(self, address, backlog=64):
        self.address = address
        if address.startswith("unix:"):
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            if os.path.exists(address[5:]):
                os.unlink(address[5:])
            self.listener.bind(address[5:])
            os.chmod(address[5:], 0o666)
        else:
            host, _, port = address.rpartition(":")
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind((host, int(port)))
            self.address = f"{host}:{self.listener.getsockname()[1]}"
        self.listener.listen(backlog)
        self.listener.settimeout(DEADLINE)
        self.workers = []
        self.serving = None
        self.serving_ends = False

    def accept(self, timeout=None):
        self.listener.settimeout(timeout or DEADLINE)
        connection, _ = self.listener.accept()
        worker = Worker(connection)
        self.workers.append(worker)
        return worker

    def is_idle(self, duration=None):
        """True when nobody connects within `duration`."""
        try:
            self.accept(duration or A_MOMENT)
            return False
        except socket.timeout:
            return True

    def serve(self, function, count=None):
        """Calls function(worker) for each connection on a thread of its own, `count` at most."""
        def guarded(worker):
            try:
                function(worker)
            except (OSError, PeerClosed):
                pass
            finally:
                worker.close()

        def run():
            left = count
            while left is None or left > 0:
                try:
                    worker = self.accept(3600)
                except OSError:
                    return
                if self.serving_ends:
                    worker.close()
                    return
                threading.Thread(target=guarded, args=(worker,), daemon=True).start()
                left = None if left is None else left - 1

        self.serving_ends = False
        self.serving = threading.Thread(target=run, daemon=True)
        self.serving.start()

    def stop_serving(self):
        if self.serving and self.serving.is_alive():
            self.serving_ends = True
            connect(self.address).close()
            self.serving.join()
        self.serving = None

    def tidy(self):
        """Between two tests: drops every connection."""
        self.stop_serving()
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self.listener.settimeout(0)
        try:
            while True:
                self.listener.accept()[0].close()
        except OSError:
            pass

    def close(self):
        self.serving_ends = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for worker in self.workers:
            worker.close()
        if self.address.startswith("unix:") and os.path.exists(self.address[5:]):
            os.unlink(self.address[5:])


# ---- Velox -------------------------------------------------------------------------------------

class Call:
    """One HTTP request that the sidecar made."""

    def __init__(self, connection, line, headers, body):
        self.connection = connection
        self.method, self.target = line.split(" ")[:2]
        self.headers = headers
        self.body = body
        self.at = time.monotonic()
        self.closed = threading.Event()
        self.closed_at = None

    def get(self, name):
        values = [value for known, value in self.headers if known.lower() == name.lower()]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    def answer(self, body=b"", status=200, content_type="application/json", headers=(), reason="Scripted"):
        body = to_bytes(body)
        lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        lines += [f"{name}: {value}" for name, value in headers]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def send(self, raw):
        self.connection.sendall(raw)

    def cut(self):
        self.connection.shutdown(socket.SHUT_RDWR)

    def reset(self):
        """Needs TCP. The reader's copy of the descriptor must not keep the connection alive."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()

    def wait_closed(self, timeout=None):
        """The time at which the sidecar closed the connection."""
        assert self.closed.wait(timeout or DEADLINE), "the POST is still open"
        return self.closed_at


class Velox:
    """A raw HTTP server: it reads requests; a test, or `respond`, answers them."""

    def __init__(self, address="127.0.0.1:0", tls=None):
        """`tls`: an ssl.SSLContext with a certificate; the URL is an https one then."""
        self.tls = tls
        if address.startswith("unix:"):
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(address[5:])
            os.chmod(address[5:], 0o666)
            self.url = address
        else:
            host, _, port = address.rpartition(":")
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind((host, int(port)))
            self.url = f"http{'s' if tls else ''}://{host}:{self.listener.getsockname()[1]}"
        self.listener.listen(128)
        self.calls = queue.Queue()
        self.history = []
        self.connections = []
        self.respond = None
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        call, buffer = None, b""
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            while True:
                received = connection.recv(1 << 16)
                if not received:
                    break
                buffer += received
                while True:
                    call_read, buffer = self._read_call(connection, buffer)
                    if call_read is None:
                        break
                    call = call_read
                    self.history.append(call)
                    if self.respond:
                        self.respond(call)
                    else:
                        self.calls.put(call)
        except OSError:
            pass
        if call is not None:
            call.closed_at = time.monotonic()
            call.closed.set()
        connection.close()

    @staticmethod
    def _read_call(connection, buffer):
        head, blank, rest = buffer.partition(b"\r\n\r\n")
        if not blank:
            return None, buffer
        lines = head.decode("latin-1").split("\r\n")
        headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]
        length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
        if len(rest) < length:
            if any(name.lower() == "expect" for name, _ in headers) and not rest:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None, buffer
        return Call(connection, lines[0], headers, rest[:length]), rest[length:]

    def accept(self, timeout=None):
        """The next request."""
        try:
            return self.calls.get(timeout=timeout or DEADLINE)
        except queue.Empty:
            raise AssertionError("no request reached Velox") from None

    def is_idle(self, duration=None):
        try:
            self.calls.get(timeout=duration or A_MOMENT)
            return False
        except queue.Empty:
            return True

    def tidy(self):
        self.respond = None
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.connections.clear()
        self.history.clear()
        while not self.calls.empty():
            self.calls.get_nowait()

    def close(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self.tidy()


def random_bytes(size, seed=1):
    """The same bytes in each run."""
    return random.Random(seed).randbytes(size)
