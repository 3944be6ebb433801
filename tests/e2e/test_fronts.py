# SPDX-License-Identifier: MIT
"""The sidecar behind lighttpd, Apache, Caddy, HAProxy and nginx's SCGI, before a real PHP-FPM.

What a front cannot do at all is in the table of fronts.py; here a test then asserts what is true
with and without the sidecar alike.
"""
import hashlib
import socket
import threading

import pytest

from fronts import FRONTS, GENERAL_TIMEOUT_S, Fronts
from stack import Answer, wait_until
from test_e2e_builds import MEGABYTE, ask, ask_raw, assert_error, wait_for_build
from test_e2e_pages import in_pieces, pattern


@pytest.fixture(scope="module")
def stack():
    running = Fronts().start()
    yield running
    running.stop()


@pytest.fixture(params=list(FRONTS))
def front(request):
    return request.param


def hash_of(content):
    return hashlib.sha256(content).hexdigest()


def token_of(*words):
    return "-".join(words).replace("_", "-")


# ---- pages ----

def test_get(stack, front):
    answer = stack.get("/echo.php?a=1&b=two", front=front)
    assert answer.status == 200
    assert answer.json()["method"] == "GET"
    assert answer.json()["get"] == {"a": "1", "b": "two"}
    assert answer.json()["sidecar"]


def test_missing_page(stack, front):
    assert stack.get("/nowhere.php", front=front).status == 404


@pytest.mark.parametrize("page", ["/hello.php", "/down.php?bytes=100000", "/ask.php"])
def test_head_request(stack, front, page):
    connection = stack.connect(front)
    for _ in range(2):
        connection.request("HEAD", page)
        answer = Answer(connection.getresponse())
        assert (answer.status, answer.body) == (200, b"")
        assert answer.header("x-velox-build") is None
    connection.request("GET", "/hello.php")
    assert Answer(connection.getresponse()).body == b"hello\n"
    connection.close()


def upload(stack, front, body, **options):
    headers = {"Content-Type": "text/plain"}
    answer = stack.request("POST", "/echo.php", body, headers, front, **options)
    assert answer.status == 200
    return answer.json()


@pytest.mark.parametrize("size", [0, 1, MEGABYTE, 20 * MEGABYTE])
def test_upload(stack, front, size):
    body = pattern(size)
    got = upload(stack, front, body)
    assert (got["length"], got["sha256"]) == (size, hash_of(body))


@pytest.mark.parametrize("size", [1, 8_000, 70_000, 5 * MEGABYTE])
def test_chunked_upload(stack, front, size):
    body = pattern(size)
    if size > FRONTS[front].most_chunked:
        assert refusal_of_chunked(stack, front, body) == FRONTS[front].refuses_chunked
        return
    got = upload(stack, front, in_pieces(body), encode_chunked=True)
    assert (got["length"], got["sha256"]) == (size, hash_of(body))


def refusal_of_chunked(stack, front, body):
    """The status, which may come before the body has been sent."""
    connection = stack.connect(front)
    connection.putrequest("POST", "/echo.php")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    try:
        connection.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    except OSError:
        pass
    status = connection.getresponse().status
    connection.close()
    return status


def post_expecting(stack, front, body):
    """A POST that sends its body when it is told to go on, or after a moment, as curl does. Gives
    whether it was told, and the answer."""
    connection = stack.connect(front)
    connection.putrequest("POST", "/echo.php")
    for name, value in (("Content-Length", len(body)), ("Content-Type", "text/plain"),
                        ("Expect", "100-continue")):
        connection.putheader(name, value)
    connection.endheaders()
    connection.sock.settimeout(0.3)
    try:
        interim = connection.sock.recv(12, socket.MSG_PEEK)
    except socket.timeout:
        interim = b""
    connection.sock.settimeout(60)
    connection.send(body)
    answer = Answer(connection.getresponse())     # http.client steps over the 100
    connection.close()
    return interim, answer


def test_expect_100_continue(stack, front):
    """HAProxy leaves the 100 to its servers, which have no such thing in FastCGI."""
    body = pattern(100_000)
    interim, answer = post_expecting(stack, front, body)
    assert answer.json()["sha256"] == hash_of(body)
    assert interim in (b"HTTP/1.1 100", b"")
    assert interim == post_expecting(stack, f"direct-{front}", body)[0]


@pytest.mark.parametrize("announce", ["", "&announce"], ids=["chunked", "announced"])
def test_download(stack, front, announce):
    answer = stack.get(f"/down.php?bytes={50 * MEGABYTE}{announce}", front=front)
    assert answer.status == 200
    assert hash_of(answer.body) == hash_of(pattern(50 * MEGABYTE))


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_redirect(stack, front, status):
    """HAProxy 2.6 makes each of them a 302."""
    target = f"/answer.php?status={status}&header[]=Location:+http://x.example/there"
    answer = stack.get(target, front=front)
    assert answer.status == stack.get(target, front=f"direct-{front}").status
    assert answer.status == (302 if FRONTS[front].server == "haproxy" else status)
    assert answer.header("location") == "http://x.example/there"


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body(stack, front, status):
    connection = stack.connect(front)
    connection.request("GET", f"/answer.php?status={status}&header[]=ETag:+%22v1%22")
    answer = Answer(connection.getresponse())
    assert (answer.status, answer.body) == (status, b"")
    assert answer.header("etag") == '"v1"'
    connection.request("GET", "/hello.php")
    assert Answer(connection.getresponse()).body == b"hello\n"
    connection.close()


def wait_for_log(stack, front, text):
    """PHP's error output is in the front's log; over SCGI, which has no room for it, in the
    sidecar's."""
    name = FRONTS[front].stderr_in
    if name:
        wait_until(lambda: text in stack.log_of(name), f"{text!r} in the log of {name}", 5)


def test_error_output_of_the_page(stack, front):
    token = token_of("stderr", front)
    answer = stack.get(f"/stderr.php?token={token}", front=front)
    assert (answer.status, answer.body) == (200, b"before after\n")
    for number in ("first", "second"):
        wait_for_log(stack, front, f"{number} message for the log, {token}")


def test_fatal_error(stack, front):
    """Often: HAProxy 2.6 crashed, though not each time, when the error text was sent ahead."""
    for _ in range(20):
        answer = stack.get("/fatal.php", front=front)
        assert answer.status == 500
        assert answer.header("x-velox-build") is None
    wait_for_log(stack, front, "no_such_function")


def test_page_that_goes_on_after_its_answer(stack, front):
    done = stack.flag("finish-done")
    for name in ("finish-go", "finish-done"):
        stack.flag(name).unlink(missing_ok=True)
    answer = stack.get("/finish.php", front=front)
    assert answer.body == b"the answer\n"
    assert not done.exists()
    stack.flag("finish-go").touch()
    wait_until(done.exists, "the page ends")


@pytest.mark.parametrize("behind", ["", "direct-"], ids=["sidecar", "direct"])
def test_flushed_output_passes_at_once(stack, front, behind):
    """The page writes its second event only when the first one has been seen here. Apache holds
    small pieces back over SCGI, so there is nothing to see before the page has ended."""
    token = token_of("shown", behind, front)
    streams = FRONTS[front].streams
    if not streams:
        stack.flag(f"events-{token}").touch()
    connection = stack.send(f"/events.php?token={token}", behind + front)
    response = connection.getresponse()
    assert response.status == 200
    assert response.readline() == b"data: first\n"
    assert response.readline() == b"\n"
    if streams:
        stack.flag(f"events-{token}").touch()
    assert response.read() == b"data: second\n\n"
    connection.close()


@pytest.mark.parametrize("size", [3_000, 12_000])
def test_long_response_head(stack, front, size):
    answer = stack.get(f"/head.php?bytes={size}", front=front)
    assert (answer.status, answer.body) == (200, b"behind a long head\n")
    fillers = [value for key, value in answer.headers if key.lower().startswith("x-filler-")]
    assert sum(map(len, fillers)) > size * 0.9
    assert answer.all("set-cookie") == ["first=1", "second=2"]


def test_http_proxy_never_reaches_the_page(stack, front):
    headers = {"Proxy": "http://attacker.example:8080", "X-Proxy": "stays"}
    server = stack.get("/echo.php", headers, front).json()["server"]
    assert "HTTP_PROXY" not in server
    assert server["HTTP_X_PROXY"] == "stays"


def test_many_requests_on_one_client_connection(stack, front):
    connection = stack.connect(front)
    for number in range(50):
        connection.request("GET", f"/echo.php?n={number}")
        assert f'"n":"{number}"'.encode() in connection.getresponse().read()
    connection.close()


def test_page_that_does_not_read_the_upload(stack, front):
    for _ in range(3):
        answer = stack.request("POST", "/hello.php", pattern(3 * MEGABYTE),
                               {"Content-Type": "application/octet-stream"}, front)
        assert (answer.status, answer.body) == (200, b"hello\n")


# ---- slow clients, clients that leave ----

def start_slowly(stack, front, target):
    """A client that has read the head of the answer and no more, and whose socket holds little."""
    connection = stack.connect(front)
    connection.sock = socket.socket()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.sock.settimeout(60)
    connection.sock.connect(("127.0.0.1", stack.ports[front]))
    connection.request("GET", target)
    return connection, connection.getresponse()


def test_slow_downloads_hold_no_worker(stack, front):
    """More of them than PHP has workers."""
    builds = [ask(standin={"size": 10 * MEGABYTE}) for _ in range(stack.php_workers + 2)]
    slow = [start_slowly(stack, front, target) for target, _ in builds]
    for _ in range(20):
        assert stack.get("/hello.php", front=front).body == b"hello\n"
    body = slow[0][1].read()
    assert hash_of(body) == stack.build_of(builds[0][1])["sha256"]
    for connection, _ in slow:
        connection.close()


def test_slow_reader_gets_the_whole_page(stack, front):
    connection, response = start_slowly(stack, front, f"/down.php?bytes={10 * MEGABYTE}")
    for _ in range(20):
        assert stack.get("/hello.php", front=front).body == b"hello\n"
    assert hash_of(response.read()) == hash_of(pattern(10 * MEGABYTE))
    connection.close()


@pytest.mark.parametrize("behind", ["", "direct-"], ids=["sidecar", "direct"])
def test_client_that_leaves_in_mid_download_stops_the_page(stack, front, behind):
    token = token_of("left", behind, front)
    connection, response = start_slowly(stack, behind + front, f"/endless.php?token={token}")
    assert response.read(1000)
    connection.close()
    response.close()
    wait_until(stack.flag(f"endless-{token}").exists, "the page ends", 10)


def test_client_that_leaves_in_mid_wait(stack, front):
    """nginx and HAProxy tell; the build is cancelled. The others find out when they write, with and
    without the sidecar: the build runs to its end (build_timeout, if it never ends), and nothing is
    left behind."""
    tells = FRONTS[front].tells_leaving
    standin = {"behaviour": "hang"} if tells else {"delay_ms": 300, "size": 10}
    target, request_id = ask(standin=standin)
    connection = stack.send(target, front)
    wait_for_build(stack, request_id)
    connection.close()
    if tells:
        wait_for_build(stack, request_id, "cancelled")
    else:
        wait_until(lambda: stack.build_of(request_id)["state"] != "running", "the build ends")
    assert stack.get("/hello.php", front=front).body == b"hello\n"


def test_client_that_leaves_in_mid_upload(stack, front):
    for _ in range(5):
        connection = stack.connect(front)
        connection.putrequest("POST", "/echo.php")
        connection.putheader("Content-Length", str(MEGABYTE))
        connection.endheaders(pattern(300_000))
        connection.close()
    assert stack.get("/hello.php", front=front).body == b"hello\n"


# ---- builds ----

@pytest.mark.parametrize("size", [0, 1, 65528, 20 * MEGABYTE])
def test_client_gets_the_built_file(stack, front, size):
    target, request_id = ask(standin={"size": size})
    answer = stack.get(target, front=front)
    assert answer.status == 200
    assert len(answer.body) == size
    assert hash_of(answer.body) == stack.build_of(request_id)["sha256"]
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("content-disposition") == 'attachment; filename="roadrunner-linux-amd64"'
    assert answer.header("x-build-request-id") == request_id
    assert answer.header("x-velox-build") is None
    assert answer.all("set-cookie") == ["session=kept", "second=kept%2C%20too"]


def test_post_gets_a_file_too(stack, front):
    target, request_id = ask(standin={"size": 70_000})
    answer = stack.request("POST", target, b"form=1", front=front)
    assert hash_of(answer.body) == stack.build_of(request_id)["sha256"]


@pytest.mark.parametrize("size", [0, 70_000])
def test_page_that_logs_and_builds(stack, front, size):
    """The error text comes alone, long before the head."""
    token = token_of("building", front)
    for _ in range(5):
        target, request_id = ask(standin={"size": size})
        answer = stack.get(f"{target}&log={token}", front=front)
        assert hash_of(answer.body) == stack.build_of(request_id)["sha256"]
    wait_for_log(stack, front, token)


def test_pages_and_builds_on_one_client_connection(stack, front):
    connection = stack.connect(front)
    for _ in range(5):
        target, request_id = ask(standin={"size": 200_000})
        connection.request("GET", target)
        assert hash_of(connection.getresponse().read()) == stack.build_of(request_id)["sha256"]
        connection.request("GET", "/hello.php")
        assert connection.getresponse().read() == b"hello\n"
    connection.close()


def test_malformed_build_request(stack, front):
    assert_error(stack.get(ask_raw('{"plugins": []}'), front=front), 400, "invalid_request")


def test_failed_build(stack, front):
    target, request_id = ask(standin={"behaviour": "success_false"})
    assert_error(stack.get(target, front=front), 500, "build_failed", request_id)


def test_example_outwaits_the_servers_own_timeout(stack):
    """All at once, since each takes longer than what every server here allows by itself."""
    answers = {}

    def build(name, target):
        answers[name] = stack.get(target, front=name)

    builds = {name: ask(standin={"size": 1000, "delay_ms": (GENERAL_TIMEOUT_S + 1) * 1000})
              for name in FRONTS}
    threads = [threading.Thread(target=build, args=(name, target))
               for name, (target, _) in builds.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(FRONTS, 200)
    for name, (_, request_id) in builds.items():
        assert hash_of(answers[name].body) == stack.build_of(request_id)["sha256"]
