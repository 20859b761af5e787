"""Work in a copy of the process: it ends as a program would, whatever the work does."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from fleetscan.appliance.guest import resident, tools
from fleetscan.appliance.guest.tools import ToolError


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(arguments: Sequence[str]) -> int:
        os.write(1, " ".join(arguments).encode())
        return len(arguments)

    def stumble(arguments: Sequence[str]) -> int:
        raise ValueError("no such thing")

    def crash(arguments: Sequence[str]) -> int:
        os.abort()

    known = {"speak": speak, "stumble": stumble, "crash": crash}
    monkeypatch.setattr(resident, "_programs", known)


def test_it_prints_and_gives_a_status_as_a_program_does() -> None:
    assert tools.run(["speak"]) == ""
    assert tools.run(["speak", "two", "words"], accept=(2,)) == "two words"
    with pytest.raises(ToolError, match="speak ended with status 1"):
        tools.run(["speak", "once"])


def test_an_error_in_it_is_told() -> None:
    with pytest.raises(ToolError, match="ValueError: no such thing"):
        tools.run(["stumble"])


def test_a_crash_of_it_leaves_this_process_alone() -> None:
    with pytest.raises(ToolError, match="crash ended with status -6"):
        tools.run(["crash"])


def test_what_is_no_library_is_started_as_a_program() -> None:
    assert tools.run(["echo", "hello"]) == "hello\n"
    with pytest.raises(ToolError, match="cannot be started"):
        tools.run(["no-such-program"])


@pytest.mark.timeout(60)
def test_a_program_that_prints_without_end_is_ended() -> None:
    with pytest.raises(ToolError, match="yes printed more than"):
        tools.run(["yes"])
