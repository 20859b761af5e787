"""Programs of the host: bounded, ended with all they began, and told with their last words."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import CommandError
from fleetscan.appliance.host import command
from fleetscan.appliance.host.command import Surroundings
from tests.conftest import PROJECT


def shell(script: str, seconds: float = 20, grace: float = 0.0) -> str:
    return command.run("testing", ["sh", "-c", script], seconds=seconds, grace=grace)


def failure(script: str, seconds: float = 20, grace: float = 0.0) -> CommandError:
    with pytest.raises(CommandError) as caught:
        shell(script, seconds, grace)
    return caught.value


def is_gone(pid: int, seconds: float = 5) -> bool:
    """Whether a process ends soon."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.05)
                continue
        return True
    return False


def test_what_it_prints_is_returned_without_its_errors() -> None:
    assert shell("echo said; echo complained >&2") == "said\n"
    assert os.fsencode(shell("printf '\\377'")) == b"\xff"


def test_it_has_no_input_and_what_it_is_given() -> None:
    assert shell("cat") == ""
    group = shell("cut -d' ' -f5 /proc/$$/stat")
    assert int(group) != os.getpgrp()
    given = Surroundings({"WORD": "x"}, Path("/"), 0o077)
    told = command.run(
        "t", ["sh", "-c", "echo $WORD $PWD $(umask)"], seconds=20, surroundings=given
    )
    assert told.split() == ["x", "/", "0077"]


def test_one_that_fails_is_told_with_its_last_words() -> None:
    error = failure("seq 100; echo first >&2; echo why >&2; exit 3")
    assert (error.returncode, error.stderr) == (3, "first\nwhy")
    assert error.in_short == "sh ended with 3: why"
    assert error.stdout.splitlines()[0] == "71"
    assert str(error).startswith("testing failed with status 3: sh -c")


def test_one_that_says_nothing_or_is_killed_is_told_as_well() -> None:
    assert failure("exit 1").in_short == "sh ended with 1: no output"
    assert failure("kill -9 $$").returncode == -9


@pytest.mark.parametrize(
    "argv", [["no-such-program"], ["/no/such/program"], ["no-such-program", "\udcff"]]
)
def test_one_that_is_missing_says_what_to_install(argv: list[str]) -> None:
    with pytest.raises(CommandError, match="is not installed") as caught:
        command.run("testing", argv, seconds=1, package="nothing")
    assert caught.value.hint == "on Debian: apt-get install nothing"
    assert "Popen" not in caught.value.in_short


def test_one_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    (tmp_path / "program").touch()
    with pytest.raises(CommandError, match="cannot be started: Permission denied"):
        command.run("testing", [str(tmp_path / "program")], seconds=1)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "exec >&- 2>&-; sleep 60",
        "sleep 60 & exit",
        "trap '' TERM; while :; do sleep 1; done",
        "(trap '' TERM; sleep 60) & exit",
    ],
)
@pytest.mark.parametrize("grace", [0.0, 0.3])
def test_one_that_hangs_is_ended_with_all_that_it_began(
    script: str, grace: float, tmp_path: Path
) -> None:
    begun = time.monotonic()
    error = failure(f"echo $$ > {tmp_path}/pid; {script}", seconds=0.5, grace=grace)
    assert time.monotonic() - begun < 10
    assert error.in_short == "sh does not finish within 0.5 s"
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_it_may_clean_up_when_it_has_time_to(tmp_path: Path) -> None:
    script = f"trap 'echo cleaned > {tmp_path}/done; exit' TERM; while :; do sleep 0.05; done"
    failure(script, seconds=0.3, grace=10)
    assert (tmp_path / "done").read_text() == "cleaned\n"


def test_one_that_prints_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "OUTPUT_BYTES", 100_000)
    assert failure("yes").in_short == "sh prints more than 100000 bytes"
    assert len(failure("yes >&2").stderr) <= 6000


def test_lines_are_told_as_they_come_with_errors_among_them() -> None:
    lines: list[tuple[str, float]] = []

    def told(line: str) -> None:
        lines.append((line, time.monotonic()))

    script = "echo one; echo two >&2; sleep 0.6; printf 'thr'; sleep 0.1; printf 'ee\\nend'"
    command.run("testing", ["sh", "-c", script], seconds=20, on_line=told)
    assert [line for line, _ in lines] == ["one", "two", "three", "end"]
    assert lines[2][1] - lines[1][1] > 0.3


def test_it_is_ended_when_it_is_to_stop() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(CommandError, match="was stopped"):
        command.run("testing", ["sleep", "60"], seconds=60, stop=stop)
    assert time.monotonic() - begun < 10


def test_it_is_ended_when_we_are_interrupted(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        (tmp_path / "pid").write_text(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        command.run("t", ["sh", "-c", "echo $$; sleep 60"], seconds=60, on_line=interrupt)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_nothing_is_left_open() -> None:
    def opened() -> list[str]:
        return sorted(path.name for path in Path("/proc/self/fd").iterdir())

    before = opened()
    shell("true")
    failure("false")
    failure("sleep 60", seconds=0.1)
    assert opened() == before


def test_many_at_once_do_not_mix() -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = command.run("t", [sys.executable, "-c", f"print({number})"], seconds=60)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}\n" for number in range(8)}


# -- Nobody goes another way -----------------------------------------------------------------

_ALLOWED = {
    "appliance/confinement/confined_process.py": "the one way for what reads images",
    "appliance/host/child.py": "a worker that is talked to",
    "appliance/host/command.py": "the one way",
    "appliance/privileges.py": "what lives as long as a block, such as QEMU",
    "scanner/sources/volume_keys.py": "a user's command, which may ask at the terminal",
}


_STARTERS = {
    *(("subprocess", name) for name in ("run", "call", "check_call", "check_output", "Popen")),
    *(("os", name) for name in ("system", "popen", "fork", "posix_spawn", "execvp", "spawnv")),
}


def starts_programs(path: Path) -> bool:
    tree = ast.walk(ast.parse(path.read_text()))
    nodes = [node for node in tree if isinstance(node, ast.Attribute)]
    names = {(node.value.id, node.attr) for node in nodes if isinstance(node.value, ast.Name)}
    return not names.isdisjoint(_STARTERS)


def test_no_module_of_the_host_runs_programs_another_way() -> None:
    in_a_vm = ("appliance/guest/", "scanner/tables/", "examples/builder/guest.py")
    found = {
        str(path.relative_to(PROJECT))
        for top in ("appliance", "scanner", "rules", "reports", "examples")
        for path in (PROJECT / top).rglob("*.py")
        if starts_programs(path)
    }
    assert {name for name in found if not name.startswith(in_a_vm)} == set(_ALLOWED)
