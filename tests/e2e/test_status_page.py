# SPDX-License-Identifier: MIT
"""The status page through nginx by config/nginx-status.conf: who may see it, how it looks in a real
browser, and what a real Prometheus makes of it. Chromium and Prometheus are large: only
scripts/test --all installs them, and these tests are skipped where they are missing. Screenshots stay in
VELOX_SCREENSHOTS, where that is set."""
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from browser import Browser
from ports import unused_port
from stack import wait_until

HOSTILE = "/echo.php?x=</td><script>document.title='taken'</script>&y=%22'"
SIZES = {"phone": (360, 740, True), "desktop": (1280, 800, False)}
CONTRAST_MIN = 4.5  # WCAG 2.2, 1.4.3, level AA, text of ordinary size

# Every element that has text of its own, its colour and the colour behind it.
COLOURS = """
[...document.querySelectorAll('body *')].filter(element => [...element.childNodes].some(
    node => node.nodeType === 3 && node.textContent.trim())).map(element => {
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  return [element.tagName, getComputedStyle(element).color, getComputedStyle(behind || document.body).backgroundColor];
})"""


def find(program):
    found = shutil.which(program)
    if not found:
        pytest.skip(f"{program} is not installed; scripts/test --all installs it")
    return found


def get(stack, target, source="127.0.0.1"):
    connection = http.client.HTTPConnection("127.0.0.1", stack.http_port, timeout=30, source_address=(source, 0))
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()
    finally:
        connection.close()


# ---- nginx -------------------------------------------------------------------------------------

def test_through_nginx(with_status):
    assert get(with_status, "/velox-ping")[2] == b"pong"
    status, kind, body = get(with_status, "/velox-status?json&full")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body)["exchanges"][0]["request"] == "GET /velox-status?json&full"
    assert get(with_status, "/velox-status?openmetrics")[1] == \
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert get(with_status, "/velox-status")[2].startswith(b"version:              ")


def test_for_this_machine_only(with_status):
    for target in ("/velox-status", "/velox-ping"):
        assert get(with_status, target, source="127.0.0.1")[0] == 200
        assert get(with_status, target, source="127.0.0.2")[0] == 403


def test_head_over_kept_connections(with_status):
    for method in ("HEAD", "GET", "HEAD"):
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", with_status.http_port, timeout=30)
            connection.request(method, "/velox-status?json")
            answer = connection.getresponse()
            assert answer.status == 200 and bool(answer.read()) == (method == "GET")
            assert "no-store" in answer.getheader("Cache-Control")
            connection.close()


def test_php_fpms_own_page_still_works(with_status):
    status, _, body = get(with_status, "/php-status?json")
    assert status == 200 and json.loads(body)["pool"] == "www"
    direct = with_status.get("/php-status?json", front="direct-plain").json()
    assert list(direct) == list(json.loads(body))


# ---- Chromium ----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def browser():
    running = Browser(find("chromium"))
    yield running
    running.close()


def build(**standin):
    members = {"plugins": [{"module_name": "example.org/plugin", "tag": f"status-{len(standin)}-{standin}"}],
               "request_id": f"7c9e6679-7425-40de-944b-{standin['size']:012d}", "standin": standin}
    return "/ask.php?json=" + urllib.parse.quote(json.dumps(members))


@pytest.fixture(scope="module")
def crowd(with_status):
    """Exchanges to look at: uploads that go on, one of them with a name that means no good; builds; a download."""
    open_connections = []

    def send(request):
        connection = with_status.connect("unbuffered")
        connection.connect()
        connection.sock.sendall(request)
        open_connections.append(connection)
        return connection.sock

    for number in range(5):
        send(b"GET " + build(size=number, delay_ms=600_000).encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    download = send(b"GET " + build(size=64 << 20).encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert download.recv(1 << 16)
    for target in ("/echo.php?upload=1", HOSTILE, "/echo.php?" + "a-long-name/" * 40):
        send(b"POST " + target.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + bytes(100))

    def all_there():
        states = [row["state"] for row in json.loads(get(with_status, "/velox-status?json&full")[2])["exchanges"]]
        return states.count("build") == 5 and states.count("head") >= 2 and "deliver" in states
    wait_until(all_there, "exchanges to look at")
    yield with_status
    for connection in open_connections:
        connection.close()


def luminance(channel):
    channel /= 255
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def contrast(first, second):
    light = []
    for colour in (first, second):
        red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
        light.append(0.2126 * luminance(red) + 0.7152 * luminance(green) + 0.0722 * luminance(blue))
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("query", ["html", "html&full"])
def test_in_a_browser(browser, crowd, size, scheme, query):
    width, height, is_phone = SIZES[size]
    browser.show(f"http://127.0.0.1:{crowd.http_port}/velox-status?{query}", width, height, scheme, is_phone)
    picture = browser.screenshot()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    if os.environ.get("VELOX_SCREENSHOTS"):
        name = f"{query.replace('&', '-')}-{size}-{scheme}.png"
        Path(os.environ["VELOX_SCREENSHOTS"], name).write_bytes(picture)
    assert browser.evaluate("document.title") == "velox-sidecar status"
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert browser.evaluate("document.querySelectorAll('script').length") == 0
    assert len(browser.seen("Network.requestWillBeSent")) == 1, "it needs something from elsewhere"
    assert not browser.seen("Log.entryAdded") and not browser.seen("Runtime.exceptionThrown")
    colours = {tuple(each) for each in browser.evaluate(COLOURS)}
    assert {tag for tag, _, _ in colours} >= {"H1", "TH", "TD", "A", "CAPTION"}
    for tag, front, back in colours:
        assert contrast(front, back) >= CONTRAST_MIN, (tag, front, back)
    assert len({back for _, _, back in colours}) == 2, "rows are striped"
    (dark,) = {back for tag, _, back in colours if tag == "H1"}
    assert (contrast(dark, "rgb(255, 255, 255)") > 10) == (scheme == "dark")


@pytest.mark.parametrize("size", SIZES)
def test_the_table_scrolls_in_its_own_box(browser, crowd, size):
    width, height, is_phone = SIZES[size]
    browser.show(f"http://127.0.0.1:{crowd.http_port}/velox-status?html&full", width, height, "light", is_phone)
    inside, outside = browser.evaluate("(box => [box.scrollWidth, box.clientWidth])(document.querySelector('.box'))")
    assert outside <= width and (inside > outside) == is_phone
    texts = browser.evaluate("[...document.querySelectorAll('.r')].map(cell => cell.textContent)")
    assert any("</td><script>" in text for text in texts), texts
    numbers = browser.evaluate("[...document.querySelectorAll('td.n')].map(cell => [getComputedStyle(cell).textAlign, "
                               "getComputedStyle(cell).fontVariantNumeric])")
    assert numbers and all(style == ["right", "tabular-nums"] for style in numbers)


# ---- Prometheus --------------------------------------------------------------------------------

class Prometheus:
    def __init__(self, program, target):
        self.folder = Path(tempfile.mkdtemp(prefix="prometheus-"))
        self.port = unused_port()
        (self.folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": "500ms"},
            "scrape_configs": [{"job_name": "velox-sidecar", "metrics_path": "/velox-status",
                                "params": {"openmetrics": [""]}, "static_configs": [{"targets": [target]}]}]}))
        self.log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            [program, f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
             f"--web.listen-address=127.0.0.1:{self.port}"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return None

    def close(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def prometheus(with_status):
    running = Prometheus(find("prometheus"), f"127.0.0.1:{with_status.http_port}")
    yield running
    running.close()


def test_prometheus_scrapes_it(prometheus, with_status):
    def target():
        found = (prometheus.ask("targets") or {}).get("activeTargets", [])
        return found[0] if found and found[0]["health"] != "unknown" else None

    seen = wait_until(target, "the target's first scrape", 60)
    assert (seen["health"], seen["lastError"]) == ("up", ""), seen
    fronts = wait_until(lambda: (prometheus.ask("query?query=velox_fronts_active") or {}).get("result"), "a metric", 60)
    assert float(fronts[0]["value"][1]) >= 1 and fronts[0]["metric"]["job"] == "velox-sidecar"

    names = set(prometheus.ask("label/__name__/values"))
    assert names >= {"velox_build_info", "velox_builds_total", "velox_build_duration_seconds_bucket", "velox_errors_total",
                     "velox_artifact_bytes_total", "velox_requests_total"}
    kinds = {name: each[0] for name, each in prometheus.ask("metadata").items() if name.startswith("velox_")}
    assert kinds["velox_builds"]["type"] == "counter" or kinds["velox_builds_total"]["type"] == "counter"
    assert kinds["velox_build_duration_seconds"]["type"] == "histogram"
    assert all(each["help"] for each in kinds.values())
    assert len(prometheus.ask("query?query=velox_builds_total")["result"]) == 4


def test_promtool_finds_nothing_to_say(with_status):
    program = find("promtool")
    _, _, body = get(with_status, "/velox-status?openmetrics")
    # It reads the older text format, in which a counter's family has the name of its samples.
    lines = []
    for line in body.decode().splitlines()[:-1]:
        words = line.split(" ")
        if words[0] == "#" and words[1] == "UNIT":
            continue
        if words[0] == "#":
            suffix = "_total" if f"\n{words[2]}_total" in body.decode() else ""
            words[2] += "_info" if words[2] == "velox_build" else suffix
            words = [word if number != 3 or words[1] != "TYPE" else word.replace("info", "gauge")
                     for number, word in enumerate(words)]
        lines.append(" ".join(words))
    told = subprocess.run([program, "check", "metrics"], input="\n".join(lines) + "\n", capture_output=True, text=True)
    assert told.returncode == 0 and not told.stdout and not told.stderr, told.stdout + told.stderr
