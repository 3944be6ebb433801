# SPDX-License-Identifier: MIT
"""From PHP's JSON to Velox's: what is refused and what is handed on (spec, sections 5.2 to 5.4)."""

import gzip
import itertools
import json
import re
import shutil
import ssl
import subprocess
import uuid
import zlib

import pytest

import peers
from conftest import check_error
from peers import random_bytes

UUID4 = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
numbers = itertools.count(1)


def plugins():
    """A list that no other test asks for."""
    return b'[{"module_name":"github.com/a/b","tag":"v1.0.%d"}]' % next(numbers)


def body_at_velox(stack, request, head=""):
    front = stack.php_asks_for_build(request, head)
    call = stack.velox.accept()
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.status == 200, answer.stdout
    return call, answer


# ---- bytes -----------------------------------------------------------------------------------------

VERBATIM = {
    "compact": b'{"request_id":"r-1","rr_version":"v1.2.3","plugins":PLUGINS}',
    "spaced": b'{ "rr_version" :\t"v1.2.3" ,\r\n "plugins" : PLUGINS , "request_id" : "r-2" }',
    "unknown members": b'{"request_id":"r-3","rr_version":"v1","plugins":PLUGINS,"x":{"y":[1,null,{"z":false}]}}',
    "big numbers": b'{"request_id":"r-4","rr_version":"v1","plugins":PLUGINS,"n":[123456789012345678901234567890,'
                   b'1.10000000000000000001,-0,1E400,0.1e-7]}',
    "escapes": b'{"request_id":"r-5","rr_version":"v1","plugins":PLUGINS,"s":"\\/\\u00e9\\ud83d\\ude00\\b\\"\\\\"}',
    "utf-8": '{"request_id":"r-6","rr_version":"v1","plugins":PLUGINS,"s":"é 漢 😀"}'.encode(),
    "escaped name": b'{"request_id":"r-7","rr_v\\u0065rsion":"v1","plugins":PLUGINS}',
    "every member": b'{"request_id":"r-8","rr_version":"v1","plugins":PLUGINS,"force_rebuild":false,'
                    b'"target_platform":{"os":"linux","arch":"amd64"},"replaces":[],"excludes":[],'
                    b'"race":false,"debug":true}',
    "null in optional members": b'{"request_id":"r-9","rr_version":"v1","plugins":PLUGINS,"target_platform":null,'
                                b'"force_rebuild":null,"race":null}',
    "no plugins": b'{"request_id":"r-10","rr_version":"PLUGINS","plugins":[]}',
    "longest request_id": b'{"request_id":"' + b"Az09._-x" * 8 + b'","rr_version":"v1","plugins":PLUGINS}',
}


@pytest.mark.parametrize("name", VERBATIM)
def test_velox_gets_the_bytes_that_php_sent(stack, name):
    filler = b"v%d" % next(numbers) if name == "no plugins" else plugins()
    request = VERBATIM[name].replace(b"PLUGINS", filler)
    call, answer = body_at_velox(stack, request)
    assert call.body == request
    assert answer.get("X-Build-Request-ID") == json.loads(request)["request_id"]


@pytest.mark.parametrize("template", [
    b'{"rr_version":"v1","plugins":PLUGINS}',
    b'  {  "rr_version":"v1","plugins":PLUGINS,"x":"\\u00e9"  }',
    b'{\n}'[:1] + b'\n"plugins":PLUGINS,\n"rr_version":"v1"\n}',
], ids=["compact", "spaced", "lines"])
def test_a_missing_request_id_is_put_in_and_nothing_else_changes(stack, template):
    request = template.replace(b"PLUGINS", plugins())
    call, answer = body_at_velox(stack, request)
    given = json.loads(call.body)["request_id"]
    assert UUID4.fullmatch(given.encode()) and uuid.UUID(given).version == 4
    member = b'"request_id":"%s"' % given.encode()
    assert call.body.count(member) == 1
    left = [call.body.replace(text, b"").strip() for text in (member + b",", b"," + member, member)]
    assert request.strip() in left
    assert answer.get("X-Build-Request-ID") == given


def test_a_null_request_id_is_replaced(stack):
    request = b'{"rr_version":"v1", "request_id" : null ,"plugins":%s}' % plugins()
    call, answer = body_at_velox(stack, request)
    given = json.loads(call.body)["request_id"]
    assert UUID4.fullmatch(given.encode())
    assert call.body == request.replace(b"null", b'"%s"' % given.encode())
    assert answer.get("X-Build-Request-ID") == given


def test_each_build_without_an_id_gets_another(stack):
    given = set()
    for _ in range(3):
        call, _ = body_at_velox(stack, b'{"rr_version":"v1","plugins":%s}' % plugins())
        given.add(json.loads(call.body)["request_id"])
    assert len(given) == 3


def test_the_call_is_what_connect_wants(stack):
    call, _ = body_at_velox(stack, stack.build_request())
    assert call.method == "POST" and call.target == "/api.service.v1.BuildService/Build"
    assert call.get("Content-Type") == "application/json"
    assert call.get("Connect-Protocol-Version") == "1"
    assert 0 < int(call.get("Connect-Timeout-Ms")) <= 300000
    assert call.get("Authorization") is None and call.get("Content-Encoding") is None
    assert call.get("Cookie") is None


def test_the_token_of_the_file_is_sent(start, folder):
    with open(f"{folder}/token", "w") as token:
        token.write("s3cret\n")
    stack = start(velox={"token_file": f"{folder}/token"})
    call, _ = body_at_velox(stack, stack.build_request())
    assert call.get("Authorization") == "Bearer s3cret"


@pytest.mark.parametrize("suffix,build_path,target", [
    ("", None, "/api.service.v1.BuildService/Build"),
    ("/", None, "/api.service.v1.BuildService/Build"),
    ("", "/other/Build", "/other/Build"),
])
def test_the_call_goes_to_base_url_and_build_path(start, suffix, build_path, target):
    velox = peers.Velox()
    stack = start(velox={"server_url": velox.url + suffix, "build_path": build_path})
    front = stack.php_asks_for_build()
    call = velox.accept()
    assert call.target == target
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"
    velox.close()


def test_velox_on_a_unix_socket(start, folder):
    velox = peers.Velox(f"unix:{folder}/velox.sock")
    stack = start(velox={"server_url": velox.url})
    front = stack.php_asks_for_build()
    velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
    assert front.read_answer().body == b"built"
    velox.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes its certificate with openssl")
@pytest.mark.parametrize("name,trusted", [("127.0.0.1", True), ("127.0.0.1", False), ("192.0.2.1", True)])
def test_an_https_server_is_checked_against_ca_file(start, folder, name, trusted):
    for stem in ("server", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", f"{folder}/{stem}.key", "-out", f"{folder}/{stem}.pem", "-days", "1",
                        "-subj", "/CN=velox", "-addext", f"subjectAltName=IP:{name}"], check=True,
                       capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/server.pem", f"{folder}/server.key")
    velox = peers.Velox(tls=context)
    stack = start(velox={"server_url": velox.url,
                         "ca_file": f"{folder}/{'server' if trusted else 'other'}.pem"})
    front = stack.php_asks_for_build()
    if trusted and name == "127.0.0.1":
        velox.accept().answer(json.dumps({"path": stack.artifact(b"built")}))
        assert front.read_answer().body == b"built"
    else:
        check_error(front.read_answer(), 502, "velox_unavailable")
        assert not velox.history
    velox.close()


def test_no_proxy_of_the_environment_is_used(start, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    stack = start()
    assert stack.build().body == b"built"


# ---- encodings -----------------------------------------------------------------------------------------

def raw_deflate(content):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


ENCODINGS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    " gzip ": gzip.compress,
    "deflate": zlib.compress,
    "deflate ": raw_deflate,
    "identity": bytes,
    "": bytes,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("cut", [65528, 1])
@pytest.mark.parametrize("length", [True, False])
def test_an_encoded_build_request_is_decoded(stack, encoding, cut, length):
    request = stack.build_request(filler="x" * 300)
    encoded = ENCODINGS[encoding](request)
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    head = f"X-Velox-Build: true\r\nContent-Encoding: {encoding}\r\n"
    if length:
        head += f"Content-Length: {len(encoded)}\r\n"
    worker.send(peers.stream(peers.STDOUT, head.encode() + b"\r\n" + encoded, size=cut), peers.end_request())
    call = stack.velox.accept()
    assert call.body == request
    call.answer(json.dumps({"path": stack.artifact(b"built")}))
    answer = front.read_answer()
    assert answer.body == b"built" and answer.get("Content-Encoding") is None


@pytest.mark.parametrize("encoding,content", [
    ("br", b"{}"),
    ("gzip, br", b"{}"),
    ("gzip", b"not gzip at all"),
    ("gzip", gzip.compress(b'{"rr_version":"v1","plugins":[]}')[:-12]),
    ("deflate", b"\xff\xff\xff\xff"),
    ("gzip", gzip.compress(b'{"x":"' + b"a" * (3 << 20) + b'"}')),
], ids=["unknown", "two", "corrupt", "cut", "corrupt deflate", "bomb"])
def test_an_undecodable_build_request_is_400(stack, encoding, content):
    front = stack.php_asks_for_build(content, f"Content-Encoding: {encoding}\r\n")
    check_error(front.read_answer(), 400, "invalid_request")
    assert stack.velox.is_idle(0.01)


# ---- validation ----------------------------------------------------------------------------------------

GOOD = b'"rr_version":"v1","plugins":[]'
REFUSED = [
    # what PHP sends, what the message must name
    (b"", ""),
    (b"   ", ""),
    (b"[]", ""),
    (b'"text"', ""),
    (b"null", ""),
    (b"12", ""),
    (b"{", ""),
    (b"{" + GOOD, ""),
    (b"{" + GOOD + b",}", ""),
    (b"{'rr_version':'v1'}", ""),
    (b"<br />\n<b>Warning</b>: oops\n{" + GOOD + b"}", ""),
    (b"\xef\xbb\xbf{" + GOOD + b"}", ""),
    (b"{" + GOOD + b',"x":nul}', ""),
    (b"{" + GOOD + b',"x":01}', ""),
    (b"{" + GOOD + b',"x":"a\nb"}', ""),
    (b"{" + GOOD + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    (b"{}", "rr_version"),
    (b'{"plugins":[]}', "rr_version"),
    (b'{"rr_version":null,"plugins":[]}', "rr_version"),
    (b'{"rr_version":1,"plugins":[]}', "rr_version"),
    (b'{"rr_version":"v1"}', "plugins"),
    (b'{"rr_version":"v1","plugins":null}', "plugins"),
    (b'{"rr_version":"v1","plugins":{}}', "plugins"),
    (b'{"rr_version":"v1","plugins":["x"]}', "plugins"),
    (b'{"rr_version":"v1","plugins":[null]}', "plugins"),
    (b'{"rr_version":"v1","plugins":[{"tag":"v1"}]}', "module_name"),
    (b'{"rr_version":"v1","plugins":[{"module_name":1,"tag":"v1"}]}', "module_name"),
    (b'{"rr_version":"v1","plugins":[{"module_name":"m"}]}', "tag"),
    (b'{"rr_version":"v1","plugins":[{"module_name":"m","tag":null}]}', "tag"),
    (b'{"request_id":"",' + GOOD + b"}", "request_id"),
    (b'{"request_id":7,' + GOOD + b"}", "request_id"),
    (b'{"request_id":"a b",' + GOOD + b"}", "request_id"),
    (b'{"request_id":"a\\nb",' + GOOD + b"}", "request_id"),
    (b'{"request_id":"' + b"x" * 65 + b'",' + GOOD + b"}", "request_id"),
    (b'{"target_platform":[],' + GOOD + b"}", "target_platform"),
    (b'{"target_platform":{},' + GOOD + b"}", "os"),
    (b'{"target_platform":{"os":"linux"},' + GOOD + b"}", "arch"),
    (b'{"target_platform":{"os":1,"arch":"amd64"},' + GOOD + b"}", "os"),
    (b'{"target_platform":{"os":"Linux","arch":"amd64"},' + GOOD + b"}", "os"),
    (b'{"target_platform":{"os":"../x","arch":"amd64"},' + GOOD + b"}", "os"),
    (b'{"target_platform":{"os":"linux","arch":"a\\"b"},' + GOOD + b"}", "arch"),
    (b'{"target_platform":{"os":"linux","arch":"' + b"a" * 33 + b'"},' + GOOD + b"}", "arch"),
    (b'{"rr_version":"v1","rr_version":"v2","plugins":[]}', "rr_version"),
    (b'{"request_id":"a","request_id":"b",' + GOOD + b"}", "request_id"),
    (b'{"rr_version":"v1","plugins":[{"module_name":"m","tag":"a","tag":"b"}]}', "tag"),
    (b'{"x":{"y":1,"y":2},' + GOOD + b"}", "y"),
    (b'{"rr_v\\u0065rsion":"v1",' + GOOD + b"}", "rr_version"),
    (b'{"rrVersion":"v1","plugins":[]}', "rrVersion"),
    (b'{"requestId":"x",' + GOOD + b"}", "requestId"),
    (b'{"targetPlatform":{"os":"linux","arch":"amd64"},' + GOOD + b"}", "targetPlatform"),
    (b'{"forceRebuild":true,' + GOOD + b"}", "forceRebuild"),
    (b'{"rr_version":"v1","plugins":[{"moduleName":"m","tag":"a"}]}', "moduleName"),
    (b'{"x":"a\\u0000b",' + GOOD + b"}", ""),
    (b'{"a\\u0000b":1,' + GOOD + b"}", ""),
    (b'{"x":"\xff",' + GOOD + b"}", ""),
    (b'{"x":"\xc3",' + GOOD + b"}", ""),
    (b'{"x":"\xc0\x80",' + GOOD + b"}", ""),
    (b'{"x":"\xed\xa0\x80",' + GOOD + b"}", ""),
]


@pytest.mark.parametrize("request_body,named", REFUSED)
def test_a_build_request_that_is_not_valid_is_400_and_says_why(stack, request_body, named):
    front = stack.php_asks_for_build(request_body)
    message = check_error(front.read_answer(), 400, "invalid_request")
    assert named in message
    assert stack.velox.is_idle(0.005)


def test_a_given_request_id_comes_back_in_an_error(stack):
    front = stack.php_asks_for_build(b'{"request_id":"mine","rr_version":"v1"}')
    check_error(front.read_answer(), 400, "invalid_request", request_id="mine")


@pytest.mark.parametrize("size,status", [(1 << 20, 200), ((1 << 20) + 1, 400)])
def test_the_limit_of_a_build_request(stack, size, status):
    request = stack.build_request(filler="")
    request = request.replace(b'"filler": ""', b'"filler": "%s"' % (b"x" * (size - len(request))))
    assert len(request) == size
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout(b"X-Velox-Build: true\r\n\r\n" + request)
    if status == 200:
        worker.end()
        call = stack.velox.accept()
        assert call.body == request
        call.answer(json.dumps({"path": stack.artifact(b"built")}))
        assert front.read_answer().body == b"built"
    else:
        check_error(front.read_answer(), 400, "invalid_request")


def test_an_endless_build_request_is_400_while_php_still_sends(start):
    stack = start(php_fpm={"finish_timeout": "200ms"})
    front = stack.ask()
    worker = stack.fpm.accept()
    worker.read_request()
    worker.stdout(b'X-Velox-Build: true\r\n\r\n{"x":"')
    try:
        for _ in range(40):
            worker.stdout(b"x" * 65528)
    except OSError:
        pass
    check_error(front.read_answer(), 400, "invalid_request")
    worker.wait_closed()


def test_a_lower_limit_is_obeyed_and_says_so(start):
    stack = start(velox={"max_request_size": "1K"})
    front = stack.php_asks_for_build(stack.build_request(filler="x" * 1000))
    check_error(front.read_answer(), 400, "invalid_request")
    assert stack.build().body == b"built"


def test_headers_of_php_stay_on_an_error_so_that_a_browser_sees_it(stack):
    head = ("Access-Control-Allow-Origin: https://app.example\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            "Content-Disposition: attachment; filename=x\r\nContent-Length: 2\r\nETag: \"x\"\r\n")
    answer = stack.php_asks_for_build(b"{}", head).read_answer()
    check_error(answer, 400, "invalid_request")
    assert answer.get("Access-Control-Allow-Origin") == "https://app.example"
    assert answer.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert answer.get("Content-Disposition") is None and answer.get("ETag") is None
    assert answer.get("Content-Length") in (None, str(len(answer.body)))


def test_random_bytes_for_a_build_request_do_no_harm(stack):
    for seed in range(20):
        front = stack.php_asks_for_build(b"{" + random_bytes(100, seed))
        check_error(front.read_answer(), 400, "invalid_request")
