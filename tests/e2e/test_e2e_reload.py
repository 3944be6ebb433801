# SPDX-License-Identifier: MIT
"""Reloads and upgrades under real traffic: every request through nginx is answered."""
import json
import os
import signal
import threading
import time
import urllib.parse

import pytest

from stack import wait_until


def reloads(stack):
    return (stack.directory / "sidecar.log").read_text(errors="replace").count("configuration reloaded")


@pytest.mark.parametrize("front", ["plain", "kept"])
def test_no_request_is_lost(stack, front):
    failures, answered, done = [], [], threading.Event()

    def ask(method, body):
        while not done.is_set():
            try:
                answer = stack.request(method, "/echo.php", body, front=front)
                if answer.status != 200 or answer.json()["length"] != len(body or ""):
                    failures.append((answer.status, answer.body))
                answered.append(method)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                failures.append(repr(error))
            time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=arguments)
               for arguments in [("GET", None), ("POST", "x" * 1000)] * 2]
    for thread in threads:
        thread.start()
    try:
        for number in [signal.SIGHUP] * 5 + [signal.SIGUSR2] * 2 + [signal.SIGHUP] * 5:
            before, asked = reloads(stack), len(answered)
            stack.sidecar.send_signal(number)
            wait_until(lambda: reloads(stack) > before, "the reload")
            wait_until(lambda: len(answered) > asked + 20, "answers between the reloads")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert {"GET", "POST"} == set(answered)


def test_the_file_comes_from_the_old_child(stack):
    """nginx waits for a build through a reload and an upgrade."""
    request_id = f"reload-{os.getpid()}"
    waiting = stack.send("/ask.php?json=" + urllib.parse.quote(json.dumps(
        {"request_id": request_id, "standin": {"delay_ms": 700, "size": 100000}})))
    wait_until(lambda: stack.builds_of(request_id), "the build")
    for number in (signal.SIGHUP, signal.SIGUSR2):
        before = reloads(stack)
        stack.sidecar.send_signal(number)
        wait_until(lambda: reloads(stack) > before, "the reload")
    answer = waiting.getresponse()
    assert answer.status == 200 and len(answer.read()) == 100000
