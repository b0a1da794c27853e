"""A headless Chromium for tests of pages, driven through its debugging pipe without any other package.

If no Chromium is installed under one of its usual names, the tests are skipped with the reason.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 300


def chromium() -> str:
    """Return the path of the browser, or skip the calling test."""
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    pytest.skip(f"Chromium is not installed under any of the names {', '.join(NAMES)} (apt-get install chromium)")


class Page:
    """A page of the browser. Its commands are those of the Chrome DevTools Protocol."""

    def __init__(self, process: subprocess.Popen[bytes], send: int, receive: int) -> None:
        self.process, self._send, self._receive = process, send, receive
        self._buffer, self._number, self._session = b"", 0, ""
        self.problems: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result. Errors of the page that arrive before the result are collected."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._receive, 1 << 16)
            assert part, "the browser has closed the pipe"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.problems.append(str(parameters["args"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.problems.append(str(parameters["entry"]))
        elif event.get("method") == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                self.problems.append(f"requests {url} from the network")

    def open(self, path: Path, width: int, dark: bool = False) -> None:
        """Load a file in a window of ``width`` pixels and wait until it is complete."""
        mobile = width < 600
        self("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Page.navigate", url=path.resolve().as_uri())
        for _ in range(1000):
            if self.run("document.readyState === 'complete' && location.protocol === 'file:'"):
                return
        raise AssertionError(f"{path} did not load")

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a screenshot of the whole page as a PNG file."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()


@contextmanager
def browser() -> Iterator[Page]:
    """Start Chromium with an empty profile and yield a page; skip the test if Chromium is not installed."""
    path = chromium()
    ours, theirs = os.pipe(), os.pipe()

    def pipes() -> None:
        # Chromium reads from descriptor 3 and writes to 4; duplicate ours first, because they may be 3 or 4
        read, write = os.dup(ours[0]), os.dup(theirs[1])
        os.dup2(read, 3)
        os.dup2(write, 4)

    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [path, *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=pipes,
        )
        os.close(ours[0])
        os.close(theirs[1])
        try:
            yield Page(process, ours[1], theirs[0])
        finally:
            process.kill()
            process.wait(SECONDS)
            os.close(ours[1])
            os.close(theirs[0])
            shutil.rmtree(profile, ignore_errors=True)
