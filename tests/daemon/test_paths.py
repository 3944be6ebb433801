# SPDX-License-Identifier: MIT
"""Attacks on the path that Velox names: each is refused with 500, is a line in the log, and no byte of what it is after
leaves."""

import ctypes
import json
import os
import re
import socket
import threading

import pytest

from conftest import check_error, descriptors_of, wait_until
from peers import random_bytes

SECRET = b"the secret that must not leave"
RENAME_EXCHANGE = 2


def make_tree(stack):
    """{root}/tree with what attacks need; {outside} beside the root. Made once for each stack."""
    root, outside = stack.root, stack.folder + "/outside"
    if os.path.exists(outside):
        return
    os.makedirs(outside + "/deep")
    os.makedirs(root + "/tree/deep")
    os.makedirs(root + "evil")
    for path in (outside + "/secret", outside + "/deep/secret", root + "evil/secret", stack.folder + "/secret"):
        with open(path, "wb") as file:
            file.write(SECRET)
    stack.artifact(b"built", "tree/good")
    stack.artifact(b"built", "tree/a..b")
    links = {
        "out": "../../outside/secret", "out-and-in": "../../artifacts/tree/good", "absolute": outside + "/secret",
        "absolute-inside": root + "/tree/good", "folder-out": "../../outside", "folder-absolute": outside,
        "deep/out": "../../../outside/secret", "dots": "..", "dots-out": "../..", "chain-1": "chain-2",
        "chain-2": "deep/../chain-3", "chain-3": "out", "dangling": "nothing", "dangling-out": "../../nothing",
        "loop": "loop", "loop-1": "loop-2", "loop-2": "loop-1", "fd": "/proc/self/fd/0", "proc": "/proc/self/root",
        "exe": "/proc/self/exe", "dev": "/dev/zero", "passwd": "/etc/passwd",
        "climb": "../" * 60 + "etc/passwd", "to-fifo": "fifo",
        "up": "deep/../good",
    }
    for name, target in links.items():
        os.symlink(target, f"{root}/tree/{name}")
    os.mkfifo(root + "/tree/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(root + "/tree/socket")
    if os.geteuid() == 0:
        os.mknod(root + "/tree/zero", 0o600 | 0o020000, os.makedev(1, 5))
    for number in range(1, 42):
        os.symlink(str(number - 1) if number > 1 else "good", f"{root}/tree/{number}")


# As JSON text, where the backslash of an escape is meant; {root} and {outside} are replaced.
ATTACKS = [
    # ".." as a component
    "{root}/../outside/secret", "{root}/..", "{root}/../", "{root}/tree/..", "{root}/tree/../tree/good",
    "{root}/tree/../../outside/secret", "{root}/./../outside/secret", "{root}//..//outside/secret",
    "{root}/nothing/../../outside/secret", "{root}/tree/good/..", "{root}/tree/good/../good", "/..", "/../etc/passwd",
    "{root}/..\\/outside\\/secret", "{root}/\\u002e\\u002e/outside/secret", "{root}/.\\u002e/../outside/secret",
    "{root}" + "/.." * 30 + "/etc/passwd",
    # literal names: nothing is decoded, and only "/" separates
    "{root}/%2e%2e/outside/secret", "{root}/%2e%2e%2foutside%2fsecret", "{root}%2f..%2foutside%2fsecret",
    "{root}/..%2foutside/secret", "{root}/..%00/secret", "{root}/%252e%252e/outside/secret",
    "{root}/..\\\\..\\\\outside\\\\secret", "{root}/\\uff0e\\uff0e/outside/secret", "{root}/..;/outside/secret",
    "{root}/.../outside/secret", "{root}/..\\u0020/outside/secret", "{root}/..\\u200b/outside/secret",
    "{root}/.\\u0001./outside/secret",
    # links
    "{root}/tree/out", "{root}/tree/out-and-in", "{root}/tree/absolute", "{root}/tree/absolute-inside",
    "{root}/tree/folder-out/secret", "{root}/tree/folder-out/deep/secret", "{root}/tree/folder-absolute/secret",
    "{root}/tree/deep/out", "{root}/tree/dots-out/outside/secret", "{root}/tree/chain-1", "{root}/tree/dangling",
    "{root}/tree/dangling-out", "{root}/tree/loop", "{root}/tree/loop-1", "{root}/tree/loop/x", "{root}/tree/41",
    "{root}/tree/climb", "{root}/tree/passwd", "{root}/tree/dots", "{root}/tree/out/", "{root}/tree/folder-out/",
    # what is not a path on a disk
    "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/10", "/proc/self/root/etc/passwd", "/proc/self/cwd/secret",
    "/proc/self/environ", "/proc/self/exe", "/proc/self/mem", "/proc/1/environ", "/proc/thread-self/root/etc/passwd",
    "{root}/tree/fd", "{root}/tree/proc/etc/passwd", "{root}/tree/exe", "/dev/fd/0", "/dev/stdin",
    # what is no regular file
    "{root}/tree/fifo", "{root}/tree/to-fifo", "{root}/tree/socket", "{root}/tree/zero", "{root}/tree/dev", "/dev/zero",
    "/dev/tty", "{root}", "{root}/", "{root}/.", "{root}/tree", "{root}/tree/", "{root}/tree/.", "/", "//", "/.",
    # slashes and dots behind a file ask for a folder
    "{root}/tree/good/", "{root}/tree/good//", "{root}/tree/good/.", "{root}/tree/good/./", "{root}/tree/good/x",
    # text
    "tree/good", "./tree/good", "../outside/secret", "..", ".", " ", " {root}/tree/good", "{root}/tree/good ",
    "{root}/tree/good\\n", "{root}/tree/good\\r\\nX-Evil: 1", "{root}/tree/\\u001b[31mgood", "\\n", "\\u007f",
    "\\u0000", "{root}/tree/good\\u0000", "{root}/tree/good\\u0000.exe", "/etc/passwd\\u0000{root}/tree/good",
    "{root}\\u0000/tree/good", "{root}/tree/\\u0000", "file://{root}/tree/good", "http://localhost/x", "~/good", "-",
    "C:\\\\good", "\\\\\\\\host\\\\share", "{root}/tree/good?x", "{root}/tree/good#x", "{root}/tree/*", "$HOME",
    "{root}/tree/`id`", "{root}/tree/$(id)", "{root}/tree/good|id", "{root}/tree/" + "n" * 256,
    "{root}" + "/n" * 2100, "{root}" + "/." * 2100 + "/tree/good", "/" * 5000, "/" + "n" * 100000,
    # beside the root
    "{root}evil/secret", "{root}evil", "{root}\\u0020/secret", "{outside}/secret", "{folder}/secret", "/etc/passwd",
    "/etc/shadow", "{root}x/../artifacts/tree/good", "/tmp",
]


def refused(stack, text):
    """Velox names a path, in JSON; the message of the refusal."""
    answer = stack.build('{"path":"' + text + '"}')
    assert SECRET not in answer.stdout and b"root:" not in answer.stdout
    message = check_error(answer, 500, "artifact_unavailable")
    assert stack.folder not in message
    return message


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_the_path_is_refused(stack, attack):
    make_tree(stack)
    text = attack.format(root=stack.root, outside=stack.folder + "/outside", folder=stack.folder) \
        if "{" in attack else attack
    refused(stack, text)
    line = stack.sidecar.wait_log("the built file cannot be delivered")
    assert line["level"] == "error"
    path = json.loads('"' + text + '"')
    assert line["file_path"][:40].replace("\0", "") in path.replace("\0", "") or not path.isprintable()
    assert not re.search(r"[\0-\x09\x0b-\x1f\x7f-\x9f]", stack.sidecar.log_text()), "a control character in the log"


@pytest.mark.parametrize("good", ["/tree/good", "/tree/a..b", "//tree///good", "/./tree/./good", "/tree/up", "/tree/40"])
def test_what_is_no_attack_is_delivered(stack, good):
    make_tree(stack)
    assert stack.build(json.dumps({"path": stack.root + good})).body == b"built"


@pytest.mark.parametrize("value", ["null", "7", "-0.5", "true", "[]", '["ROOT/tree/good"]', "{}",
                                   '{"path":"ROOT/tree/good"}', '""'])
def test_a_path_that_is_no_text_is_none(stack, value):
    make_tree(stack)
    answer = stack.build('{"path":' + value.replace("ROOT", stack.root) + "}")
    check_error(answer, 502, "velox_unavailable")


@pytest.mark.parametrize("members", [
    '"path":"ROOT/tree/good","path":"OUTSIDE/secret"', '"path":"OUTSIDE/secret","path":"ROOT/tree/good"',
    '"path":"ROOT/tree/good","p\\u0061th":"OUTSIDE/secret"', '"path":null,"path":"OUTSIDE/secret"'])
def test_two_paths_are_none(stack, members):
    make_tree(stack)
    answer = stack.build("{" + members.replace("ROOT", stack.root).replace("OUTSIDE", stack.folder + "/outside") + "}")
    assert SECRET not in answer.stdout
    check_error(answer, 502, "velox_unavailable")


@pytest.mark.parametrize("raw", [b"/tmp/\xff", b"/tmp/\xc3\x28", b"/tmp/\xed\xa0\x80", b"/tmp/a\nb", b"/tmp/\x01"])
def test_bytes_that_json_does_not_allow_are_no_answer(stack, raw):
    answer = stack.build(b'{"path":"' + raw + b'"}')
    assert answer.status in (500, 502) and json.loads(answer.body)["error"] in ("artifact_unavailable",
                                                                                 "velox_unavailable")


def test_a_path_map_leads_into_the_root_and_not_out_of_it(start):
    stack = start(artifact={"path_map": "/srv/in={folder}/artifacts, /srv/out={folder}/outside, /srv/in/sub=/etc, "
                                        "/srv/up={folder}/artifacts/tree/folder-out"})
    make_tree(stack)
    assert stack.build(json.dumps({"path": "/srv/in/tree/good"})).body == b"built"
    for path in ("/srv/out/secret", "/srv/in/sub/passwd", "/srv/inside/tree/good", "/srv/in", "/srv", "/srv/in/../out/secret",
                 "/srv/in/tree/out", "/srv/out/../artifacts/tree/good", "/srv/up/secret", "/srv/in/tree/folder-out/secret",
                 "/srv/intree/good", "srv/in/tree/good", "/srv/in/" + "n" * 4080):
        refused(stack, path)


def test_roots_that_are_links_and_roots_within_roots(start):
    stack = start(artifact={"root": "{folder}/link, {folder}/artifacts/tree, {folder}/artifacts"})
    make_tree(stack)
    os.symlink("artifacts", stack.folder + "/link")
    for path in ("/link/tree/good", "/artifacts/tree/good"):
        assert stack.build(json.dumps({"path": stack.folder + path})).body == b"built"
    # The link leads out of the inner root only.
    os.symlink("../inner", stack.root + "/tree/to-inner")
    stack.artifact(b"inner", "inner")
    assert stack.build(json.dumps({"path": stack.root + "/tree/to-inner"})).body == b"inner"
    for path in ("/link/tree/out", "/artifacts/tree/out", "/link/../outside/secret", "/artifacts/tree/absolute",
                 "/link/tree/folder-out/secret", "/linkx"):
        refused(stack, stack.folder + path)


def test_the_root_of_all(start):
    stack = start(artifact={"root": "/"})
    make_tree(stack)
    assert stack.build(json.dumps({"path": stack.root + "/tree/good"})).body == b"built"
    for path in ("/proc/self/environ", "/proc/self/fd/0", "/proc/self/root/etc/passwd", "/proc/self/mem", "/dev/zero",
                 "/dev/stdin", "/", "/proc/1/root/etc/passwd", stack.root + "/tree/absolute", stack.root + "/tree/proc/etc/passwd"):
        refused(stack, path)


def test_a_root_that_does_not_exist(start):
    stack = start(artifact={"root": "{folder}/nowhere"})
    refused(stack, stack.folder + "/nowhere/rr")
    refused(stack, stack.folder + "/nowhere")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_the_sidecar_may_not_read_is_refused(start, what):
    stack = start(sidecar={"user": "nobody"})
    path = stack.artifact(SECRET, "closed/rr")
    os.chmod(path if what == "file" else os.path.dirname(path), 0)
    refused(stack, path)


def exchange(one, other):
    """Swaps two names at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, one.encode(), -100, other.encode(), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


@pytest.mark.parametrize("target", ["folder", "file"])
def test_a_swap_while_the_file_is_opened(start, target):
    """Another process swaps the folder, or the file, for a link that leads out, as fast as it can."""
    stack = start(velox={"failure_ttl": "0"})
    make_tree(stack)
    stack.artifact(b"harmless", "race/rr")
    if target == "folder":
        os.symlink("../outside/deep", stack.root + "/link")
        names = (stack.root + "/race", stack.root + "/link")
        with open(stack.folder + "/outside/deep/rr", "wb") as file:
            file.write(SECRET)
    else:
        os.symlink("../../outside/secret", stack.root + "/race/link")
        names = (stack.root + "/race/rr", stack.root + "/race/link")
    try:
        exchange(*names)
    except OSError as error:
        pytest.skip(f"no renameat2 with RENAME_EXCHANGE here: {error}")
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                exchange(*names)
        finally:
            os._exit(0)
    try:
        bodies = [stack.build(json.dumps({"path": stack.root + "/race/rr"})) for _ in range(50 if stack.sidecar.is_watched() else 300)]
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert {answer.status for answer in bodies} <= {200, 500}
    for answer in bodies:
        assert SECRET not in answer.stdout
        assert answer.status == 500 or answer.body == b"harmless"


def test_a_file_that_is_replaced_after_the_opening(stack):
    """What was opened is what is delivered, not what has its name later."""
    content = random_bytes(8 << 20)
    path = stack.artifact(content, "replaced")
    front = stack.php_asks_for_build()
    stack.velox.accept().answer(json.dumps({"path": path}))
    got = front.read_head()[1]
    os.unlink(path)
    with open(path, "wb") as file:
        file.write(SECRET * 1000)
    assert got + front.read_answer().stdout == content


def test_refusals_leave_no_descriptor(stack):
    make_tree(stack)

    def count():
        return len(descriptors_of(stack.sidecar.child()))

    refused(stack, stack.root + "/tree/out")
    before = count()
    for name in ("out", "fifo", "loop", "folder-out/secret", "good/", "dangling", "deep", "socket"):
        refused(stack, stack.root + "/tree/" + name)
    wait_until(lambda: count() <= before + 1, "descriptors to be closed")


def test_a_fifo_holds_up_nobody(stack):
    """Neither the builder, which would wait for a writer, nor a writer that waits for a reader."""
    make_tree(stack)
    writer = threading.Thread(target=lambda: os.close(os.open(stack.root + "/tree/fifo", os.O_WRONLY)), daemon=True)
    writer.start()
    refused(stack, stack.root + "/tree/fifo")
    assert stack.build().body == b"built"
    assert writer.is_alive(), "the FIFO was opened"
    os.close(os.open(stack.root + "/tree/fifo", os.O_RDONLY | os.O_NONBLOCK))
    writer.join(5)
