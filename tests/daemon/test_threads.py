# SPDX-License-Identifier: MIT
"""Several relay threads at one listener: each gets its share, and no connection wakes them all."""

import glob
import time

import pytest

from conftest import wait_until

THREADS = 4


def watched(child):
    """How many descriptors each thread watches, by its epoll set."""
    counts = []
    for path in glob.glob(f"/proc/{child}/fdinfo/*"):
        try:
            with open(path) as info:
                counts.append(info.read().count("tfd:"))
        except FileNotFoundError:
            pass
    return sorted(counts)[-THREADS:]


def wake_ups(child):
    """How often threads of the process have gone to sleep so far."""
    total = 0
    for path in glob.glob(f"/proc/{child}/task/*/status"):
        with open(path) as status:
            total += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return total


def serve(worker):
    worker.read_request()
    worker.answer("\r\npage")


@pytest.fixture
def four_threads(start):
    stack = start(sidecar={"threads": THREADS})
    stack.sidecar.wait_log("ready")
    if stack.sidecar.is_watched():
        pytest.skip("a checker has its own way of running threads")
    # Each thread watches the same when idle; the first look at the listener may still be closing.
    wait_until(lambda: len(set(watched(stack.sidecar.child()))) == 1, "idle threads")
    stack.fpm.serve(serve)
    return stack


@pytest.mark.parametrize("at_once", [1, 50])
def test_kept_connections_are_spread_evenly(four_threads, at_once):
    stack, count = four_threads, 200
    child = stack.sidecar.child()
    idle = watched(child)
    for _ in range(count // at_once):
        fronts = [stack.ask(keep=True) for _ in range(at_once)]
        for front in fronts:
            assert front.read_answer().body == b"page"
    # A thread may be moving to the end of the line at the moment.
    wait_until(lambda: sum(watched(child)) == sum(idle) + count, "all connections to be watched")
    shares = [now - before for now, before in zip(watched(child), idle)]
    # Busy threads leave connections to idle ones, so a crowd is spread as the threads get to run.
    assert max(shares) <= count // THREADS * (1.5 if at_once == 1 else 2.5), shares


def test_a_connection_wakes_one_thread(four_threads):
    """To accept it, and no other; a herd would be three or four. What a request adds depends
    on how busy the machine is, so none is sent."""
    stack, count = four_threads, 60
    child = stack.sidecar.child()
    idle, before = sum(watched(child)), wake_ups(child)
    for number in range(1, count + 1):
        stack.front()
        wait_until(lambda: sum(watched(child)) >= idle + number, "the connection to be watched")
    each = (wake_ups(child) - before) / count
    assert each < 1.8, f"{each} wake-ups a connection"


def test_a_place_that_becomes_free_in_another_thread_is_taken_at_once(start):
    """By whichever thread; without being told it would look only now and then."""
    stack = start(sidecar={"threads": THREADS}, listen={"max_connections": 2})
    stack.fpm.serve(serve)
    for _ in range(2 * THREADS):
        first = stack.ask(keep=True)
        second = stack.ask(keep=True)
        assert first.read_answer().body == b"page" and second.read_answer().body == b"page"
        waiting = stack.ask(keep=True)
        assert waiting.is_silent(0.01)
        began = time.monotonic()
        first.close()
        assert waiting.read_answer().body == b"page"
        took = time.monotonic() - began
        assert took < 0.05 or stack.sidecar.is_watched(), f"{took} s"
        second.close()
        waiting.close()
