# SPDX-License-Identifier: MIT
"""nginx with HTTP/2 to the client: many requests share one client connection, an upload need not
announce its length, and a client leaves by resetting a stream."""
import hashlib
import socket
import struct
import subprocess

import pytest

from ports import unused_ports
from stack import FRONTS, Stack
from test_e2e_builds import ask, ask_raw, wait_for_build
from test_e2e_pages import MEGABYTE, pattern


class Http2Stack(Stack):
    """Each server listens once more, for HTTP/2 without TLS."""

    def __init__(self):
        super().__init__(php_workers=4)
        names = list(FRONTS) + [f"direct-{name}" for name in FRONTS]
        self.ports = dict(zip(names, unused_ports(len(names))))

    def _server(self, name, address, kept, buffered):
        text = super()._server(name, address, kept, buffered)
        listen = f"listen 127.0.0.1:{self.ports[name]} http2;"
        return text.replace("server {\n", f"server {{\n{listen}\n")

    def url(self, front, target):
        return f"http://127.0.0.1:{self.ports[front]}{target}"

    def start_curl(self, front, target, *options, **popen):
        command = ["curl", "--silent", "--show-error", "--globoff", "--http2-prior-knowledge",
                   *options, self.url(front, target)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **popen)

    def curl(self, front, target, *options, body=None):
        """Status and body."""
        process = self.start_curl(front, target, "--write-out", "\n%{http_version} %{http_code}",
                                  *options)
        output, _ = process.communicate(body, timeout=60)
        assert process.returncode == 0
        content, _, last = output.rpartition(b"\n")
        version, status = last.split()
        assert version == b"2"
        return int(status), content


class Client:
    """As much of RFC 9113 as it takes to have several requests on one connection and reset one."""

    DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE = 0, 1, 3, 4, 8
    END_STREAM, ACK, END_HEADERS = 1, 1, 4
    LARGEST_WINDOW = (1 << 31) - 1

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.input = self.socket.makefile("rb")
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(self.SETTINGS, 0, 0, struct.pack("!HI", 4, self.LARGEST_WINDOW))
        self.send(self.WINDOW_UPDATE, 0, 0, struct.pack("!I", self.LARGEST_WINDOW - 65535))
        self.next_stream = 1
        self.content, self.ended = {}, set()

    def send(self, kind, flags, stream, payload):
        length = struct.pack("!I", len(payload))[1:]
        self.socket.sendall(length + struct.pack("!BBI", kind, flags, stream) + payload)

    def get(self, target):
        """Sends a GET; gives the stream's number."""
        stream = self.next_stream
        self.next_stream += 2
        block = b"".join(b"\0" + self.string(name) + self.string(value) for name, value in (
            (":method", "GET"), (":scheme", "http"), (":authority", "localhost"),
            (":path", target)))
        self.content[stream] = b""
        self.send(self.HEADERS, self.END_STREAM | self.END_HEADERS, stream, block)
        return stream

    @staticmethod
    def string(text):
        """HPACK's: a length with a prefix of 7 bits, and the bytes as they are."""
        length, out = len(text), b""
        if length < 127:
            out = bytes([length])
        else:
            out, length = b"\x7f", length - 127
            while length >= 128:
                out, length = out + bytes([length % 128 + 128]), length // 128
            out += bytes([length])
        return out + text.encode()

    def read(self, stream):
        """The whole body; frames of other streams are kept for later."""
        while stream not in self.ended:
            header = self.input.read(9)
            assert len(header) == 9, "the connection has ended"
            kind, flags, number = struct.unpack("!BBI", header[3:])
            payload = self.input.read(int.from_bytes(header[:3], "big"))
            if kind == self.DATA:
                self.content[number] += payload
            elif kind == self.SETTINGS and not flags & self.ACK:
                self.send(self.SETTINGS, self.ACK, 0, b"")
            elif kind == self.RST_STREAM:
                raise ConnectionError(f"stream {number} was reset")
            if kind in (self.DATA, self.HEADERS) and flags & self.END_STREAM:
                self.ended.add(number)
        return self.content[stream]

    def reset(self, stream):
        self.send(self.RST_STREAM, 0, stream, struct.pack("!I", 8))     # CANCEL

    def close(self):
        self.input.close()
        self.socket.close()


@pytest.fixture(scope="module")
def stack():
    running = Http2Stack().start()
    yield running
    running.stop()


def test_page(stack, front):
    assert stack.curl(front, "/hello.php") == (200, b"hello\n")
    assert stack.curl(front, "/answer.php?status=304") == (304, b"")
    assert stack.curl(front, "/answer.php?status=404&body=none") == (404, b"none")


def test_head_request(stack, front):
    status, head = stack.curl(front, "/ask.php", "--head")
    assert status == 200 and b"x-velox-build" not in head.lower()


@pytest.mark.parametrize("size", [1, MEGABYTE, 20 * MEGABYTE])
@pytest.mark.parametrize("announced", [True, False])
def test_upload(stack, front, size, announced):
    """--upload-file sends what it reads from a pipe without a length."""
    body = pattern(size)
    options = ["--data-binary", "@-"] if announced else ["--request", "POST", "--upload-file", "-"]
    options += ["--header", "Content-Type: text/plain"]
    status, content = stack.curl(front, "/echo.php", *options, body=body)
    assert status == 200
    assert hashlib.sha256(body).hexdigest().encode() in content


def test_download(stack, front):
    status, content = stack.curl(front, f"/down.php?bytes={20 * MEGABYTE}")
    assert status == 200 and content == pattern(20 * MEGABYTE)


def test_many_streams_of_one_connection(stack, front):
    """The pages do not wait for the build."""
    target, request_id = ask(standin={"behaviour": "hang"})
    client = Client(stack.ports[front])
    building = client.get(target)
    wait_for_build(stack, request_id)
    pages = [client.get(f"/answer.php?status=200&body=p{number:02}") for number in range(30)]
    for number, page in enumerate(pages):
        assert client.read(page) == b"p%02d" % number
    client.reset(building)
    wait_for_build(stack, request_id, "cancelled")
    client.close()


def test_built_file(stack, front):
    target, request_id = ask(standin={"size": 5 * MEGABYTE})
    status, content = stack.curl(front, target)
    assert status == 200
    assert hashlib.sha256(content).hexdigest() == stack.build_of(request_id)["sha256"]


def test_malformed_build_request(stack, front):
    status, content = stack.curl(front, ask_raw("{}"))
    assert status == 400 and b'"invalid_request"' in content


def test_client_that_leaves_ends_the_build(stack, front):
    target, request_id = ask(standin={"behaviour": "hang"})
    process = stack.start_curl(front, target)
    wait_for_build(stack, request_id)
    process.kill()
    process.communicate()
    wait_for_build(stack, request_id, "cancelled")


def test_stream_that_is_reset_ends_its_build_only(stack, front):
    given_up, given_up_id = ask(standin={"behaviour": "hang"})
    kept, kept_id = ask(standin={"size": 100_000, "delay_ms": 300})
    client = Client(stack.ports[front])
    streams = [client.get(target) for target in (given_up, kept)]
    wait_for_build(stack, given_up_id)
    client.reset(streams[0])
    wait_for_build(stack, given_up_id, "cancelled")
    content = client.read(streams[1])
    assert hashlib.sha256(content).hexdigest() == stack.build_of(kept_id)["sha256"]
    client.close()
