# SPDX-License-Identifier: MIT
"""Downloads: every byte by every way, many at once, small ones in one write, files that are not in memory."""

import json
import os
import re
import threading

import pytest

import peers
from peers import random_bytes
from ports import unused_port

MIB = 1 << 20
CONTENT = random_bytes(64 * MIB)


def deliver(stack, path, front=None, **ask):
    front = stack.php_asks_for_build(front=front, **ask)
    stack.velox.accept().answer(json.dumps({"path": path, "logs": ""}))
    return front


# The records that are sent at once, and what is read at once, over TCP and unix sockets.
SIZES = [1, 65527, 65528, 65529, 6 * 61440 - 1, 6 * 61440, 6 * 61440 + 1, 15 * 65528, 16 * 65528 - 1, MIB - 1, MIB,
         MIB + 1, 3 * MIB + 12345]


@pytest.fixture(scope="module", params=["unix", "tcp"])
def both(request):
    """A sidecar on a unix socket, and one over TCP."""
    from conftest import SharedStack
    shared = SharedStack({"listen": {"fastcgi": f"127.0.0.1:{unused_port()}"}} if request.param == "tcp" else {})
    yield shared.get()
    shared.drop()


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives(both, size):
    answer = deliver(both, both.artifact(CONTENT[:size])).read_answer()
    assert answer.body == CONTENT[:size] and answer.ended
    both.tidy()


@pytest.mark.parametrize("first", [1, 4095, 61441, 1000003])
def test_a_range_may_begin_anywhere(both, first):
    pairs = peers.environment("GET", extra=[("HTTP_RANGE", f"bytes={first}-")])
    answer = deliver(both, both.artifact(CONTENT[:2 * MIB]), pairs=pairs).read_answer()
    assert answer.status == 206 and answer.body == CONTENT[first:2 * MIB]
    both.tidy()


def test_a_small_file_leaves_with_its_head_in_one_write(stack):
    """A read that finds the last byte finds the first one, too: there was one write."""
    front = deliver(stack, stack.artifact(CONTENT[:40000]))
    data = front.connection.recv(1 << 20)
    assert b"Status: 200 OK" in data and len(data) > 40000
    assert data[-16:-8] == bytes([1, 3, 0, 1, 0, 8, 0, 0]), "END_REQUEST is in it"


def read_aside(fronts, content):
    """Reads all of them at once; what came otherwise than it should."""
    wrong = []

    def read(front):
        position = 0

        def compare(piece):
            nonlocal position
            if piece != content[position:position + len(piece)]:
                wrong.append(position)
            position += len(piece)
        answer = front.read_answer(sink=compare)
        if position != len(content) or not answer.ended:
            wrong.append(f"ends at {position}")
    threads = [threading.Thread(target=read, args=(front,)) for front in fronts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


def test_a_stopped_reader_among_others_costs_nobody_anything(start):
    stack = start(sidecar={"threads": 1})
    path = stack.artifact(CONTENT)
    stopped = deliver(stack, path)
    _, begin = stopped.read_head()
    before = stack.sidecar.peak_memory_kb()
    assert read_aside([deliver(stack, path) for _ in range(8)], CONTENT) == []
    stack.sidecar.assert_grew_less(before, 2048)
    stack.sidecar.assert_grew_less(0, 16 << 10)
    assert begin + stopped.read_answer().stdout == CONTENT


def drop_from_memory(path):
    """True where the file's pages really went."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            os.preadv(file.fileno(), [bytearray(1)], 8 * MIB, os.RWF_NOWAIT)
        except BlockingIOError:
            return True
    return False


def prefetch_read_kb(child):
    """What the threads that wait for disks have read."""
    total = 0
    for task in os.listdir(f"/proc/{child}/task"):
        with open(f"/proc/{child}/task/{task}/comm") as comm:
            if comm.read().strip() != "prefetch":
                continue
        with open(f"/proc/{child}/task/{task}/io") as io:
            total += int(re.search(r"rchar: (\d+)", io.read()).group(1)) >> 10
    return total


@pytest.mark.parametrize("address", ["unix", "tcp"])
def test_a_file_that_is_not_in_memory_is_read_by_other_threads(start, address):
    stack = start(**({"listen": {"fastcgi": f"127.0.0.1:{unused_port()}"}} if address == "tcp" else {}))
    path = stack.artifact(CONTENT[:16 * MIB])
    if not drop_from_memory(path):
        pytest.skip("this file system keeps its files in memory")
    assert read_aside([deliver(stack, path)], CONTENT[:16 * MIB]) == []
    try:
        read_kb = prefetch_read_kb(stack.sidecar.child())
    except PermissionError:
        pytest.skip("/proc does not tell")
    assert read_kb > 0  # not all of it: a quick disk's readahead may get ahead of them
    stack.check_serves()


def test_a_client_may_leave_while_the_disk_is_read(stack):
    path = stack.artifact(CONTENT)
    for _ in range(5):
        drop_from_memory(path)
        front = deliver(stack, path)
        front.read_head()
        front.close()
    assert deliver(stack, stack.artifact(b"next")).read_answer().body == b"next"
    stack.check_serves()


def test_a_capped_send_buffer_is_told_once(start):
    with open("/proc/sys/net/core/wmem_max") as limit:
        capped = int(limit.read()) < MIB
    stack = start(sidecar={"threads": 3})
    for _ in range(2):
        assert deliver(stack, stack.artifact(CONTENT[:MIB])).read_answer().ended
    lines = [line for line in stack.sidecar.log() if "net.core.wmem_max" in line["msg"]]
    assert len(lines) == (1 if capped else 0)
