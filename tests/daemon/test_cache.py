# SPDX-License-Identifier: MIT
"""Built files that are kept: answered without Velox, whole, and only while they are right."""

import glob
import hashlib
import json
import os
import pwd
import queue
import re
import resource
import shutil
import signal
import stat
import time
import zlib

import pytest

from conftest import Sidecar, Stack, make_folder, wait_until
from peers import SLOW, Velox, environment, random_bytes

CONTENT = random_bytes(300_007)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FOLDER = "{folder}/cache"


def start_cached(start, sections=None, **keys):
    sections = sections or {}
    return start(cache={"enabled": "yes", "directory": FOLDER, **keys}, **sections)


@pytest.fixture(scope="module")
def cached_stack():
    stack = Stack(make_folder(), {"cache": {"enabled": "yes", "directory": FOLDER}})
    yield stack
    try:
        stack.stop()
    finally:
        stack.sidecar.kill()
        shutil.rmtree(stack.folder, ignore_errors=True)


@pytest.fixture
def cached(cached_stack):
    cached_stack.sidecar.mark_log()
    yield cached_stack
    cached_stack.tidy()


def request(stack, **members):
    """A build request; without its request_id equal to itself."""
    return json.loads(stack.build_request(request_id=..., **members))


def build(stack, members, content=CONTENT, head="", path=None, **ask):
    """The answer to a request that must reach Velox."""
    front = stack.php_asks_for_build(json.dumps(members).encode(), head, **ask)
    call = stack.velox.accept()
    call.answer(json.dumps({"path": path or stack.artifact(content)}))
    return front.read_answer()


def hit(stack, members, head="", **ask):
    """The answer to a request that must not."""
    front = stack.php_asks_for_build(json.dumps(members).encode(), head, **ask)
    answer = front.read_answer()
    assert stack.velox.calls.empty(), "Velox was asked"
    return answer


def check_hit(answer, content=CONTENT):
    assert answer.status == 200 and answer.ended and answer.body == content, answer.head
    assert answer.get("X-Cache-Status") == "HIT" and int(answer.get("X-Cache-Age")) >= 0
    assert answer.get("X-Build-Time") is None
    assert answer.get("ETag") == '"' + hashlib.sha256(content).hexdigest() + '"'


def check_miss(answer, content=CONTENT):
    assert answer.status == 200 and answer.ended and answer.body == content, answer.head
    assert answer.get("X-Cache-Status") == "MISS" and answer.get("X-Cache-Age") is None
    assert re.fullmatch(r"\d+\.\d", answer.get("X-Build-Time"))
    assert answer.get("ETag") == '"' + hashlib.sha256(content).hexdigest() + '"'


def entries(stack):
    """Paths of the files that are kept."""
    return sorted(path for path in glob.glob(f"{stack.folder}/cache/*")
                  if re.fullmatch("[0-9a-f]{64}", os.path.basename(path)))


def status(stack):
    stack_status = stack.ask(environment(uri="/sidecar-status", extra=[("QUERY_STRING", "json")]))
    return json.loads(stack_status.read_answer().body)


def restart(stack, number=signal.SIGTERM):
    """The same sidecar, begun anew."""
    stack.sidecar.signal(number)
    stack.sidecar.wait()
    stack.sidecar.kill()
    os.unlink(stack.sidecar.log_path)
    stack.sidecar = Sidecar(stack.folder, stack.sections)
    stack.sidecar.wait_log("cache folder read")


def test_an_equal_request_is_answered_without_velox(cached):
    members = request(cached)
    first = build(cached, members)
    check_miss(first)
    second = hit(cached, {**members, "request_id": "another-1"})
    check_hit(second)
    assert second.get("X-Build-Request-ID") == "another-1"
    assert second.get("Last-Modified") == first.get("Last-Modified")
    assert second.get("Content-Length") == str(len(CONTENT))
    line = cached.sidecar.wait_log("cache hit", request_id="another-1")
    assert line["file_size"] == len(CONTENT)
    assert not cached.sidecar.log("build started", request_id="another-1")
    assert not cached.sidecar.log("build completed", request_id="another-1")


def test_the_built_file_may_go_or_change_once_it_is_kept(cached):
    members = request(cached)
    path = cached.artifact(CONTENT)
    check_miss(build(cached, members, path=path))
    with open(path, "r+b") as file:
        file.write(b"other")
    check_hit(hit(cached, members))
    os.unlink(path)
    check_hit(hit(cached, members))


def test_each_page_keeps_its_own_headers_and_file_name(cached):
    members = request(cached)
    build(cached, members, head="Set-Cookie: a=1\r\n")
    answer = hit(cached, members, head='Set-Cookie: b=2\r\nContent-Disposition: attachment; filename="mine"\r\n')
    check_hit(answer)
    assert answer.get_all("Set-Cookie") == ["b=2"]
    assert answer.get_all("Content-Disposition") == ['attachment; filename="mine"']
    assert "mine" not in (hit(cached, members).get("Content-Disposition"))


def test_conditions_and_ranges_hold_for_hits(cached):
    members = request(cached)
    build(cached, members)
    tag = f'"{SHA256}"'
    same = hit(cached, members, pairs=environment(extra=[("HTTP_IF_NONE_MATCH", tag)]))
    assert same.status == 304 and same.body == b"" and same.get("X-Cache-Status") == "HIT"
    part = hit(cached, members, pairs=environment(extra=[("HTTP_RANGE", "bytes=300000-"), ("HTTP_IF_RANGE", tag)]))
    assert part.status == 206 and part.body == CONTENT[300000:]
    assert part.get("Content-Range") == f"bytes 300000-300006/{len(CONTENT)}"


@pytest.mark.parametrize("size", [0, 1, 65528, 262144, 5_000_000])
def test_any_size(cached, size):
    members = request(cached)
    content = random_bytes(size, size)
    check_miss(build(cached, members, content), content)
    check_hit(hit(cached, members), content)


def test_the_order_of_plugins_makes_no_difference_and_versions_do(cached):
    plugins = [{"module_name": "github.com/a/b", "tag": "v1.0.0"}, {"module_name": "github.com/c/d", "tag": "v1.0.0"}]
    build(cached, request(cached, plugins=plugins))
    check_hit(hit(cached, request(cached, plugins=plugins[::-1])))
    plugins[0]["tag"] = "v1.0.1"
    check_miss(build(cached, request(cached, plugins=plugins)))


def test_force_rebuild_asks_velox_and_replaces_what_is_kept(cached):
    members = request(cached)
    build(cached, members)
    forced = build(cached, {**members, "force_rebuild": True}, b"built anew")
    check_miss(forced, b"built anew")
    check_hit(hit(cached, members), b"built anew")


def test_ten_at_once_share_one_build_then_ten_hits(cached):
    members = request(cached)
    fronts = [cached.php_asks_for_build(json.dumps({**members, "request_id": f"ten-{i}"}).encode())
              for i in range(10)]
    cached.velox.accept().answer(json.dumps({"path": cached.artifact(CONTENT)}))
    for front in fronts:
        check_miss(front.read_answer())
    assert cached.velox.calls.empty()
    fronts = [cached.php_asks_for_build(json.dumps(members).encode()) for i in range(10)]
    for front in fronts:
        check_hit(front.read_answer())
    assert cached.velox.calls.empty()


def test_a_failed_build_is_not_kept(cached):
    members = request(cached)
    front = cached.php_asks_for_build(json.dumps(members).encode())
    cached.velox.accept().answer(json.dumps({"code": "internal", "message": "no"}), status=500)
    assert front.read_answer().status == 500
    assert not cached.sidecar.log("cache entry added")


def test_nobody_else_may_read_folder_or_files(cached):
    build(cached, request(cached))
    assert stat.S_IMODE(os.stat(f"{cached.folder}/cache").st_mode) == 0o700
    for path in entries(cached):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_hits_are_found_after_a_restart_and_after_a_crash(start):
    stack = start_cached(start)
    members = request(stack)
    build(stack, members)
    restart(stack)
    check_hit(hit(stack, members))
    assert stack.sidecar.log("cache folder read", entries=1, size=len(CONTENT))
    restart(stack, signal.SIGKILL)
    check_hit(hit(stack, members))
    # The file is the content and a line for people behind it.
    kept = open(entries(stack)[0], "rb").read()
    assert kept[:len(CONTENT)] == CONTENT and SHA256.encode() in kept[len(CONTENT):]


def test_what_moves_is_built_anew_after_max_age_mutable(start):
    stack = start_cached(start, max_age_mutable="400ms" if SLOW == 1 else "4s")
    moving = request(stack, rr_version="master")
    fixed = request(stack)
    build(stack, moving)
    build(stack, fixed)
    check_hit(hit(stack, moving))
    age = wait_until(lambda: stack.sidecar.log("cache hit"), "a hit")
    assert age[0]["age_s"] == 0

    def call_of_old():
        """The call at Velox, once the entry is too old; until then hits are answered."""
        front = stack.php_asks_for_build(json.dumps(moving).encode())
        try:
            return front, stack.velox.calls.get(timeout=0.05 * SLOW)
        except queue.Empty:
            check_hit(front.read_answer())
            return None
    front, call = wait_until(call_of_old, "the end of max_age_mutable", 10 * SLOW)
    call.answer(json.dumps({"path": stack.artifact(b"moved")}))
    check_miss(front.read_answer(), b"moved")
    stack.sidecar.wait_log("cache entry removed", reason="age")
    check_hit(hit(stack, fixed))


def test_max_age_mutable_0_keeps_nothing_that_moves(start):
    stack = start_cached(start, max_age_mutable=0)
    members = request(stack, plugins=[{"module_name": "github.com/a/b", "tag": "latest"}])
    answer = build(stack, members)
    assert answer.get("X-Cache-Status") == "MISS" and "-" in answer.get("ETag")
    build(stack, members)
    assert entries(stack) == []


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def damage_content(path):
    flip(path, 1000)


def damage_trailer(path):
    times = os.stat(path)
    flip(path, len(CONTENT) + 120)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def cut_short(path):
    os.truncate(path, 1000)


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"more")


def empty(path):
    os.truncate(path, 0)


def link_elsewhere(path):
    os.unlink(path)
    os.symlink("/etc/passwd", path)


def make_fifo(path):
    os.unlink(path)
    os.mkfifo(path)


def share_with_others(path):
    os.chmod(path, 0o622)


def link_twice(path):
    os.link(path, os.path.dirname(path) + "/twin")


@pytest.mark.parametrize("damage", [damage_content, damage_trailer, cut_short, lengthen, empty, link_elsewhere,
                                    make_fifo, share_with_others, link_twice])
def test_what_is_not_as_it_was_stored_is_never_sent(cached, damage):
    before = set(entries(cached))
    members = request(cached)
    build(cached, members)
    path, = set(entries(cached)) - before
    damage(path)
    check_miss(build(cached, members, b"good again"), b"good again")
    cached.sidecar.wait_log("cache entry removed", reason="corrupt")
    check_hit(hit(cached, members), b"good again")
    assert "root:" not in cached.sidecar.log_text()


def test_an_entry_under_the_name_of_another_is_not_sent(cached):
    before = set(entries(cached))
    one, two = request(cached), request(cached)
    build(cached, one)
    path_one, = set(entries(cached)) - before
    build(cached, two, b"two")
    path_two, = set(entries(cached)) - before - {path_one}
    os.replace(path_two, path_one)
    check_miss(build(cached, one))


def test_scrubbing_finds_what_the_disk_forgot(start):
    stack = start_cached(start, scrub_interval="200ms")
    good, bad = request(stack), request(stack)
    build(stack, good)
    path_good, = entries(stack)
    build(stack, bad)
    path, = set(entries(stack)) - {path_good}
    times = os.stat(path)
    flip(path, 1000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    line = stack.sidecar.wait_log("cache entry removed", reason="corrupt")
    assert line["level"] == "warn" and line["key"] == os.path.basename(path)
    assert not os.path.exists(path)
    check_miss(build(stack, bad))
    check_hit(hit(stack, good))


def fill(stack, count, size=100_000):
    made = []
    for _ in range(count):
        members = request(stack)
        build(stack, members, random_bytes(size, len(made)))
        made.append(members)
        # Uses within a millisecond have no order.
        last_ms = int(time.time() * 1000)
        wait_until(lambda past=last_ms: int(time.time() * 1000) > past, "the next millisecond")
    return made


@pytest.mark.parametrize("limit,reason", [({"max_entries": 3}, "entries"), ({"max_size": "300000"}, "size")])
def test_the_least_recently_used_goes_first(start, limit, reason):
    stack = start_cached(start, **limit)
    made = fill(stack, 3)
    hit(stack, made[0])
    made += fill(stack, 1)
    stack.sidecar.wait_log("cache entry removed", reason=reason)
    assert len(entries(stack)) == 3
    hit(stack, made[0])
    hit(stack, made[2])
    hit(stack, made[3])


def test_the_least_frequently_used_goes_first_and_uses_outlive_a_restart(start):
    stack = start_cached(start, max_entries=3, eviction_policy="lfu")
    made = fill(stack, 3)
    for index in (0, 0, 0, 2, 2, 1):
        hit(stack, made[index])
    restart(stack)
    made += fill(stack, 1)
    assert len(entries(stack)) == 3
    for index in (0, 2, 3):
        hit(stack, made[index])


def test_the_oldest_goes_first(start):
    stack = start_cached(start, max_entries=2, eviction_policy="fifo")
    made = fill(stack, 2)
    hit(stack, made[0])
    made += fill(stack, 1)
    hit(stack, made[1])
    hit(stack, made[2])


def test_limits_that_came_down_hold_from_the_start(start):
    stack = start_cached(start)
    made = fill(stack, 4)
    hit(stack, made[0])
    stack.sections["cache"]["max_entries"] = "2"
    restart(stack)
    assert len(entries(stack)) == 2
    hit(stack, made[0])
    hit(stack, made[3])


def test_access_times_reach_the_disk(start):
    stack = start_cached(start, access_update_interval="50ms", max_entries=2)
    made = fill(stack, 2)
    hit(stack, made[0])
    times = f"{stack.folder}/cache/access"
    wait_until(lambda: os.path.exists(times) and re.search(r"^[0-9a-f]{64} \d+ 1$", open(times).read(), re.M),
               "the use in the file of access times")
    restart(stack, signal.SIGKILL)
    made += fill(stack, 1)
    hit(stack, made[0])
    hit(stack, made[2])


def test_what_is_larger_than_max_size_is_delivered_and_not_kept(start):
    stack = start_cached(start, max_size="200000")
    answer = build(stack, request(stack))
    assert answer.body == CONTENT and answer.get("X-Cache-Status") == "MISS" and SHA256 not in answer.get("ETag")
    assert stack.sidecar.wait_log("the built file cannot be kept in the cache")["level"] == "warn"
    assert entries(stack) == []


def test_a_folder_that_cannot_be_used_is_no_reason_to_be_gone(start):
    stack = start(cache={"enabled": "yes", "directory": "{folder}/log"})
    assert stack.sidecar.wait_log("the cache cannot be used: built files are not kept")["level"] == "error"
    answer = build(stack, request(stack))
    assert answer.body == CONTENT and answer.get("X-Cache-Status") == "MISS"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_folder_that_the_user_may_not_write_to_is_none_either(start):
    folder = make_folder()
    try:
        stack = start(sidecar={"user": "nobody"}, cache={"enabled": "yes", "directory": folder})
        line = stack.sidecar.wait_log("the cache cannot be used: built files are not kept")
        assert line["error"] == "Permission denied"
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_missing_folder_is_made_for_the_user(start):
    stack = start_cached(start, {"sidecar": {"user": "nobody"}})
    stack.sidecar.wait_log("cache folder read", entries=0)
    made = os.stat(f"{stack.folder}/cache")
    assert made.st_uid == pwd.getpwnam("nobody").pw_uid and stat.S_IMODE(made.st_mode) == 0o700


def test_others_in_the_folder_are_warned_of(start):
    folder = make_folder()
    try:
        os.mkdir(f"{folder}/kept")
        os.chmod(f"{folder}/kept", 0o777)
        stack = start(cache={"enabled": "yes", "directory": f"{folder}/kept"})
        assert stack.sidecar.wait_log("others may write to the cache's folder; it should be the service's alone")
    finally:
        shutil.rmtree(folder)


def test_a_folder_that_goes_away_is_none_either(start):
    stack = start_cached(start)
    members = request(stack)
    build(stack, members)
    shutil.rmtree(f"{stack.folder}/cache")
    answer = build(stack, members)
    assert answer.body == CONTENT and answer.get("X-Cache-Status") == "MISS"
    assert stack.sidecar.wait_log("the built file cannot be kept in the cache")


def test_a_full_disk_is_none_either(start):
    """A file size limit stands for it: what needs no root."""
    stack = start_cached(start)
    members = request(stack)
    resource.prlimit(stack.sidecar.child(), resource.RLIMIT_FSIZE, (100_000, 100_000))
    answer = build(stack, members)
    assert answer.body == CONTENT and answer.get("X-Cache-Status") == "MISS"
    stack.sidecar.wait_log("the built file cannot be kept in the cache")
    assert os.listdir(f"{stack.folder}/cache") == []
    stack.check_serves()


def test_files_of_others_are_left_alone_and_old_copies_removed(start):
    folder = make_folder()
    try:
        os.mkdir(f"{folder}/kept", 0o700)
        for name in ("notes.txt", ".new-0123456789abcdef", "ab" * 32, "access"):
            with open(f"{folder}/kept/{name}", "wb") as file:
                file.write(b"\xff\x00 what was there")
        stack = start(cache={"enabled": "yes", "directory": f"{folder}/kept"})
        stack.sidecar.wait_log("cache folder read", entries=0)
        assert sorted(os.listdir(f"{folder}/kept")) == ["access", "notes.txt"]
        members = request(stack)
        build(stack, members)
        check_hit(hit(stack, members))
    finally:
        shutil.rmtree(folder)


def test_finish_keeps_what_nobody_waits_for(start):
    stack = start_cached(start, {"velox": {"on_client_abort": "finish"}})
    members = request(stack)
    front = stack.php_asks_for_build(json.dumps(members).encode())
    call = stack.velox.accept()
    front.close()
    stack.sidecar.wait_log("client left")
    call.answer(json.dumps({"path": stack.artifact(CONTENT)}))
    stack.sidecar.wait_log("cache entry added")
    check_hit(hit(stack, members))


def test_two_instances_share_a_folder(start):
    one = start_cached(start)
    two = start(cache={"enabled": "yes", "directory": f"{one.folder}/cache"})
    members = request(one)
    build(one, members)
    check_hit(hit(two, members))
    build(two, {**members, "force_rebuild": True}, b"second")
    check_hit(hit(one, members), b"second")


def test_eviction_harms_no_download(start):
    stack = start_cached(start, max_entries=1)
    content = random_bytes(8_000_000)
    members = request(stack)
    build(stack, members, content)
    front = stack.php_asks_for_build(json.dumps(members).encode())
    stack.sidecar.wait_log("cache hit")
    build(stack, request(stack))
    stack.sidecar.wait_log("cache entry removed", reason="entries")
    check_hit(front.read_answer(), content)


def test_figures(start):
    stack = start_cached(start, {"sidecar": {"status_path": "/sidecar-status"}}, max_entries=2)
    made = fill(stack, 3)
    hit(stack, made[2])
    hit(stack, made[2])
    figures = wait_until(lambda: (found := status(stack))["cache entries"] == 2 and found, "two entries")
    assert figures["cache hits"] == 2 and figures["cache misses"] == 3
    assert figures["cache size"] == 200_000
    assert figures["builds success"] == 3
    metrics = stack.ask(environment(uri="/sidecar-status", extra=[("QUERY_STRING", "openmetrics")])).read_answer().body.decode()
    assert 'velox_cache_evictions_total{reason="entries"} 1\n' in metrics
    assert "velox_cache_hits_total 2\n" in metrics and "velox_cache_size_bytes 200000\n" in metrics


def test_a_reload_keeps_the_cache(start):
    stack = start_cached(start)
    members = request(stack)
    build(stack, members)
    before = stack.sidecar.child()
    stack.sidecar.mark_log()
    stack.sidecar.signal(signal.SIGHUP)
    stack.sidecar.wait_log("cache folder read", entries=1)
    check_hit(hit(stack, members))
    assert wait_until(lambda: stack.sidecar.child() != before, "a new child")


def test_no_answer_waits_for_the_copy_of_another(start):
    stack = start_cached(start)
    small, large = request(stack), request(stack)
    build(stack, small)
    path = stack.artifact(b"")
    os.truncate(path, 600_000_000)
    front = stack.php_asks_for_build(json.dumps(large).encode())
    stack.velox.accept().answer(json.dumps({"path": path}))
    stack.sidecar.wait_log("build completed", file_size=600_000_000)
    check_hit(hit(stack, small))
    check_miss(build(stack, request(stack)))
    assert not stack.sidecar.log("cache entry added", file_size=600_000_000)
    front.close()


def test_copies_at_once_keep_the_limit(start):
    stack = start_cached(start, max_entries=1)
    fronts = []
    for _ in range(3):
        fronts.append(stack.php_asks_for_build(json.dumps(request(stack)).encode()))
    calls = [stack.velox.accept() for _ in fronts]
    path = stack.artifact(CONTENT)
    for call in calls:
        call.answer(json.dumps({"path": path}))
    for front in fronts:
        check_miss(front.read_answer())
    wait_until(lambda: len(stack.sidecar.log("cache entry removed", reason="entries")) == 2, "two removals")
    assert len(entries(stack)) == 1


@pytest.mark.parametrize("modified", ["Tue, 14 Nov 2023 22:13:20 GMT", None])
def test_what_was_fetched_is_kept(start, modified):
    source = Velox()
    try:
        stack = start_cached(start, {"artifact": {"artifact_url": source.url + "/files{path}"}})
        members = request(stack)
        front = stack.php_asks_for_build(json.dumps(members).encode())
        stack.velox.accept().answer(json.dumps({"path": stack.root + "/far/rr"}))
        lines = [f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\nETag: \"source\""]
        lines += [f"Last-Modified: {modified}"] if modified else []
        source.accept().send("\r\n".join(lines).encode() + b"\r\n\r\n" + CONTENT)
        first = front.read_answer()
        check_miss(first)
        second = hit(stack, members)
        check_hit(second)
        assert second.get("Last-Modified") == first.get("Last-Modified")
        assert first.get("Last-Modified") == modified if modified else first.get("Last-Modified")
        assert source.calls.empty()
    finally:
        source.close()


def trailer(key, size, created_ms, modified_ns):
    """What stands behind an entry's content, as the unit test of it words it."""
    text = (f"\nvelox-sidecar cache entry 1\nkey {key}\nsha256 {hashlib.sha256(bytes(size)).hexdigest()}\n"
            f"size {size:020d}\nmtime {modified_ns // 10**9:020d}.{modified_ns % 10**9:09d}\n"
            f"created {created_ms:020d}\nmutable 0\n").encode()
    return text + b"check %08x\n" % zlib.crc32(text)


def test_a_folder_of_many_entries_delays_nothing(start):
    """The reading takes its time beside everything else."""
    folder = make_folder()
    count = 2000
    try:
        os.mkdir(f"{folder}/kept", 0o700)
        now_ms = int(time.time() * 1000)
        for number in range(count):
            key = f"{number:064x}"
            path = f"{folder}/kept/{key}"
            with open(path, "wb") as file:
                file.write(bytes(10) + trailer(key, 10, now_ms, 10**18))
            os.chmod(path, 0o600)
            os.utime(path, ns=(10**18, 10**18))
        stack = start(cache={"enabled": "yes", "directory": f"{folder}/kept", "max_entries": count - 10})
        build(stack, request(stack))
        line = stack.sidecar.wait_log("cache folder read")
        assert line["entries"] <= count - 10
        assert line["duration_ms"] < 2000 or stack.sidecar.is_watched(), line
        assert not stack.sidecar.log("cache entry removed", reason="corrupt")
        wait_until(lambda: len(os.listdir(f"{folder}/kept")) <= count - 9, "the limit")
    finally:
        shutil.rmtree(folder)
