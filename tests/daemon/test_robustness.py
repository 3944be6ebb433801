# SPDX-License-Identifier: MIT
"""Peers that misbehave at random: the process lives on, serves, and leaks nothing."""

import json
import os
import random
import threading
import time

import pytest

import peers
from conftest import descriptors_of, wait_until
from peers import environment, random_bytes


def descriptors(stack):
    return len(descriptors_of(stack.sidecar.child()))


@pytest.fixture
def watched(stack):
    """The usual stack; after the test the same child still serves and holds no more than before."""
    stack.check_serves()
    stack.velox.respond = lambda call: call.answer(json.dumps({"path": warm}))
    warm = stack.artifact(b"warm")
    stack.php_asks_for_build().read_answer()
    child, before = stack.sidecar.child(), descriptors(stack)
    yield stack
    stack.tidy()
    wait_until(lambda: descriptors(stack) <= before + 1, f"no more than {before} descriptors")
    assert stack.sidecar.child() == child, "the child died"
    stack.check_serves()


def connect(stack):
    """A full backlog is the test's own haste."""
    while True:
        try:
            return peers.Front(stack.sidecar.address)
        except BlockingIOError:
            time.sleep(0.001)


def in_parallel(jobs, width=8):
    """Runs the jobs, `width` at a time; the first exception is raised here."""
    failures, jobs, lock = [], list(jobs), threading.Lock()

    def run():
        while True:
            with lock:
                if not jobs or failures:
                    return
                job = jobs.pop(0)
            try:
                job()
            except Exception as failure:  # noqa: BLE001
                failures.append(failure)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(width)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(12 * peers.DEADLINE)
    assert not failures, repr(failures[0])
    assert not any(thread.is_alive() for thread in threads), "an exchange hangs"


def test_random_bytes_from_a_front(watched):
    def job(seed):
        rng = random.Random(seed)
        front = connect(watched)
        try:
            front.send(peers.begin_request()[:rng.choice((0, 8, 16))], rng.randbytes(rng.randrange(200)),
                       *[peers.record(rng.randrange(13), rng.choice((0, 1, 2)), rng.randbytes(rng.randrange(40)),
                                      rng.randrange(9)) for _ in range(rng.randrange(6))])
        except OSError:
            pass
        front.close()

    watched.fpm.serve(lambda worker: worker.read_request())
    in_parallel([lambda seed=seed: job(seed) for seed in range(200)])


def test_random_records_from_a_worker(watched):
    def answer(worker):
        worker.read_request()
        rng = random.Random(worker.connection.fileno() * time.monotonic_ns())
        for _ in range(rng.randrange(8)):
            worker.send(rng.choice((
                lambda: peers.record(rng.randrange(13), rng.choice((0, 1, 1, 1, 2)), rng.randbytes(rng.randrange(100))),
                lambda: peers.stream(peers.STDOUT, b"X-Velox-Build: 1\r\n"),
                lambda: peers.stream(peers.STDOUT, b"\r\n\r\n"),
                lambda: peers.stream(peers.STDOUT, b'{"rr_version":'),
                lambda: peers.stream(peers.STDERR, rng.randbytes(5000)),
                lambda: rng.randbytes(rng.randrange(20)),
                peers.end_request))())

    def job():
        front = connect(watched)
        front.ask()
        try:
            while front.read_record():
                pass
        except peers.PeerClosed:
            pass
        front.close()

    watched.fpm.serve(answer)
    in_parallel([job] * 150)


def test_random_answers_of_velox(watched):
    good = json.dumps({"path": watched.artifact(b"built")}).encode()

    def respond(call):
        rng = random.Random(call.body)
        try:
            call.send(rng.choice((b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 %d X\r\n" % rng.randrange(100, 999),
                                  rng.randbytes(10))))
            call.send(rng.choice((b"", b"\r\n", b"Content-Length: %d\r\n\r\n" % rng.choice((0, len(good), 10 ** 12)),
                                  b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Encoding: gzip\r\n\r\n")))
            call.send(rng.choice((good, good[:10], rng.randbytes(50), b"[" * 5000)))
            call.cut()
        except OSError:
            pass

    def php(worker):
        worker.read_request()
        worker.answer(b"X-Velox-Build: 1\r\n\r\n" + watched.build_request())
        worker.wait_closed()

    def job():
        front = connect(watched)
        front.ask()
        answer = front.read_answer()
        assert answer.ended and answer.status in (200, 400, 500, 502, 504), answer.stdout
        assert answer.status != 200 or answer.body == b"built"
        front.close()

    watched.velox.respond = respond
    watched.fpm.serve(php)
    in_parallel([job] * 60)


def test_everybody_leaves_at_random(watched):
    """Pages, uploads, builds and downloads, cut at any point by any of the three peers."""
    path = watched.artifact(random_bytes(3 << 20))

    def php(worker):
        rng = random.Random(time.monotonic_ns())
        request = worker.read_params() if rng.random() < 0.3 else worker.read_request()
        if request.get("QUERY_STRING") == "build":
            content = b"X-Velox-Build: 1\r\n\r\n" + watched.build_request()
        else:
            content = b"Content-Type: text/plain\r\n\r\n" + random_bytes(rng.randrange(300000))
        if rng.random() < 0.2:
            content = content[:rng.randrange(len(content))]
            worker.stdout(content)
            return
        worker.answer(content)
        worker.wait_closed()

    def respond(call):
        rng = random.Random(call.body)
        time.sleep(rng.random() * 0.02)
        try:
            if rng.random() < 0.2:
                call.cut()
            else:
                call.answer(json.dumps({"path": path if rng.random() < 0.8 else "/nowhere"}))
        except OSError:
            pass

    def job(seed):
        rng = random.Random(seed)
        body = random_bytes(rng.choice((0, 0, 100, 200000)))
        front = connect(watched)
        try:
            for _ in range(rng.randrange(1, 4)):
                front.ask(environment("POST", body, extra=[("QUERY_STRING", rng.choice(("build", "page")))]), body,
                          keep=True)
                manner = rng.random()
                if manner < 0.5:
                    answer = front.read_answer()
                    if not answer.ended:
                        break
                elif manner < 0.7:
                    time.sleep(rng.random() * 0.02)
                    front.send(peers.record(peers.ABORT_REQUEST, 1))
                    if not front.read_answer().ended:
                        break
                    # With an upload under way the rest of it follows its end.
                    if len(body) > 60000:
                        front.sender.join()
                else:
                    time.sleep(rng.random() * 0.02)
                    break
        except (OSError, peers.PeerClosed):
            pass
        front.close()

    watched.velox.respond = respond
    watched.fpm.serve(php)
    in_parallel([lambda seed=seed: job(seed) for seed in range(150)], width=12)
