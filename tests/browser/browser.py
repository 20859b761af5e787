"""Debian's Chromium without a window, driven by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import BrowserContext, Playwright
from playwright.sync_api import Page as DrivenPage

_FLAGS = ("--disable-gpu", "--disable-quic", "--disable-sync", "--disable-breakpad")
_DEADLINE = 100_000.0  # milliseconds that any one step may take; a browser starts in 1 to 5 seconds


class BrowserError(Exception):
    """The browser is missing."""


@dataclass
class Page:
    """One open page, and what it did since it was opened.

    Attributes:
        profile: the browser's own directory; every process of it names it.
        driven: the page as Playwright has it.
        requests: URLs it asked for.
        complaints: console messages, log entries and exceptions.
    """

    profile: str
    driven: DrivenPage
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Note from now on what the page does."""
        self.driven.on("request", lambda request: self.requests.append(request.url))
        self.driven.on("console", lambda message: self.complaints.append(message.text))
        self.driven.on("pageerror", lambda error: self.complaints.append(str(error)))

    def show(self, file: Path, width: int, scheme: Literal["light", "dark"] = "light") -> None:
        """Load a file into a window of this width, in CSS pixels, and wait until it is drawn."""
        self.driven.set_viewport_size({"width": width, "height": 900})
        self.driven.emulate_media(color_scheme=scheme)
        self.driven.goto(file.as_uri(), wait_until="load")

    def evaluate(self, expression: str) -> Any:  # Any: a JSON value
        """The JSON value of a JavaScript expression in the page."""
        return self.driven.evaluate(expression)


@contextlib.contextmanager
def chromium(playwright: Playwright) -> Iterator[Page]:
    """A fresh browser with one page; all of its processes are gone when the block ends.

    Raises:
        BrowserError: Chromium is not installed.
    """
    binary = shutil.which("chromium")
    if binary is None:
        raise BrowserError("chromium is not installed: apt-get install chromium")
    profile = tempfile.mkdtemp(prefix="fleetscan-browser-")
    try:
        with contextlib.closing(_started(playwright, binary, profile)) as context:
            page = Page(profile, context.pages[0])
            page.listen()
            yield page
    finally:
        _remove(profile)


def _started(playwright: Playwright, binary: str, profile: str) -> BrowserContext:
    return playwright.chromium.launch_persistent_context(
        profile,
        executable_path=binary,
        args=_FLAGS,
        env={**os.environ, "HOME": profile, "TMPDIR": profile},
        timeout=_DEADLINE,
    )


def processes_of(profile: str) -> list[int]:
    """Processes whose command line names a profile directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if profile.encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
    return found


def _remove(profile: str) -> None:
    # Ended children may take a moment to let go of the directory.
    give_up = time.monotonic() + 10
    while processes_of(profile) and time.monotonic() < give_up:
        time.sleep(0.05)
    shutil.rmtree(profile)
