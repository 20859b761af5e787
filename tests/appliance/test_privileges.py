from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.privileges import (
    CONSOLE_BYTES,
    ProcessLimits,
    bound_to_us,
    environment,
    limited,
)

NOBODY = 65534
AS_ROOT = os.geteuid() == 0
WHO = (NOBODY, NOBODY) if AS_ROOT else (os.getuid(), os.getgid())


def confined(argv: list[str], limits: ProcessLimits | None = None) -> list[str]:
    return limited(argv, limits or ProcessLimits(), (*WHO, ()) if AS_ROOT else None)


def output(argv: list[str], limits: ProcessLimits | None = None) -> str:
    done = subprocess.run(
        confined(argv, limits), capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout


def status_of(argv: list[str]) -> dict[str, str]:
    text = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_a_confined_command_is_nobody_when_we_are_root() -> None:
    status = status_of(confined(["cat", "/proc/self/status"]))
    assert status["Uid"].split() == [str(WHO[0])] * 4
    assert status["Gid"].split() == [str(WHO[1])] * 4


def test_a_confined_command_can_gain_no_privileges() -> None:
    status = status_of(confined(["cat", "/proc/self/status"]))
    assert status["NoNewPrivs"] == "1"
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[kind], 16) == 0
    if AS_ROOT:
        assert int(status["CapBnd"], 16) == 0


def test_capabilities_that_a_service_was_given_are_not_handed_on() -> None:
    if not AS_ROOT:  # nobody else can be given any
        assert "--inh-caps=-all" in confined(["true"])
        return
    given = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    service = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *given]
    show = ["cat", "/proc/self/status"]
    assert int(status_of([*service, *show])["CapEff"], 16) != 0
    found = status_of([*service, *limited(show, ProcessLimits())])
    assert {int(found[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}


def test_a_confined_command_is_in_no_group_of_roots() -> None:
    groups = {
        int(word) for word in status_of(confined(["cat", "/proc/self/status"]))["Groups"].split()
    }
    assert groups == (set() if AS_ROOT else set(os.getgroups()))


@pytest.mark.skipif(not AS_ROOT, reason="only root gives groups")
def test_a_confined_command_gets_the_groups_that_it_is_given() -> None:
    argv = limited(["cat", "/proc/self/status"], ProcessLimits(), (NOBODY, NOBODY, (12, 34)))
    assert status_of(argv)["Groups"].split() == ["12", "34"]


def test_files_that_a_confined_command_writes_stay_short(tmp_path: Path) -> None:
    place = tmp_path / "out"
    place.touch()
    with place.open("wb") as stream:
        done = subprocess.run(
            confined(["dd", "if=/dev/zero", "bs=4096", "count=100"], ProcessLimits(writes=8192)),
            stdout=stream,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=20,
        )
    assert done.returncode != 0
    assert place.stat().st_size == 8192


def test_limits_are_as_asked_for_and_cannot_be_raised() -> None:
    limits = output(
        ["cat", "/proc/self/limits"], ProcessLimits(writes=1 << 20, memory_bytes=300 << 20)
    )
    found = {line[:25].strip(): line[25:].split()[:2] for line in limits.splitlines()[1:]}
    assert found["Max file size"] == [str(1 << 20)] * 2
    assert found["Max address space"] == [str(300 << 20)] * 2
    assert found["Max core file size"] == ["0", "0"]
    assert found["Max open files"] == ["1024", "1024"]


def test_lower_limits_of_our_own_stay_in_force() -> None:
    argv = confined(["sh", "-c", "ulimit -n"])
    script = 'ulimit -n 64; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *as_user(argv)],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout == "64\n"


def as_user(argv: list[str]) -> list[str]:
    """A command that root has an ordinary user run: only root may raise its limits."""
    return ["setpriv", "--reuid=12345", *argv[argv.index("sh") :]] if AS_ROOT else argv


def test_memory_beyond_the_limit_is_refused() -> None:
    dd = ["dd", "if=/dev/zero", "of=/dev/null", "bs=400M", "count=1", "status=none"]
    assert output(dd, ProcessLimits(memory_bytes=800 << 20)) == ""
    done = subprocess.run(
        confined(dd, ProcessLimits(memory_bytes=200 << 20)),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode != 0
    assert "memory" in done.stderr


def test_words_of_a_command_stay_as_they_are() -> None:
    words = ["a b", "$HOME", "`id`", "*", "-n", "", "'\"\\", "exec"]
    script = "import sys; print(sys.argv[1:])"
    done = subprocess.run(
        bound_to_us([sys.executable, "-Sc", script, *words]),
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    assert done.stdout.strip() == repr(words)


def test_the_status_of_a_confined_command_is_its_own() -> None:
    done = subprocess.run(confined(["sh", "-c", "exit 7"]), check=False, timeout=20)
    assert done.returncode == 7


def test_a_command_that_does_not_exist_fails() -> None:
    done = subprocess.run(
        confined(["/no/such/program"]), capture_output=True, check=False, timeout=20
    )
    assert done.returncode == 127


def wait_until_gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":  # nobody has fetched its status yet
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    "wrap", ["bound_to_us", "lambda argv: limited(argv, ProcessLimits())"], ids=["bound", "limited"]
)
def test_a_command_dies_with_the_process_that_started_it(wrap: str) -> None:
    parent = (
        "import subprocess, sys, time\n"
        "from fleetscan.appliance.privileges import ProcessLimits, bound_to_us, limited\n"
        f"wrap = {wrap}\n"
        "child = subprocess.Popen(wrap(['sleep', '60']), start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        end = time.monotonic() + 5
        while Path(f"/proc/{child}/comm").read_text() != "sleep\n" and time.monotonic() < end:
            time.sleep(0.01)
        assert Path(f"/proc/{child}/comm").read_text() == "sleep\n"
        process.send_signal(signal.SIGKILL)
    assert wait_until_gone(child)


def test_a_command_whose_parent_has_gone_before_it_started_does_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    argv = bound_to_us(["touch", str(witness)])
    # The shell between us and the command is another parent than the one it was made for.
    done = subprocess.run(["sh", "-c", '"$@"; true', "sh", *argv], check=False, timeout=20)
    assert done.returncode == 0
    assert not witness.exists()


def test_secrets_in_our_environment_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUKS_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("FLEETSCAN_KEY", "secret")
    monkeypatch.setenv("FLEETSCAN_MARK", "nightly")
    assert "secret" not in environment().values()
    assert environment()["PATH"] == os.environ["PATH"]
    assert environment()["FLEETSCAN_MARK"] == "nightly"


def test_a_missing_setpriv_is_said_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ApplianceError, match="setpriv is missing") as caught:
        confined(["true"])
    assert "util-linux" in caught.value.hint


def test_our_own_limits_stay_as_they_were() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    output(["true"])
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before
    assert CONSOLE_BYTES % 512 == 0
