# SPDX-License-Identifier: MIT
"""Thousands of builds at once: what each one that waits costs, and what pages notice of them.

A few hundred show the same cost for each in seconds; VELOX_TEST_MANY=1 takes the full numbers (8,000 that wait
in the queue, 2,000 at Velox; up to half a minute, and 20,000 file descriptors).
"""

import os
import re
import resource
import statistics
import time

import pytest

import peers
from conftest import descriptors_of, wait_until
from peers import SLOW

FULL = os.environ.get("VELOX_TEST_MANY") == "1"
QUEUED, POSTED = (8000, 2000) if FULL else (800, 400)
CONCURRENT = 50


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * max(QUEUED, POSTED) + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} file descriptors, has {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted) if soft != resource.RLIM_INFINITY else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_kb(stack):
    with open(f"/proc/{stack.sidecar.child()}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def build_waits(stack):
    """A client whose build request has been taken off PHP; its connection."""
    front = peers.Front(stack.sidecar.address)
    front.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer(b"X-Velox-Build: 1\r\nContent-Type: application/json\r\n\r\n" + stack.build_request())
    worker.wait_closed()
    worker.close()
    stack.fpm.workers.clear()
    return front


def page_seconds(stack):
    began = time.perf_counter()
    front = peers.Front(stack.sidecar.address)
    front.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("Content-Type: text/plain\r\n\r\nhello")
    assert front.read_answer().body == b"hello"
    took = time.perf_counter() - began
    front.close()
    worker.close()
    stack.fpm.workers.clear()
    return took


def pages(stack):
    return statistics.median(page_seconds(stack) for _ in range(100))


def descriptors(stack):
    return len(descriptors_of(stack.sidecar.child()))


def check_many(stack, count, limit_kb, posted):
    """`posted`: how many of them are at Velox."""
    alone = pages(stack)
    fronts = [build_waits(stack) for _ in range(posted if posted < count else 60)]
    wait_until(lambda: len(stack.velox.history) == len(fronts), "the first builds at Velox")
    without = descriptors(stack)
    before_kb = memory_kb(stack)
    fronts += [build_waits(stack) for _ in range(count)]
    wait_until(lambda: len(stack.velox.history) == min(posted, len(fronts)), "all builds at Velox")
    each_kb = (memory_kb(stack) - before_kb) / count
    added = pages(stack) - alone
    print(f"{count} waiting: {each_kb:.2f} KB each, a page takes {added * 1e3:.3f} ms more")
    for front in fronts:
        front.close()
    wait_until(lambda: descriptors(stack) < without, "all to be noticed as gone", 20 * SLOW)
    assert each_kb <= limit_kb or stack.sidecar.is_watched()
    assert added < 0.001 * SLOW
    stack.check_serves()


def test_a_build_in_the_queue_costs_at_most_8_kb(start, many_descriptors):
    stack = start(sidecar={"log_level": "warn"},
                  velox={"max_concurrent_builds": CONCURRENT, "max_queued_builds": 10000})
    check_many(stack, QUEUED, 8, CONCURRENT)


def test_a_build_at_velox_costs_at_most_24_kb(start, many_descriptors):
    stack = start(sidecar={"log_level": "warn"})
    check_many(stack, POSTED, 24, POSTED + 60)
