# SPDX-License-Identifier: MIT
"""Status page, ping and metrics: answered by the sidecar itself, whatever PHP-FPM does."""

import html.parser
import json
import os
import re
import resource
import socket
import threading
import xml.etree.ElementTree as ElementTree

import pytest

from conftest import SharedStack, wait_until
from peers import ABORT_REQUEST, SLOW, Answer, connect, environment, record
from test_scgi import netstring

FIELDS = """version|start time|start since|accepted conn|fronts active|workers active|max workers active|workers queued
requests relayed|requests built|builds active|builds queued|builds success|builds error|builds timeout|builds cancelled
builds coalesced|artifact bytes|cache hits|cache misses|cache entries|cache size""".replace("\n", "|").split("|")
LISTING = ["exchanges shown", "exchanges left out", "threads silent"]
ROW = ["state", "age", "request", "build", "bytes"]
TYPES = {"": "text/plain; charset=utf-8", "json": "application/json", "html": "text/html; charset=utf-8",
         "xml": "text/xml; charset=utf-8",
         "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8"}
SIDECAR = {"status_path": "/status", "ping_path": "/ping"}


@pytest.fixture(scope="module")
def shared_stack():
    shared = SharedStack({"sidecar": SIDECAR})
    yield shared
    shared.drop()


def page(query="", method="GET", path="/status", body=b"", uri=None):
    return environment(method, body, uri=path, extra=[
        ("QUERY_STRING", query), ("REQUEST_URI", uri or path + ("?" + query if query else ""))])


def get(stack, query="", **named):
    front = stack.ask(page(query, **named))
    answer = front.read_answer()
    assert answer.ended and answer.app_status == 0
    front.close()
    return answer


def figures(stack):
    return json.loads(get(stack, "json").body)


def full(stack):
    return json.loads(get(stack, "json&full").body)


def rows(stack, **members):
    return [row for row in full(stack)["exchanges"] if all(row[name] == value for name, value in members.items())]


def wait_calm(stack):
    """What earlier tests have left has been closed."""
    wait_until(lambda: [row["state"] for row in full(stack)["exchanges"]] == ["status"], "nobody else")


class Page(html.parser.HTMLParser):
    """The cells of the tables, and every element's name."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.tables, self.cell = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""
        elif tag == "small":
            self.cell = (self.cell or "") + "|"

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None


def read(query, body):
    """Any format with rows: the figures, and each row as a dictionary of texts."""
    text = body.decode()
    if "json" in query:
        value = json.loads(text)
        return list(value.items()), value.get("exchanges", [])
    if "xml" in query:
        root = ElementTree.fromstring(text)
        assert root.tag == "status"
        found = [{cell.tag: cell.text for cell in row} for row in root.iter("exchange")]
        return [(each.tag, each.text) for each in root if each.tag != "exchanges"], found
    if "html" in query:
        tables = Page(text).tables
        assert len(tables) == 2 and tables[1][0] == ["state", "age, s", "request", "build", "bytes"]
        return [tuple(row) for row in tables[0]], [dict(zip(ROW, row)) for row in tables[1][1:]]
    first, *others = text.split("\n************************\n")
    pairs = [[re.fullmatch("([a-z ]+): +(.*)", line).groups() for line in block.splitlines() if line]
             for block in (first, *others)]
    return pairs[0], [dict(each) for each in pairs[1:]]


# ---- the formats -------------------------------------------------------------------------------

@pytest.mark.parametrize("query", TYPES)
def test_head_of_the_answer(stack, query):
    answer = get(stack, query)
    assert answer.status == 200
    assert answer.get("Content-Type") == TYPES[query]
    assert answer.get("Expires") == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert answer.get("Cache-Control") == "no-cache, no-store, must-revalidate, max-age=0"
    assert answer.get("Content-Length") == str(len(answer.body)) and answer.body
    only_head = get(stack, query, method="HEAD")
    assert only_head.body == b""
    assert [name for name, _ in only_head.headers] == [name for name, _ in answer.headers]


def test_text(stack):
    lines = get(stack).body.decode().splitlines()
    assert [line[:22] for line in lines] == [f"{name}:".ljust(22) for name in FIELDS]
    values = dict(line.split(":", 1) for line in lines)
    assert re.fullmatch(r" +\d+\.\d+\.\d+", values["version"])
    assert re.fullmatch(r" +\d\d/[A-Z][a-z][a-z]/\d{4}:\d\d:\d\d:\d\d \+0000", values["start time"])
    assert all(values[name].strip().isdigit() for name in FIELDS[2:])


def test_json(stack):
    value = figures(stack)
    assert list(value) == FIELDS
    assert all(isinstance(value[name], int) for name in FIELDS[1:])
    assert value["fronts active"] >= 1 and value["accepted conn"] >= value["fronts active"]
    assert os.stat(stack.sidecar.config).st_mtime - 1 <= value["start time"] <= os.stat(stack.folder).st_mtime + 60


def test_xml(stack):
    text, found = read("xml", get(stack, "xml").body)
    assert [name for name, _ in text] == [name.replace(" ", "-") for name in FIELDS]
    assert all(value.isdigit() for _, value in text[1:]) and not found


@pytest.mark.parametrize("query", ["html", "html&full"])
def test_html_needs_nothing_else(stack, query):
    parsed = Page(get(stack, query).body.decode())
    names = [name for name, _ in parsed.elements]
    assert [row[0] for row in parsed.tables[0]] == FIELDS
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(names)
    assert [attributes for name, attributes in parsed.elements if name == "meta" and attributes.get("name") == "viewport"]
    assert all(attributes["href"].startswith("?") for name, attributes in parsed.elements if name == "a")
    assert names.count("caption") == names.count("table") == (2 if "full" in query else 1)
    assert all(attributes["scope"] in ("row", "col") for name, attributes in parsed.elements if name == "th")


def contrast(*colours):
    """The ratio of WCAG 2 (relative luminance of sRGB)."""
    light = []
    for colour in colours:
        parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        light.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] + 0.05)
    return max(light) / min(light)


def test_colours_are_far_enough_apart(stack):
    """Level AA: 4.5 for text, 3 for the outline that shows the focus."""
    text = get(stack, "html").body.decode()
    schemes = [dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", block)) for block in re.findall(r":root\{([^}]*)\}", text)]
    assert len(schemes) == 2 and all(set(scheme) == {"back", "text", "muted", "stripe", "line", "link"} for scheme in schemes)
    for scheme in schemes:
        for front in ("text", "muted", "link"):
            for back in ("back", "stripe"):
                assert contrast(scheme[front], scheme[back]) >= 4.5, (front, back)
    rules = text[text.index("*{box-sizing"):text.index("</style>")]
    assert not re.search(r"#[0-9a-f]{3,6}|rgb|opacity", rules), "every colour is one of those above"
    assert set(re.findall(r"(?<![-\w])color:var\(--(\w+)\)", rules)) == {"text", "muted", "link"}


@pytest.mark.parametrize("query", ["full", "json&full", "full=1&xml", "html&full="])
def test_full_page_in_each_format(stack, query):
    uri = f"/slow.php?{query}"  # not that of the test before, whose exchange may end later than its test
    front = stack.ask(environment(uri=uri))
    worker = stack.fpm.accept()
    worker.read_request()
    text, found = read(query, get(stack, query).body)
    if "html" not in query:
        wanted = FIELDS + LISTING
        wanted = wanted + ["exchanges"] if "json" in query else wanted
        assert [name.replace("-", " ") for name, _ in text] == wanted
    assert all(list(row) == ROW for row in found)
    shown = [row for row in found if row["request"] == f"GET {uri}"]
    assert len(shown) == 1 and shown[0]["state"] == "head" and shown[0]["build"] == "-"
    assert float(shown[0]["age"]) < 60 and int(shown[0]["bytes"]) == 0
    own = [row for row in found if row["request"] == f"GET /status?{query}"]
    assert len(own) == 1 and own[0]["state"] == "status"
    front.close()


def test_of_several_formats_one_counts(stack):
    for query, kind in (("xml&html", "html"), ("json&xml", "xml"), ("openmetrics&json", "json"),
                        ("a=json", ""), ("jsonx&xhtml", ""), ("x&&json&", "json"), ("json=0", "json"), ("full&openmetrics", "openmetrics")):
        assert get(stack, query).get("Content-Type") == TYPES[kind]


# ---- metrics -----------------------------------------------------------------------------------

METRICS = {
    "velox_build": ("info", "version", None),
    "velox_builds": ("counter", "status", "success error timeout cancelled"),
    "velox_builds_active": ("gauge", None, None),
    "velox_builds_queued": ("gauge", None, None),
    "velox_builds_coalesced": ("counter", None, None),
    "velox_build_duration_seconds": ("histogram", None, None),
    "velox_retries": ("counter", "reason", "connect cut timeout http_status code"),
    "velox_client_disconnects": ("counter", "stage", "queue build stream"),
    "velox_errors": ("counter", "type", "invalid_request forbidden too_large build_failed artifact_unavailable "
                                        "velox_unavailable worker_failed busy timeout"),
    "velox_cache_hits": ("counter", None, None),
    "velox_cache_misses": ("counter", None, None),
    "velox_cache_evictions": ("counter", "reason", "size entries age corrupt"),
    "velox_cache_entries": ("gauge", None, None),
    "velox_cache_size_bytes": ("gauge", None, None),
    "velox_stream_ttfb_seconds": ("histogram", None, None),
    "velox_worker_release_seconds": ("histogram", None, None),
    "velox_requests": ("counter", "kind", "relayed built own"),
    "velox_workers_active": ("gauge", None, None),
    "velox_workers_queued": ("gauge", None, None),
    "velox_worker_errors": ("counter", "reason", "connect backlog died response_timeout"),
    "velox_fronts_active": ("gauge", None, None),
    "velox_artifact_bytes": ("counter", None, None),
}
SUFFIXES = {"counter": ["_total"], "gauge": [""], "info": ["_info"], "histogram": ["_bucket", "_sum", "_count"]}


def parse_metrics(text):
    """A strict reading of what OpenMetrics 1.0 allows: {family: {type, unit, help, samples}}."""
    assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1 and "\r" not in text
    families, name = {}, None
    for line in text.splitlines()[:-1]:
        meta = re.fullmatch(r"# (TYPE|UNIT|HELP) ([a-z_]+) (.+)", line)
        if meta and meta.group(1) == "TYPE":
            name = meta.group(2)
            assert name not in families, f"{name} comes twice"
            families[name] = {"TYPE": meta.group(3), "samples": []}
        elif meta:
            assert meta.group(2) == name and meta.group(1) not in families[name]
            assert not families[name]["samples"], "metadata comes before the samples"
            families[name][meta.group(1)] = meta.group(3)
        else:
            sample = re.fullmatch(r'([a-z_]+)(?:\{([a-z]+)="([^"\\\n]*)"\})? (\d+(?:\.\d+)?)', line)
            assert sample, line
            assert sample.group(1).removeprefix(name) in SUFFIXES[families[name]["TYPE"]], line
            families[name]["samples"].append((sample.group(1), sample.group(2), sample.group(3), float(sample.group(4))))
    for name, family in families.items():
        assert family["HELP"] and ("UNIT" not in family or name.endswith("_" + family["UNIT"]))
        assert len({sample[:3] for sample in family["samples"]}) == len(family["samples"]) > 0
    return families


def metrics(stack):
    """{name or name{value}: number}"""
    families = parse_metrics(get(stack, "openmetrics").body.decode())
    return {name if value is None else f"{name}{{{value}}}": number
            for family in families.values() for name, _, value, number in family["samples"]}


def test_metrics_are_complete_from_the_start(start):
    stack = start(sidecar=SIDECAR)
    families = parse_metrics(get(stack, "openmetrics").body.decode())
    assert set(families) == set(METRICS)
    for name, (kind, label, values) in METRICS.items():
        family = families[name]
        assert family["TYPE"] == kind
        assert family.get("UNIT") == {"seconds": "seconds", "bytes": "bytes"}.get(name.rpartition("_")[2])
        if kind == "histogram":
            continue
        assert {sample[1] for sample in family["samples"]} == {label}
        if values:
            assert [sample[2] for sample in family["samples"]] == values.split()
        if kind != "info" and name not in ("velox_requests", "velox_fronts_active"):
            assert {sample[3] for sample in family["samples"]} == {0}
    assert families["velox_build"]["samples"] == [("velox_build_info", "version", figures(stack)["version"], 1)]


@pytest.mark.parametrize("name, first, last", [("velox_build_duration_seconds", 5, 600), ("velox_stream_ttfb_seconds", .0001, 5),
                                               ("velox_worker_release_seconds", .0001, 1)])
def test_histograms_add_up(stack, name, first, last):
    stack.build()
    samples = parse_metrics(get(stack, "openmetrics").body.decode())[name]["samples"]
    buckets = [(bound, number) for sample, label, bound, number in samples if label == "le"]
    bounds = [float(bound) for bound, _ in buckets]
    assert bounds == sorted(set(bounds)) and bounds[0] == first and bounds[-2] == last and buckets[-1][0] == "+Inf"
    counts = [number for _, number in buckets]
    assert counts == sorted(counts) and counts[-1] >= 1
    assert [sample[0] for sample in samples[-2:]] == [name + "_sum", name + "_count"]
    assert samples[-1][3] == counts[-1] and samples[-2][3] >= 0


def test_what_happens_is_counted(start):
    stack = start(sidecar=SIDECAR, velox={"failure_ttl": "0"})
    stack.check_serves()
    assert stack.build().status == 200
    assert stack.build('{"code": "internal", "message": "no"}', status=500).status == 500
    front = stack.php_asks_for_build()
    call = stack.velox.accept()
    front.close()
    call.wait_closed()
    wait_until(lambda: figures(stack)["builds cancelled"] == 1, "a cancelled build")
    get(stack, path="/ping")
    seen, found = figures(stack), metrics(stack)
    assert (seen["requests relayed"], seen["requests built"], seen["max workers active"]) == (1, 3, 1)
    assert (seen["builds success"], seen["builds error"], seen["builds active"]) == (1, 1, 0)
    assert seen["artifact bytes"] == len(b"built")
    assert found["velox_builds_total{success}"] == found["velox_builds_total{error}"] == 1
    assert found["velox_builds_total{cancelled}"] == found["velox_client_disconnects_total{build}"] == 1
    assert found["velox_errors_total{build_failed}"] == 1
    assert found["velox_requests_total{relayed}"] == 1 and found["velox_requests_total{built}"] == 3
    assert found["velox_requests_total{own}"] >= 4
    assert found["velox_artifact_bytes_total"] == len(b"built")


# ---- one row an exchange -----------------------------------------------------------------------

def test_rows_follow_their_exchange(stack):
    uri = "/build.php?id=7"
    front = stack.ask(environment(uri=uri))
    worker = stack.fpm.accept()
    worker.read_request()
    assert [row["state"] for row in rows(stack, request=f"GET {uri}")] == ["head"]
    request = stack.build_request(request_id="status-7")
    worker.answer(b"X-Velox-Build: 1\r\n\r\n" + request)
    worker.wait_closed()
    call = stack.velox.accept()
    (row,) = rows(stack, request=f"GET {uri}")
    assert (row["state"], row["build"], row["bytes"]) == ("build", "status-7", 0)
    size = 20_000_000
    call.answer(json.dumps({"path": stack.artifact(bytes(size)), "logs": ""}))
    front.read_record()
    (row,) = wait_until(lambda: rows(stack, request=f"GET {uri}", state="deliver"), "a delivery")
    assert row["build"] == "status-7" and 0 < row["bytes"] < size
    front.read_answer()
    wait_until(lambda: not rows(stack, request=f"GET {uri}"), "the end of the row")


def test_bytes_of_a_relayed_answer(stack):
    front = stack.front()
    for number, length in enumerate((1000, 2000)):
        front.ask(environment(uri=f"/page/{number}"), keep=True)
        worker = stack.fpm.accept()
        worker.read_request()
        worker.stdout(b"Content-Type: text/plain\r\n\r\n" + bytes(length))
        while front.read_record() is None:
            pass
        (row,) = rows(stack, request=f"GET /page/{number}")
        assert row["state"] == "relay" and length <= row["bytes"] < length + 200
        worker.end()
        front.read_answer()


def test_idle_connections_are_no_exchanges(stack):
    front = stack.ask(page(path="/ping"), keep=True)
    front.read_answer()
    wait_calm(stack)
    front.send(record(1, content=b"\0\1\1" + bytes(5)))
    wait_until(lambda: rows(stack, state="params", request="-"), "a head that is coming")


def test_rows_of_all_threads(start):
    stack = start(sidecar={**SIDECAR, "threads": 4})
    fronts = [stack.ask(environment(uri=f"/{number}")) for number in range(40)]
    for _ in fronts:
        stack.fpm.accept().read_request()
    seen = full(stack)
    assert {row["request"] for row in seen["exchanges"]} >= {f"GET /{number}" for number in range(40)}
    assert (seen["exchanges shown"], seen["exchanges left out"], seen["threads silent"]) == (41, 0, 0)


HOSTILE = [
    b"/</td><script>alert(1)</script>", b"/\"onload='x'&amp;<!--", b"/]]>&lt;?xml", b"/\r\nstate: forged\n\n****", b"/\x00\x1b[31m\x7f",
    b"/\xff\xfe\xc3\x28\xed\xa0\x80", "/\u202egnp.exe\u2028\u0085".encode(), "/\uffff\ufffe".encode(), b'/"},{"state":"x', b"/\\u0041\\",
    "/k\u00e4se/\U0001f600".encode(), b"/" + b"x" * 5000, b"/" + "\u20ac".encode() * 200, b"/" + b"\x01" * 5000]


@pytest.mark.parametrize("uri", HOSTILE)
@pytest.mark.parametrize("query", ["full", "json&full", "xml&full", "html&full"])
def test_hostile_uris(stack, query, uri):
    wait_calm(stack)
    stack.ask(environment(extra=[("REQUEST_URI", uri)]))
    stack.fpm.accept().read_request()
    answer = get(stack, query)
    _, found = read(query, answer.body)
    text = answer.body.decode()
    assert not set(text) & set(map(chr, [*range(9), *range(11, 32), 127]))
    assert not set(text) & set("\u202e\u2028\u0085\uffff\ufffe")
    (shown,) = [row["request"] for row in found if row["state"] == "head"]
    try:
        plain = uri.decode()
    except UnicodeDecodeError:
        plain = ""
    if plain.isprintable() and plain and len(uri) < 256:
        assert shown == "GET " + plain
    elif len(uri) > 256:
        assert shown.endswith("...") and len(shown) < 256 * 4 + 10
    else:
        assert "\\x" in shown or "\\u" in shown
    if "html" in query:
        assert not {"script", "img"} & {name for name, _ in Page(text).elements}


def test_a_methods_bytes_are_escaped_too(stack):
    wait_calm(stack)
    stack.ask(environment("G<E>\n" + "T" * 100, uri="/x"))
    stack.fpm.accept().read_request()
    (row,) = rows(stack, state="head")
    assert re.fullmatch(r"G<E>\\x0aT+\.\.\. /x", row["request"])


# ---- how it is asked ---------------------------------------------------------------------------

def test_ping(stack):
    answer = get(stack, path="/ping")
    assert answer.status == 200 and answer.body == b"pong" and answer.get("Content-Length") == "4"
    assert answer.get("Content-Type").startswith("text/plain") and "no-cache" in answer.get("Cache-Control")
    assert get(stack, path="/ping", method="HEAD").body == b""
    assert get(stack, "json&full", path="/ping").body == b"pong"


def test_ping_says_what_is_configured(start):
    stack = start(sidecar={"ping_path": "/alive", "ping_response": "I am here, <you>"})
    assert get(stack, path="/alive").body == b"I am here, <you>"
    stack.ask(page(path="/ping"))
    assert stack.fpm.accept().read_request().get("SCRIPT_NAME") == "/ping"


@pytest.mark.parametrize("path", ["/status/", "/statu", "/Status", "/status.php", "//status", ""])
def test_another_path_goes_to_php(stack, path):
    stack.ask(environment(extra=[("SCRIPT_NAME", path), ("REQUEST_URI", "/status")]))
    assert stack.fpm.accept().read_request().get("SCRIPT_NAME") == path


def test_no_path_no_page(start):
    stack = start()
    for path in ("/status", "/ping", ""):
        stack.ask(environment(extra=[("SCRIPT_NAME", path)]))
        assert stack.fpm.accept().read_request().get("SCRIPT_NAME") == path


@pytest.mark.parametrize("query", ["", "json&full", "openmetrics"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_body_is_dropped(stack, query, keep):
    front = stack.front()
    for _ in range(3 if keep else 1):
        front.ask(page(query, "POST", body=bytes(300_000)), bytes(300_000), keep=keep)
        assert front.read_answer().status == 200
        front.sender.join()
    if keep:
        front.ask(page(path="/ping"), keep=False)
        assert front.read_answer().body == b"pong"
    front.source.wait_closed()
    assert stack.fpm.is_idle()


def test_kept_connections(stack):
    front = stack.front()
    for query in ("", "full", "json", "json&full", "openmetrics", "html&full") * 3:
        front.ask(page(query), keep=True)
        assert front.read_answer().status == 200
    front.ask(environment(uri="/page.php"), keep=True)
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("Content-Type: text/plain\r\n\r\nhello")
    assert front.read_answer().body == b"hello"


@pytest.mark.parametrize("query", ["", "json&full", "openmetrics"])
def test_over_scgi(start, query):
    stack = start(sidecar=SIDECAR, listen={"scgi": "unix:{folder}/scgi.sock"})
    stack.sidecar.wait_log("ready")
    for method in ("GET", "HEAD"):
        client = connect(stack.sections["listen"]["scgi"])
        pairs = [(b"CONTENT_LENGTH", b"0"), (b"SCGI", b"1")]
        pairs += [(name.encode(), value.encode()) for name, value in page(query, method) if name != "CONTENT_LENGTH"]
        client.sendall(netstring(pairs))
        answer = Answer()
        while piece := client.recv(1 << 20):
            answer.stdout += piece
        client.close()
        assert answer.status == 200 and bool(answer.body) == (method == "GET")


def test_while_php_fpm_is_down(stack):
    os.unlink(stack.fpm.address[5:])
    try:
        assert figures(stack)["version"] and get(stack, path="/ping").body == b"pong"
        assert full(stack)["exchanges"]
        front = stack.ask()
        front.assert_closed_without_answer()
        assert metrics(stack)["velox_worker_errors_total{connect}"] >= 1
    finally:
        stack.fpm.close()
        stack.fpm.__init__(stack.fpm.address)


def test_while_every_place_is_taken(start):
    stack = start(sidecar=SIDECAR, php_fpm={"max_connections": 1})
    stack.ask(environment(uri="/first"))
    worker = stack.fpm.accept()
    worker.read_request()
    second = stack.ask(environment(uri="/second"))
    assert wait_until(lambda: rows(stack, state="queued"), "a queue")[0]["request"] == "GET /second"
    seen = figures(stack)
    assert (seen["workers active"], seen["workers queued"], seen["max workers active"]) == (1, 1, 1)
    assert get(stack, path="/ping").body == b"pong"
    worker.answer("Content-Type: text/plain\r\n\r\nfirst")
    worker = stack.fpm.accept()
    worker.read_request()
    worker.answer("Content-Type: text/plain\r\n\r\nsecond")
    assert second.read_answer().body == b"second"
    wait_until(lambda: figures(stack)["workers active"] == 0, "the end of the workers")
    assert figures(stack)["max workers active"] == 1


def test_most_workers_at_once(start):
    stack = start(sidecar=SIDECAR)
    for _ in range(2):
        fronts = [stack.ask() for _ in range(7)]
        workers = [stack.fpm.accept() for _ in fronts]
        for worker in workers:
            worker.read_request()
        assert figures(stack)["workers active"] == 7
        for worker in workers:
            worker.answer("Content-Type: text/plain\r\n\r\n")
        for front in fronts:
            front.read_answer()
        wait_until(lambda: figures(stack)["workers active"] == 0, "the end of the workers")
    assert figures(stack)["max workers active"] == 7


def test_a_client_that_leaves_or_aborts(stack):
    for _ in range(50):
        front = stack.ask(page("full"))
        front.close()
    front = stack.front()
    front.begin(page("full"), keep=True)
    front.send(record(ABORT_REQUEST))
    front.read_answer()
    stack.check_serves()
    wait_calm(stack)


def test_drain_ends_with_the_page(start):
    stack = start(sidecar=SIDECAR)
    front = stack.ask(page("full"), keep=True)
    front.read_answer()
    worker_front = stack.ask(environment(uri="/slow"))
    worker = stack.fpm.accept()
    worker.read_request()
    stack.sidecar.signal(15)
    front.source.wait_closed()
    worker.answer("Content-Type: text/plain\r\n\r\nlast")
    assert worker_front.read_answer().body == b"last"
    assert stack.sidecar.wait() == 0


# ---- many --------------------------------------------------------------------------------------

@pytest.fixture
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 6000:
        pytest.skip(f"needs 6000 descriptors, the limit is {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (6000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def fill_queue(stack, count, tail=""):
    """So many exchanges, all but one of which wait for a place. No faster than they are accepted: the backlog has an end."""
    for number in range(count):
        stack.ask(environment(uri=f"/{number}{tail}"))
        if number % 500 == 499 or number == count - 1:
            wait_until(lambda: figures(stack)["workers queued"] == number, "a queue", 60)


def test_fifty_clients_and_two_thousand_exchanges(start, many_descriptors):
    stack = start(sidecar=SIDECAR, php_fpm={"max_connections": 1, "queue_timeout": "10m"})
    count, clients = (2000, 50) if SLOW == 1 else (200, 10)
    fill_queue(stack, count, "/" + "x" * 200)
    before_kb = stack.sidecar.peak_memory_kb()
    problems = []

    def ask(query):
        try:
            _, found = read(query, get(stack, query).body)
            if len({row["request"] for row in found if "xxx" in row["request"]}) != count:
                problems.append(f"{query}: {len(found)} rows")
        except Exception as problem:
            problems.append(repr(problem))

    threads = [threading.Thread(target=ask, args=(("full", "json&full", "xml&full", "html&full")[number % 4],))
               for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    stack.sidecar.assert_grew_less(before_kb, 16 * 1024)


def test_slow_readers_hold_little(start, many_descriptors):
    stack = start(sidecar=SIDECAR, php_fpm={"max_connections": 1, "queue_timeout": "10m"})
    count = 1000 if SLOW == 1 else 200
    fill_queue(stack, count, "/" + "x" * 200)
    before_kb = stack.sidecar.peak_memory_kb()
    slow = []
    for number in range(100):
        front = stack.front()
        front.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        front.ask(page("html&full"))
        front.read_record()
        slow.append(front)
    assert len(full(stack)["exchanges"]) > count
    stack.sidecar.assert_grew_less(before_kb, 32 * 1024)
    # What came first is in slow[0].source no more: the rest must be whole to its end.
    assert slow[0].read_answer().stdout.endswith(b"</body>\n</html>\n")


def test_more_rows_than_a_page_has(start, many_descriptors):
    if SLOW > 1:
        pytest.skip("4500 exchanges take too long under a checker")
    stack = start(sidecar={**SIDECAR, "threads": 1}, php_fpm={"max_connections": 1, "queue_timeout": "10m"})
    count = 4500
    fill_queue(stack, count)
    # The page itself is one, and so are those before it while they are being closed.
    seen = wait_until(lambda: (page := full(stack))["exchanges left out"] == count + 1 - 4096 and page, "nobody else")
    assert len(seen["exchanges"]) == seen["exchanges shown"] == 4096
    assert seen["exchanges"][0]["request"] == "GET /0"
