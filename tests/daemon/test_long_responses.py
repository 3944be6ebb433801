# SPDX-License-Identifier: MIT
"""Long responses in long records take another way through the sidecar: nobody may notice."""

import random
import threading

import pytest

import peers
from peers import STDERR, STDOUT, end_request, random_bytes, record


def mixed_records(content, seed):
    """Long records mostly, short ones, padded ones and error text in between."""
    lots = random.Random(seed)
    out, at, errors = [], 0, []
    while at < len(content):
        size = lots.choice([65535, 65528, 65528, 40000, 32768, 32767, 8184, 1])
        part = content[at:at + size]
        out.append(record(STDOUT, 1, part, lots.choice([0, 0, -len(part) % 8, 255])
                          if len(part) + 255 <= 65535 else 0))
        at += len(part)
        if lots.random() < 0.02:
            text = b"error text %d\n" % len(errors)
            errors.append(text)
            out.append(record(STDERR, 1, text))
    return out, b"".join(errors)


def send_all(worker, parts):
    def run():
        try:
            for part in parts:
                worker.send(part)
        except OSError:
            pass
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("request_id,keep", [(1, False), (1, True), (7, False)])
def test_every_byte_arrives_in_its_place(stack, seed, request_id, keep):
    content = random_bytes(12 << 20, seed)
    front = stack.front()
    front.ask(request_id=request_id, keep=keep)
    worker = stack.fpm.accept()
    worker.read_request()
    records, errors = mixed_records(content, seed)
    sender = send_all(worker, [record(STDOUT, 1, b"X-Page: long\r\n\r\n")] + records + [end_request(app_status=3)])
    answer = front.read_answer(request_id)
    sender.join()
    assert answer.body == content and answer.stderr == errors and answer.app_status == 3
    worker.wait_closed()
    if keep:
        stack.check_serves_next(front)


def test_an_abort_in_the_middle_leaves_the_connection_usable(stack):
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.send(record(STDOUT, 1, b"\r\n"))
    sender = send_all(worker, [record(STDOUT, 1, b"x" * 65528)] * 1000)
    for _ in range(64):
        assert front.read_record().type == STDOUT
    front.send(record(peers.ABORT_REQUEST))
    while front.read_record().type != peers.END_REQUEST:
        pass
    worker.wait_closed()
    sender.join()
    stack.check_serves_next(front)


@pytest.mark.parametrize("extra", [0, 8, 1000, 65530])
def test_a_death_in_the_middle_is_the_same_cut(stack, extra):
    """Whatever came before it arrives, and nothing else."""
    content = random_bytes(4 << 20)
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    whole = record(STDOUT, 1, b"Content-Length: 99999999\r\n\r\n") + peers.stream(STDOUT, content, size=65528)
    begun = record(STDOUT, 1, b"y" * 65528)[:extra]
    sender = send_all(worker, [whole, begun])
    got = b""
    try:
        while len(got) < len(whole) + extra:
            piece = front.connection.recv(1 << 20)
            if not piece:
                break
            got += piece
    finally:
        sender.join()
        worker.close()
    # Records may be cut anew, so the contents are compared.
    source, contents = memoryview(got), b""
    while len(source) >= 8:
        length, padding = int.from_bytes(source[4:6], "big"), source[6]
        assert source[1] == STDOUT
        contents += bytes(source[8:8 + length])
        source = source[8 + length + padding:]
    expected = b"Content-Length: 99999999\r\n\r\n" + content + b"y" * max(0, extra - 8)
    assert contents == expected
    front.wait_closed()


def test_a_slow_reader_gets_all(stack):
    content = random_bytes(3 << 20)
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    sender = send_all(worker, [record(STDOUT, 1, b"\r\n") + peers.stream(STDOUT, content, size=65528) + end_request()])
    for _ in range(30):
        front.source.buffer += front.connection.recv(10000)
    assert front.read_answer().body == content
    sender.join()


def test_a_client_that_leaves_in_the_middle_closes_the_worker(stack):
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    sender = send_all(worker, [record(STDOUT, 1, b"\r\n")] + [record(STDOUT, 1, b"x" * 65528)] * 2000)
    for _ in range(48):
        assert front.read_record().type == STDOUT
    front.close()
    sender.join()
    worker.wait_closed()
    stack.check_serves()
