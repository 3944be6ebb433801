# SPDX-License-Identifier: MIT
"""Bodies that fit no memory, up and down, every byte compared.

256 MB each by default; VELOX_TEST_LONG=1 takes 4.5 GB, past where 32 bits end (ten seconds or more for each test, no disk).
"""

import os
import threading

import pytest

from peers import STDIN, STDOUT, end_request, random_bytes, record
from ports import unused_port

SIZE = 9 << 29 if os.environ.get("VELOX_TEST_LONG") == "1" else 256 << 20
# Not a multiple of anything that the program counts in, so that a block that is lost, doubled or moved shows.
PERIOD = 1_000_003
BLOCK = random_bytes(PERIOD) * 2
LIMIT_KB = 16 << 10


def records_of(kind, size, each=65528):
    """The records of a stream of so many bytes, without its end."""
    at = 0
    while at < size:
        length = min(each, size - at)
        yield record(kind, 1, BLOCK[at % PERIOD:at % PERIOD + length])
        at += length


def with_end(records):
    yield from records
    yield record(STDIN)


class Comparer:
    def __init__(self):
        self.position = 0

    def __call__(self, content):
        at = self.position % PERIOD
        assert content == BLOCK[at:at + len(content)], f"differs after byte {self.position}"
        self.position += len(content)


def send_in_background(connection, parts):
    def run():
        try:
            for part in parts:
                connection.sendall(part)
        except OSError:
            pass
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def begin(stack, extra=(), method="POST"):
    front = stack.front()
    front.begin([("REQUEST_METHOD", method), ("SCRIPT_NAME", "/index.php"), *extra])
    return front


def read_body(worker):
    """Compares the request's body; its length."""
    compare = Comparer()
    worker.read_params()
    while True:
        received = worker.source.next()
        assert received is not None and received.type == STDIN, received
        if not received.content:
            return compare.position
        compare(received.content)


@pytest.fixture(params=["unix", "tcp"])
def front_listens(request):
    return {"listen": {"fastcgi": f"127.0.0.1:{unused_port()}"}} if request.param == "tcp" else {}


def test_up(start, front_listens):
    stack = start(**front_listens)
    front = begin(stack, [("CONTENT_LENGTH", str(SIZE))])
    sender = send_in_background(front.connection, with_end(records_of(STDIN, SIZE)))
    worker = stack.fpm.accept()
    assert read_body(worker) == SIZE
    sender.join()
    worker.answer("\r\ntaken")
    assert front.read_answer().body == b"taken"
    stack.sidecar.assert_grew_less(0, LIMIT_KB)


def test_up_with_a_length_that_nobody_announces(start):
    """Collected on disk first, so a tenth of it is long enough here."""
    size = SIZE // 10
    stack = start(php_fpm={"max_spooled_body": "2G"})
    front = begin(stack)
    sender = send_in_background(front.connection, with_end(records_of(STDIN, size)))
    worker = stack.fpm.accept()
    assert worker.read_params().get("CONTENT_LENGTH") == str(size)
    assert read_body(worker) == size
    sender.join()
    worker.answer("\r\ntaken")
    assert front.read_answer().body == b"taken"
    stack.sidecar.assert_grew_less(0, LIMIT_KB)


@pytest.mark.parametrize("each", [65528, 8000])
def test_down(start, front_listens, each):
    stack = start(**front_listens)
    front = begin(stack, [("CONTENT_LENGTH", "0")], "GET")
    front.send(record(STDIN))
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(record(STDOUT, 1, b"Content-Type: x/y\r\n\r\n"))

    def parts():
        yield from records_of(STDOUT, SIZE, each)
        yield end_request()

    sender = send_in_background(worker.connection, parts())
    compare = Comparer()
    assert front.read_answer(sink=compare).ended
    assert compare.position == SIZE
    sender.join()
    stack.sidecar.assert_grew_less(0, LIMIT_KB)


def test_up_and_down_at_once(start):
    """Whatever comes up goes down again."""
    stack = start()
    front = begin(stack, [("CONTENT_LENGTH", str(SIZE))])
    sender = send_in_background(front.connection, with_end(records_of(STDIN, SIZE)))
    worker = stack.fpm.accept()
    worker.read_params()

    def echo():
        worker.send(record(STDOUT, 1, b"Content-Type: x/y\r\n\r\n"))
        while (received := worker.source.next()).content:
            worker.send(record(STDOUT, 1, received.content))
        worker.end()

    echoer = threading.Thread(target=echo, daemon=True)
    echoer.start()
    compare = Comparer()
    assert front.read_answer(sink=compare).ended
    assert compare.position == SIZE
    echoer.join()
    sender.join()
    stack.sidecar.assert_grew_less(0, LIMIT_KB)
