"""Honest machines beside some whose agents were taken over and send what columns can hold."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleetscan.scanner.cluster import ClusterOptions
from fleetscan.scanner.fleet import scan_fleet
from fleetscan.scanner.fleet_events import FleetSummary
from fleetscan.scanner.fleet_tasks import FleetOptions
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources import Machine
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.views import connect
from tests.hostile import extremes, honest
from tests.vm.commands import COMMAND

HONEST = 4
MIB = 1 << 20
MEMORY = 2048 * MIB
"""Most memory of one command; a rule alone may have 2 GiB and comes nowhere near."""

Row = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Command:
    """How a command ended.

    Attributes:
        status: its exit status.
        output: what it printed.
        errors: what it printed on standard error.
        peak: most memory of it or of a process of it, in bytes.
    """

    status: int
    output: str
    errors: str
    peak: int


@dataclass(frozen=True)
class Told:
    """What was said of a fleet.

    Attributes:
        scanned: what became of the scan.
        checked: the results of check.
        report: the report for programs.
        html: the page.
        commands: how each command ended, by its name.
        facts: where the facts are.
    """

    scanned: FleetSummary
    checked: list[Row]
    report: dict[str, Any]
    html: str
    commands: dict[str, Command]
    facts: Path

    def results(self, machines: list[str]) -> list[str]:
        """Results of some machines, without their run and time."""
        rows = [
            {**row, "run_id": "", "checked": ""}
            for row in self.checked
            if row["machine_id"] in machines
        ]
        return sorted(json.dumps(row, sort_keys=True) for row in rows)

    def outcomes(self) -> dict[str, str]:
        """How each machine's scan ended."""
        return {row["machine_id"]: row["outcome"] for row in self.report["machines"]}


def told(machines: list[str], facts: Path) -> Told:
    """Scan directories with the agents that they ask for, then check and report."""
    fleet = [Machine(name, (), "test") for name in machines]
    run = Store(facts).begin(machines, settings={})
    options = FleetOptions(
        machine=ScanOptions.of(deadline=120),
        cluster=ClusterOptions(slots=2),
        inspect=extremes.inspect,
    )
    scanned = scan_fleet(fleet, run, options)
    html, report = facts.with_suffix(".html"), facts.with_suffix(".json")
    commands = {
        "check": _run("check", "--facts", str(facts), "--output", "json"),
        "report": _run("report", "--facts", str(facts), "--html", str(html), "--json", str(report)),
    }
    return Told(
        scanned,
        json.loads(commands["check"].output or '{"results": []}')["results"],
        json.loads(report.read_text() if report.exists() else '{"machines": []}'),
        html.read_text() if html.exists() else "",
        commands,
        facts,
    )


_MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:])
print("\\n", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done.returncode)
"""


def _run(*words: str) -> Command:
    argv = [sys.executable, "-c", _MEASURE, *COMMAND, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    errors, _, peak = done.stderr.rpartition("\n ")
    return Command(done.returncode, done.stdout, errors, int(peak) << 10)


@pytest.fixture(scope="module")
def honest_machines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    top = tmp_path_factory.mktemp("honest")
    return [str(honest.tree_of(top / f"web{number}", number)) for number in range(HONEST)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, honest_machines: list[str]) -> Told:
    return told(honest_machines, tmp_path_factory.mktemp("alone") / "facts")


@pytest.fixture(scope="module")
def hostile_machines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    top = tmp_path_factory.mktemp("hostile")
    for name in extremes.BEHAVIOURS:
        (top / name).mkdir()
    return [str(top / name) for name in extremes.BEHAVIOURS]


@pytest.fixture(scope="module")
def beside(
    tmp_path_factory: pytest.TempPathFactory,
    honest_machines: list[str],
    hostile_machines: list[str],
) -> Told:
    facts = tmp_path_factory.mktemp("beside") / "facts"
    return told([*honest_machines, *hostile_machines], facts)


def test_commands_end_as_they_do_without(alone: Told, beside: Told) -> None:
    for name, command in beside.commands.items():
        assert command.status == alone.commands[name].status, command.errors
        assert "Traceback" not in command.errors
        assert "\x1b" not in command.errors


def test_results_of_honest_machines_are_the_same(
    alone: Told, beside: Told, honest_machines: list[str]
) -> None:
    wanted = alone.results(honest_machines)
    assert len(wanted) > HONEST * 50
    assert beside.results(honest_machines) == wanted


def test_no_rule_becomes_an_error(alone: Told, beside: Told, hostile_machines: list[str]) -> None:
    assert {row["state"] for row in alone.checked} & {"error"} == set()
    broken = [row for row in beside.checked if row["state"] == "error"]
    assert {row["machine_id"] for row in broken} <= set(hostile_machines)


def test_what_agents_say_is_kept_or_refused_in_words(
    beside: Told, honest_machines: list[str], hostile_machines: list[str]
) -> None:
    outcomes = beside.outcomes()
    assert outcomes.keys() == {*honest_machines, *hostile_machines}
    assert {outcomes[name] for name in hostile_machines} <= {"ok", "partial", "failed"}
    with contextlib.closing(connect(beside.facts, beside.scanned.run_id)) as connection:
        sql = "SELECT DISTINCT error FROM coverage WHERE status = 'failed' AND machine_id = ?"
        for name in hostile_machines:
            for (error,) in connection.execute(sql, [name]).fetchall():
                assert error
                assert error.isprintable()


def test_the_page_holds_nothing_that_runs(beside: Told) -> None:
    assert "<script>alert" not in beside.html
    assert "onerror=alert(1)>" not in beside.html
    assert "\x1b" not in beside.html


def test_memory_stays_within_bounds(beside: Told) -> None:
    peaks = {name: command.peak for name, command in beside.commands.items()}
    assert max(peaks.values()) < MEMORY, peaks
