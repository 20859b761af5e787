"""A headless Chromium driven over the DevTools protocol's pipe.

Messages are JSON objects ended by a zero byte, read by the browser from descriptor 3 and written
to descriptor 4 (``--remote-debugging-pipe``), so no port is opened and no library is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
# Puts the two pipe ends where the browser wants them, whatever numbers they have here.
_LAUNCHER = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for wanted, fd in zip((3, 4), ends):
    os.dup2(fd, wanted)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_DEADLINE = 200.0  # seconds for the whole life of a browser; it starts in 1 to 5


class BrowserError(Exception):
    """The browser is missing, refused a command or did not answer in time."""


@dataclass
class Page:
    """One open page, and what it did since it was opened.

    Attributes:
        profile: the browser's own directory; every process of it names it.
        requests: URLs it asked for.
        complaints: console messages, log entries and exceptions.
    """

    profile: str
    to_browser: int
    from_browser: int
    deadline: float
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _session: str | None = None
    _last_id: int = 0
    _buffer: bytes = b""
    _loaded: bool = False

    def attach(self) -> None:
        """Open an empty page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        reply = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = reply["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def show(self, file: Path, width: int, scheme: Literal["light", "dark"] = "light") -> None:
        """Load a file into a window of this width, in CSS pixels, and wait until it is drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)
        self._loaded = False
        self.call("Page.navigate", url=file.as_uri())
        while not self._loaded:
            self._take(self._receive())

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression in the page."""
        reply = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in reply:
            raise BrowserError(str(reply["exceptionDetails"]))
        return reply["result"].get("value")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            BrowserError: it failed, or the browser is gone or past its deadline.
        """
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == self._last_id:
                break
            self._take(reply)
        if "error" in reply:
            raise BrowserError(f"{method}: {reply['error']}")
        result: dict[str, Any] = reply["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = self.deadline - time.monotonic()
            if left <= 0 or not select.select([self.from_browser], [], [], left)[0]:
                raise BrowserError(f"no answer from Chromium within {_DEADLINE:.0f} seconds")
            data = os.read(self.from_browser, 1 << 20)
            if not data:
                raise BrowserError("Chromium ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _take(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.complaints.append(json.dumps(parameters))


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A fresh browser with one page; all of its processes are gone when the block ends.

    Raises:
        BrowserError: Chromium is not installed, or does not start.
    """
    binary = shutil.which("chromium")
    if binary is None:
        raise BrowserError("chromium is not installed: apt-get install chromium")
    profile = tempfile.mkdtemp(prefix="fleetscan-browser-")
    browser_end, to_browser = os.pipe()
    from_browser, answer_end = os.pipe()
    command = [sys.executable, "-c", _LAUNCHER, str(browser_end), str(answer_end), binary]
    process = subprocess.Popen(
        [*command, *_FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(browser_end, answer_end),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "HOME": profile, "TMPDIR": profile},
    )
    os.close(browser_end)
    os.close(answer_end)
    try:
        page = Page(profile, to_browser, from_browser, time.monotonic() + _DEADLINE)
        page.attach()
        yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        os.close(to_browser)
        os.close(from_browser)
        _remove(profile)


def processes_of(profile: str) -> list[int]:
    """Processes whose command line names a profile directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if profile.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def _remove(profile: str) -> None:
    # Killed children may take a moment to let go of the directory.
    give_up = time.monotonic() + 10
    while processes_of(profile) and time.monotonic() < give_up:
        time.sleep(0.05)
    shutil.rmtree(profile)
