# SPDX-License-Identifier: MIT
"""Builds that are shared, forced, queued, abandoned and tried again, seen from all sides."""

import concurrent.futures
import email.utils
import json
import os
import random
import re
import time
import urllib.request

import pytest

import peers
from conftest import check_error, check_waits, descriptors_of, wait_until
from peers import SLOW

# The kept connections to Velox (KEPT_CONNECTIONS in velox.c).
KEPT = 2


def built(stack, content=b"built"):
    return json.dumps({"path": stack.artifact(content)})


def variant(request, request_id, seed=None, **members):
    """The same build asked for by somebody else: another id, members and plugins in another order."""
    rng = random.Random(seed)
    changed = {**json.loads(request), "request_id": request_id, **members}
    for name in ("plugins", "replaces", "excludes"):
        if name in changed:
            changed[name] = [dict(rng.sample(list(each.items()), len(each))) for each in changed[name]]
            rng.shuffle(changed[name])
    items = list(changed.items())
    rng.shuffle(items)
    return json.dumps(dict(items), indent=rng.choice([None, 1])).encode()


def some_build(stack):
    """One that no other test asks for, of several plugins."""
    return stack.build_request(rr_version=f"v{next(stack.numbers)}",
                               plugins=[{"module_name": f"github.com/x/y{n}/v2", "tag": f"v{n}"} for n in range(5)],
                               excludes=[{"module": "a", "version": "v1"}, {"module": "b", "version": "v2"}])


def descriptors(stack):
    return len(descriptors_of(stack.sidecar.child()))


# ---- equal builds --------------------------------------------------------------------------------

def test_ten_equal_requests_are_one_build(stack):
    request = some_build(stack)
    content = peers.random_bytes(300000)
    fronts = []
    for n in range(10):
        head = f"X-Mine: {n}\r\nSet-Cookie: n={n}\r\n"
        if n % 2:
            head += f'Content-Disposition: attachment; filename="mine-{n}"\r\n'
        fronts.append(stack.php_asks_for_build(variant(request, f"id-{n}", seed=n), head=head))
    call = stack.velox.accept()
    assert json.loads(call.body)["request_id"] == "id-0"
    wait_until(lambda: len(stack.sidecar.log("build shared")) == 9, "nine who share")
    call.answer(built(stack, content))
    for n, front in enumerate(fronts):
        answer = front.read_answer()
        assert answer.status == 200 and answer.body == content and answer.ended
        assert answer.get("X-Build-Request-ID") == f"id-{n}"
        assert answer.get("X-Mine") == str(n) and answer.get("Set-Cookie") == f"n={n}"
        name = f"mine-{n}" if n % 2 else "roadrunner-linux-amd64"
        assert answer.get("Content-Disposition") == f'attachment; filename="{name}"'
        assert re.fullmatch(r"\d+\.\d", answer.get("X-Build-Time"))
    assert len(stack.velox.history) == 1


def test_a_failure_is_told_to_all_who_share(stack):
    request = some_build(stack)
    fronts = [stack.php_asks_for_build(variant(request, f"id-{n}", seed=n)) for n in range(3)]
    stack.velox.accept().answer(json.dumps({"code": "internal", "message": "no such module"}), status=500)
    for n, front in enumerate(fronts):
        assert "no such module" in check_error(front.read_answer(), 500, "build_failed", request_id=f"id-{n}")
    assert len(stack.velox.history) == 1


@pytest.mark.parametrize("change", [
    {"rr_version": "v0"}, {"race": None}, {"debug": False}, {"target_platform": None},
    {"plugins": [{"module_name": "github.com/x/y0/v2", "tag": "v0"}]}, {"other": 1},
])
def test_what_differs_is_another_build(stack, change):
    request = some_build(stack)
    stack.php_asks_for_build(request)
    stack.velox.accept()
    stack.php_asks_for_build(variant(request, "another", seed=1, **change))
    stack.velox.accept()


@pytest.mark.parametrize("leavers", [[0], [9], [4, 0, 7]])
def test_leaving_does_not_disturb_those_who_stay(stack, leavers):
    request = some_build(stack)
    fronts = [stack.php_asks_for_build(variant(request, f"id-{n}", seed=n)) for n in range(10)]
    call = stack.velox.accept()
    for n in leavers:
        fronts[n].close()
        stack.sidecar.wait_log("client left", request_id=f"id-{n}")
    assert not call.closed.is_set()
    call.answer(built(stack))
    for n, front in enumerate(fronts):
        if n not in leavers:
            answer = front.read_answer()
            assert answer.body == b"built" and answer.get("X-Build-Request-ID") == f"id-{n}"
    assert len(stack.velox.history) == 1


def test_the_last_who_leaves_ends_the_build(stack):
    request = some_build(stack)
    fronts = [stack.php_asks_for_build(variant(request, f"id-{n}", seed=n)) for n in range(5)]
    call = stack.velox.accept()
    for n in (0, 3, 1, 4):
        fronts[n].close()
        stack.sidecar.wait_log("client left", request_id=f"id-{n}")
    assert not call.closed.is_set()
    left_at = time.monotonic()
    fronts[2].close()
    assert call.wait_closed() - left_at < 0.1 * SLOW
    stack.sidecar.wait_log("build cancelled")
    # Whoever comes now begins anew.
    front = stack.php_asks_for_build(variant(request, "next"))
    stack.velox.accept().answer(built(stack))
    assert front.read_answer().body == b"built"


def test_on_client_abort_finish_lets_a_posted_build_run_on(start):
    stack = start(velox={"on_client_abort": "finish"})
    request = some_build(stack)
    stack.php_asks_for_build(request).close()
    call = stack.velox.accept()
    stack.sidecar.wait_log("client left")
    assert not call.closed.wait(peers.A_MOMENT)
    front = stack.php_asks_for_build(variant(request, "later"))
    stack.sidecar.wait_log("build shared")
    call.answer(built(stack))
    assert front.read_answer().body == b"built"
    assert len(stack.velox.history) == 1


def test_on_client_abort_finish_drops_queued_builds(start):
    stack = start(velox={"on_client_abort": "finish", "max_concurrent_builds": 1})
    first = stack.php_asks_for_build()
    call = stack.velox.accept()
    stack.php_asks_for_build().close()
    stack.sidecar.wait_log("build cancelled")
    call.answer(built(stack))
    assert first.read_answer().body == b"built"
    assert stack.velox.is_idle()


# ---- force_rebuild -------------------------------------------------------------------------------

def test_a_forced_build_waits_for_the_end_of_the_other(stack):
    request = some_build(stack)
    front = stack.php_asks_for_build(variant(request, "plain"))
    call = stack.velox.accept()
    forced = [stack.php_asks_for_build(variant(request, f"forced-{n}", seed=n, force_rebuild=True)) for n in range(2)]
    late = stack.php_asks_for_build(variant(request, "late"))
    assert stack.velox.is_idle()
    call.answer(built(stack, b"old"))
    assert front.read_answer().body == b"old" and late.read_answer().body == b"old"
    call = stack.velox.accept()
    assert json.loads(call.body)["request_id"] == "forced-0" and json.loads(call.body)["force_rebuild"] is True
    # One that is not forced may join a forced one: the result is fresh.
    joined = stack.php_asks_for_build(variant(request, "joined"))
    stack.sidecar.wait_log("build shared", request_id="joined")
    call.answer(built(stack, b"new"))
    for each in (*forced, joined):
        assert each.read_answer().body == b"new"
    assert len(stack.velox.history) == 2


@pytest.mark.parametrize("end", ["fails", "is cancelled", "times out"])
def test_a_forced_build_starts_however_the_other_ends(start, end):
    stack = start(velox={"request_timeout": f"{300 * SLOW:.0f}ms"}, retry={"max_attempts": 1})
    request = some_build(stack)
    front = stack.php_asks_for_build(variant(request, "plain"))
    call = stack.velox.accept()
    forced = stack.php_asks_for_build(variant(request, "forced", force_rebuild=True))
    if end == "fails":
        call.answer(json.dumps({"code": "internal", "message": "no"}), status=500)
    elif end == "is cancelled":
        front.close()
    call = stack.velox.accept()
    assert json.loads(call.body)["request_id"] == "forced"
    call.answer(built(stack, b"new"))
    assert forced.read_answer().body == b"new"


def test_a_forced_build_that_is_left_while_it_waits_is_never_posted(stack):
    request = some_build(stack)
    front = stack.php_asks_for_build(request)
    call = stack.velox.accept()
    stack.php_asks_for_build(variant(request, "forced", force_rebuild=True)).close()
    assert stack.sidecar.wait_log("client left", request_id="forced")["stage"] == "queue"
    call.answer(built(stack))
    assert front.read_answer().body == b"built"
    assert stack.velox.is_idle()


# ---- the queue -----------------------------------------------------------------------------------

def test_one_who_leaves_the_queue_makes_room(start):
    stack = start(velox={"max_concurrent_builds": 1, "max_queued_builds": 2})
    first = stack.php_asks_for_build(stack.build_request(request_id="first"))
    call = stack.velox.accept()
    second = stack.php_asks_for_build(stack.build_request(request_id="second"))
    third = stack.php_asks_for_build(stack.build_request(request_id="third"))
    check_error(stack.php_asks_for_build().read_answer(), 503, "busy")
    second.close()
    stack.sidecar.wait_log("client left", request_id="second")
    fourth = stack.php_asks_for_build(stack.build_request(request_id="fourth"))
    check_error(stack.php_asks_for_build().read_answer(), 503, "busy")
    for front, name in ((first, "first"), (third, "third"), (fourth, "fourth")):
        assert json.loads(call.body)["request_id"] == name
        call.answer(built(stack, name.encode()))
        assert front.read_answer().body == name.encode()
        if name != "fourth":
            call = stack.velox.accept()


def test_equal_requests_take_one_place_in_the_queue(start):
    stack = start(velox={"max_concurrent_builds": 1, "max_queued_builds": 1})
    first = stack.php_asks_for_build()
    call = stack.velox.accept()
    request = some_build(stack)
    fronts = [stack.php_asks_for_build(variant(request, f"id-{n}", seed=n)) for n in range(4)]
    check_error(stack.php_asks_for_build().read_answer(), 503, "busy")
    call.answer(built(stack, b"first"))
    assert first.read_answer().body == b"first"
    stack.velox.accept().answer(built(stack, b"shared"))
    assert [front.read_answer().body for front in fronts] == [b"shared"] * 4


def test_retry_after_of_a_full_queue_tells_what_builds_take(start):
    stack = start(velox={"max_concurrent_builds": 1, "max_queued_builds": 1})
    fronts = [stack.php_asks_for_build() for _ in range(2)]
    for front in fronts:
        call = stack.velox.accept()
        time.sleep(1.1)  # the time of a build is what is tested; the second one has waited as long before it
        call.answer(built(stack))
        assert front.read_answer().body == b"built"
    for _ in range(2):
        stack.php_asks_for_build()
    stack.velox.accept()
    answer = stack.php_asks_for_build().read_answer()
    check_error(answer, 503, "busy")
    # Two are in front, of a second each.
    assert 2 <= int(answer.get("Retry-After")) <= 3 * SLOW


# ---- several servers, and when to come back ---------------------------------------------------------

def test_equal_builds_start_at_the_same_server(start):
    servers = [peers.Velox() for _ in range(3)]
    stack = start(velox={"server_url": ", ".join(server.url for server in servers)})
    path = stack.artifact(b"built")
    for server in servers:
        server.respond = lambda call: call.answer(json.dumps({"path": path}))
    used = set()
    for _ in range(12):
        request = stack.build_request(rr_version=f"v{random.random()}")
        for server in servers:
            server.history.clear()
        for n in range(3):
            assert stack.php_asks_for_build(variant(request, f"id-{n}", seed=n)).read_answer().status == 200
        asked = [number for number, server in enumerate(servers) if server.history]
        assert len(asked) == 1 and len(servers[asked[0]].history) == 3
        used.add(asked[0])
    assert len(used) > 1, "one server gets every build"
    for server in servers:
        server.close()


def test_a_server_that_is_down_costs_one_attempt(start):
    from ports import unused_port
    server = peers.Velox()
    stack = start(velox={"server_url": f"http://127.0.0.1:{unused_port()}, {server.url}"}, retry={"max_attempts": 2})
    server.respond = lambda call: call.answer(built(stack))
    for _ in range(6):
        assert stack.php_asks_for_build().read_answer().body == b"built"
    assert len(server.history) == 6
    server.close()


def test_retry_after_as_a_date_is_honoured(start):
    stack = start()
    path = stack.artifact(b"built")
    told = []

    def respond(call):
        if told:
            call.answer(json.dumps({"path": path}))
        else:
            told.append(int(time.time()) + 2)
            call.answer(status=503, headers=[("Retry-After", email.utils.formatdate(told[0], usegmt=True))])

    stack.velox.respond = respond
    assert stack.php_asks_for_build().read_answer().body == b"built"
    # A date has whole seconds, and what is left of the present one may be counted or not.
    assert told[0] - 1.05 <= time.time() <= told[0] + 1 * SLOW


def test_delays_are_drawn_within_the_bounds_of_jitter(start):
    stack = start(retry={"initial_delay": "100ms", "max_delay": "100ms", "jitter": 0.5, "max_attempts": 12})
    stack.velox.respond = lambda call: call.answer(status=503)
    began = time.monotonic()
    check_error(stack.php_asks_for_build().read_answer(), 502, "velox_unavailable")
    delays = [line["delay_ms"] for line in stack.sidecar.log("build retry")]
    assert len(delays) == 11 and all(50 <= delay <= 150 for delay in delays), delays
    assert len(set(delays)) > 3, "no lots are drawn"
    check_waits(began, [call.at for call in stack.velox.history], [delay / 1000 for delay in delays])


# ---- connections to Velox ---------------------------------------------------------------------------

def test_a_connection_to_velox_is_used_again(start):
    stack = start()
    for _ in range(5):
        assert stack.build().body == b"built"
    assert len(stack.velox.history) == 5 and len(stack.velox.connections) == 1


def test_a_kept_connection_that_is_cut_counts_as_an_attempt(start):
    """An HTTP library would post once more by itself; here nothing is posted that is not logged."""
    stack = start(retry={"max_attempts": 2})
    assert stack.build().body == b"built"
    stack.velox.respond = lambda call: call.cut()
    check_error(stack.php_asks_for_build().read_answer(), 502, "velox_unavailable")
    assert len(stack.velox.history) == 1 + 2
    assert len(stack.sidecar.log("build retry", reason="cut")) == 1


def test_a_velox_that_was_started_again_is_not_noticed(start):
    stack = start()
    assert stack.build().body == b"built"
    for connection in stack.velox.connections:
        connection.shutdown(2)
    wait_until(lambda: all(call.closed.is_set() for call in stack.velox.history), "closed connections")
    assert stack.build().body == b"built"
    assert not stack.sidecar.log("build retry")


def test_the_wait_for_velox_is_kept_alive(stack):
    """A firewall that forgets the connection, or a host that dies, would go unnoticed for minutes."""
    stack.php_asks_for_build()
    port = stack.velox.accept().connection.getpeername()[1]
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table if line.split()[1].endswith(f":{port:04X}")]
    assert [row[5].split(":")[0] for row in rows] == ["02"], rows  # the keepalive timer


# ---- everybody leaves -------------------------------------------------------------------------------

@pytest.mark.parametrize("on_client_abort", ["cancel", "finish"])
def test_nothing_is_left_of_500_clients_who_leave_at_random_moments(start, standin, folder, on_client_abort):
    stack = start(velox={"server_url": standin, "max_concurrent_builds": 20, "on_client_abort": on_client_abort},
                  artifact={"root": f"{folder}/built"})
    rng = random.Random(4)
    stack.fpm.serve(lambda worker: (worker.read_request(), worker.answer(
        b"X-Velox-Build: 1\r\n\r\n" + stack.build_request(
            rr_version=f"v{rng.randrange(200)}", plugins=[],
            standin={"size": 300000, "delay_ms": rng.randrange(150)})), worker.wait_closed()))
    front = stack.ask()
    assert front.read_answer().status == 200  # every thread runs
    front.close()
    before = descriptors(stack)

    def client(number):
        front = peers.Front(stack.sidecar.address)
        front.ask()
        if number % 5 == 0:
            assert front.read_answer().status == 200
        else:
            time.sleep(random.Random(number).random() * 0.2)
        front.close()

    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        assert len(list(pool.map(client, range(500)))) == 500
    wait_until(lambda: descriptors(stack) <= before + KEPT, "descriptors to be closed")

    def states():
        builds = json.load(urllib.request.urlopen(standin + "/standin/log"))["builds"]
        return {build["state"] for build in builds}
    # "running" would be a build that nobody waits for.
    wait_until(lambda: "running" not in states(), "the end of all builds")
    assert states() == ({"finished", "cancelled"} if on_client_abort == "cancel" else {"finished"})
    assert stack.sidecar.log("build cancelled")  # in the queue, if nowhere else
    stack.sidecar.signal(15)
    assert stack.sidecar.wait(3 * SLOW) == 0, "somebody is still waited for"
