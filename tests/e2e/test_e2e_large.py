# SPDX-License-Identifier: MIT
"""Bodies that fit no memory, through real nginx, the sidecar and PHP-FPM.

128 MB by default; VELOX_TEST_LONG=1 takes 4.5 GB, past where 32 bits end (about a minute; PHP keeps an upload in a
file of that size).
"""
import hashlib
import os
import re
from pathlib import Path

import pytest

from stack import Stack
from test_e2e_pages import BLOCK, MEGABYTE

SIZE = 9 << 29 if os.environ.get("VELOX_TEST_LONG") == "1" else 128 * MEGABYTE
PEAK_RSS_KB = 16 * 1024


@pytest.fixture(scope="module")
def patient():
    running = Stack(php_workers=1).start()
    yield running
    running.stop()


@pytest.fixture
def flat_memory(patient):
    """Whatever the test does, the sidecar stays small."""
    child = patient.sidecar_child()
    Path(f"/proc/{child}/clear_refs").write_text("5")     # the peak is counted from here
    yield
    assert patient.sidecar_child() == child
    if "libasan" not in Path(f"/proc/{child}/maps").read_text():
        peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child}/status").read_text())[1])
        print(f"{SIZE} bytes, peak of the sidecar {peak} kB")
        assert peak < PEAK_RSS_KB


def blocks():
    for _ in range(SIZE // len(BLOCK)):
        yield BLOCK


@pytest.fixture(scope="module")
def digest():
    hasher = hashlib.sha256()
    for block in blocks():
        hasher.update(block)
    return hasher.hexdigest()


@pytest.mark.parametrize("front", ["kept_unbuffered"])
def test_up(patient, flat_memory, digest, front):
    connection = patient.connect(front, timeout=600)
    connection.request("POST", "/echo.php", blocks(), {"Content-Type": "text/plain", "Content-Length": str(SIZE)})
    answer = connection.getresponse()
    assert answer.status == 200
    assert b'"length":%d,"sha256":"%s"' % (SIZE, digest.encode()) in answer.read()
    connection.close()


@pytest.mark.parametrize("front", ["plain", "kept_unbuffered"])
def test_down(patient, flat_memory, digest, front):
    connection = patient.connect(front, timeout=600)
    connection.request("GET", f"/down.php?bytes={SIZE}")
    response = connection.getresponse()
    hasher = hashlib.sha256()
    length = 0
    while block := response.read(MEGABYTE):
        hasher.update(block)
        length += len(block)
    connection.close()
    assert length == SIZE and hasher.hexdigest() == digest
