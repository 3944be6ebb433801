# SPDX-License-Identifier: MIT
"""Waiting costs nothing: no exchange that waits for somebody else keeps a CPU busy."""

import os
import socket
import time

import pytest

import peers
from peers import environment, random_bytes


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fill(connection, block):
    connection.settimeout(0.1 * peers.SLOW)
    try:
        while True:
            connection.sendall(block)
    except socket.timeout:
        pass


def nothing(stack):
    pass


def idle_kept_connection(stack):
    front = stack.ask(keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("\r\npage")
    front.read_answer()


def half_a_head_from_the_front(stack):
    stack.front().send(peers.begin_request()[:5])


def page_that_does_not_come(stack):
    stack.ask()
    stack.fpm.accept().read_request()


def page_that_does_not_come_for_a_half_closed_front(stack):
    stack.ask().connection.shutdown(socket.SHUT_WR)
    stack.fpm.accept().read_request()


def worker_that_closed_its_reading_side(stack):
    stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("\r\npart")
    worker.connection.shutdown(socket.SHUT_RD)


def upload_that_nobody_reads(stack):
    front = stack.front()
    front.begin(environment("POST", length="1000000000"))
    stack.fpm.accept().read_params()
    fill(front.connection, peers.record(peers.STDIN, 1, b"x" * 32768))


def page_that_nobody_reads(stack):
    stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("\r\n")
    fill(worker.connection, peers.record(peers.STDOUT, 1, b"x" * 65528))


def page_that_nobody_reads_from_a_worker_that_is_gone(stack):
    stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout("\r\n")
    fill(worker.connection, peers.record(peers.STDOUT, 1, b"x" * 65528))
    worker.close()


def questions_whose_answers_nobody_reads(stack):
    front = stack.front()
    fill(front.connection, peers.record(peers.GET_VALUES, 0, peers.encode_params([("FCGI_MAX_CONNS", "")])) * 100)


def build_that_hangs(stack):
    stack.php_asks_for_build()
    stack.velox.accept()


def build_that_hangs_for_a_half_closed_front(stack):
    stack.php_asks_for_build().connection.shutdown(socket.SHUT_WR)
    stack.velox.accept()


def build_whose_php_does_not_end(stack):
    stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout(b"X-Velox-Build: 1\r\n\r\n" + stack.build_request())
    worker.connection.shutdown(socket.SHUT_WR)
    stack.velox.accept()


def build_during_an_upload(stack):
    front = stack.front()
    front.begin(environment("POST", length="1000000000"))
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer(b"X-Velox-Build: 1\r\n\r\n" + stack.build_request())
    stack.velox.accept()
    front.send(peers.record(peers.STDIN, 1, b"x" * 32768))


def download_that_nobody_reads(stack):
    stack.php_asks_for_build()
    path = stack.artifact(random_bytes(8 << 20))
    stack.velox.accept().answer('{"path":"' + path + '"}')
    time.sleep(0.1)


def answer_that_drains_an_upload(stack):
    front = stack.front()
    front.begin(environment("POST", length="1000000000"))
    worker = stack.fpm.accept()
    worker.read_params()
    worker.answer("\r\nearly")
    front.read_answer()


@pytest.mark.parametrize("situation", [
    nothing, idle_kept_connection, half_a_head_from_the_front, page_that_does_not_come,
    page_that_does_not_come_for_a_half_closed_front, worker_that_closed_its_reading_side, upload_that_nobody_reads,
    page_that_nobody_reads, page_that_nobody_reads_from_a_worker_that_is_gone, questions_whose_answers_nobody_reads,
    build_that_hangs, build_that_hangs_for_a_half_closed_front, build_whose_php_does_not_end, build_during_an_upload,
    download_that_nobody_reads, answer_that_drains_an_upload], ids=lambda situation: situation.__name__)
def test_waiting_costs_no_cpu(stack, situation):
    situation(stack)
    child = stack.sidecar.child()
    time.sleep(0.05 * peers.SLOW)
    before = cpu_seconds(child), cpu_seconds(stack.sidecar.process.pid)
    time.sleep(0.3)
    after = cpu_seconds(child), cpu_seconds(stack.sidecar.process.pid)
    assert after[0] - before[0] <= 0.05 and after[1] - before[1] <= 0.05, "a CPU is busy"
