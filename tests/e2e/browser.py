# SPDX-License-Identifier: MIT
"""A real Chromium without a window, driven by the DevTools protocol over a pipe (no port, no library)."""
import base64
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time

REPLY_SECONDS = 60


class Browser:
    def __init__(self, program):
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        self.number, self.buffer, self.events = 0, b"", []
        orders_read, self.orders = os.pipe()
        self.replies, replies_write = os.pipe()
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--no-first-run", "--disable-background-networking", "--disable-component-update",
                   "--disable-sync", "--hide-scrollbars", f"--user-data-dir={self.folder}",
                   "--remote-debugging-pipe", "about:blank"]
        # Chromium reads orders from descriptor 3 and writes replies to 4.
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{orders_read} 4>&{replies_write}', "bash", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(orders_read, replies_write), start_new_session=True,
            env={**os.environ, "HOME": self.folder})
        os.close(orders_read)
        os.close(replies_write)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _receive(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.replies], [], [], max(0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            piece = os.read(self.replies, 1 << 20)
            assert piece, "Chromium has ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        order = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            order["sessionId"] = self.session
        os.write(self.orders, json.dumps(order).encode() + b"\0")
        deadline = time.monotonic() + REPLY_SECONDS
        while True:
            message = self._receive(deadline)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def wait_for(self, event):
        deadline = time.monotonic() + REPLY_SECONDS
        while not any(message.get("method") == event for message in self.events):
            self.events.append(self._receive(deadline))

    def seen(self, event):
        return [message["params"] for message in self.events if message.get("method") == event]

    def show(self, url, width, height, scheme, is_phone):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, mobile=is_phone,
                  deviceScaleFactor=2 if is_phone else 1)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self):
        """All of the page, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png",
                                          captureBeyondViewport=True)["data"])

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(REPLY_SECONDS)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.orders)
        os.close(self.replies)
        shutil.rmtree(self.folder, ignore_errors=True)
