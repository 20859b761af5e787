from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

import pytest

from fleetscan.appliance.guest import disks

Open = Callable[..., int]


def opening_after(tries: list[int], failures: int, code: int) -> Open:
    """An open(2) that fails some times before it works."""
    real = os.open

    def attempt(path: str, flags: int) -> int:
        tries.append(1)
        if len(tries) <= failures:
            raise OSError(code, os.strerror(code), path)
        return real("/dev/null", flags)

    return attempt


def test_a_disk_that_is_not_yet_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(os, "open", opening_after(tries, 5, errno.ENXIO))
    disks._wait_until_open("/dev/sda", time.monotonic() + 10)
    assert len(tries) == 6


def test_a_disk_that_never_opens_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", opening_after([], 10**9, errno.ENXIO))
    with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
        disks._wait_until_open("/dev/sda", time.monotonic() + 0.05)


def test_another_error_is_not_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(os, "open", opening_after(tries, 10**9, errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        disks._wait_until_open("/dev/sda", time.monotonic() + 10)
    assert len(tries) == 1


def test_disks_that_do_not_turn_up_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_PLUG_SECONDS", 0.05)
    monkeypatch.setattr(disks, "_plugged", lambda: {1: "sdb"})
    with pytest.raises(TimeoutError, match="2 of 3 disks did not appear"):
        disks.wait_for_disks([0, 1, 2])
