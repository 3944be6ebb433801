# SPDX-License-Identifier: MIT
"""Fixtures for the tests against real servers.

VELOX_SIDECAR: the binary; VELOX_TOOLS: the folder that holds velox-standin. Without them the files
of an in-tree build are taken. A missing server is an error, never a skip.
"""
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(folder) for folder in Path(__file__).resolve().parents[:2]]

from stack import FRONTS, Stack  # noqa: E402


@pytest.fixture(scope="session")
def stack():
    running = Stack(php_workers=4).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def one_worker():
    """PHP-FPM with a single worker: whoever holds it stops everybody else."""
    running = Stack(php_workers=1).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def impatient():
    """Gives a build up after 1 s, an HTTP exchange with Velox after 300 ms."""
    running = Stack(php_workers=2, ini={
        "velox": {"build_timeout": "1s", "request_timeout": "300ms"},
        "retry": {"max_attempts": "2", "initial_delay": "10ms", "max_delay": "20ms"},
    }).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def over_tcp():
    running = Stack(php_workers=2, tcp=True).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def accel():
    """nginx sends the files."""
    running = Stack(php_workers=2, accel=True).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def with_status():
    running = Stack(php_workers=2, status=True).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def remote():
    """Velox is on another machine."""
    running = Stack(php_workers=2, remote=True).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def cached():
    running = Stack(php_workers=2, cached=True).start()
    yield running
    running.stop()


@pytest.fixture(params=list(FRONTS))
def front(request):
    """Each way in which nginx may talk to the sidecar."""
    return request.param


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for name in ("stack", "one_worker", "impatient", "over_tcp", "accel", "remote", "with_status", "cached"):
            if name in getattr(item, "funcargs", {}):
                report.sections.append((f"logs of {name}", item.funcargs[name].logs()))
