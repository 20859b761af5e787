"""Twenty honest machines, scanned without and beside one of each attacker.

All is done with the commands that users run. What they say of the honest machines must be the same
to the byte, nothing of the host may have changed, and every attacker must be listed with what
became of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleetscan.scanner.tables import load_tables
from tests.hostile import honest
from tests.hostile.attackers import (
    ATTACKS,
    CANARY,
    FOLDER,
    SECRET,
    Expected,
    Outcome,
    Place,
    qcow2,
)
from tests.vm.commands import Workplace
from tests.vm.machines import image_of

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

RACING = "racing"
"""Folder of the attacker that rewrites its own image during the scan."""

SECONDS = 400  # for one command; they take a sixth of it
VOLATILE = {
    "machines": "started, seconds, seconds_preflight, seconds_appliance, seconds_discover, "
    "seconds_collect, facts_run, gathered",
    "coverage": "seconds",
}
"""Columns that differ from run to run, besides the run's id."""

_NOT_COMPARED = "machines that could not be read and were not compared"

Row = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True)
class Told:
    """What a fleet's commands said.

    Attributes:
        statuses: how each command ended, by its name.
        errors: what each printed on standard error.
        rows: every fact row as JSON text, by table.
        results: the results of check.
        html: the page.
        json: the report for programs.
        files: what became of the files below the place, by their names.
        leftovers: processes and temporary files.
        seconds: how long all of it took.
    """

    statuses: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)
    results: list[Row] = field(default_factory=list)
    html: str = ""
    json: str = ""
    leftovers: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, machine_ids: list[str]) -> dict[str, list[str]]:
        """Rows and results of some machines, as text in an order of their own."""
        wanted = set(machine_ids)
        rows = {
            table: sorted(row for row in rows if _is_about(json.loads(row), wanted))
            for table, rows in self.rows.items()
        }
        results = [_alone(row) for row in self.results if row["machine_id"] in wanted]
        return {**rows, "results": sorted(json.dumps(row, sort_keys=True) for row in results)}

    def machines(self) -> dict[str, Row]:
        """Rows of machines by id."""
        rows = [json.loads(row) for row in self.rows["machines"]]
        return {row["machine_id"]: row for row in rows}


@dataclass(frozen=True)
class Fleets:
    """Both scans, and what the attackers were to come to.

    Attributes:
        place: where the images are.
        honest: ids of the machines that mean no harm.
        expected: what is to be said of the attackers.
        alone: what was said of the honest machines when they were alone.
        beside: what was said of all.
        before: digests of the files before the second scan.
        after: the same after it.
    """

    place: Place
    honest: list[str]
    expected: Expected
    alone: Told
    beside: Told
    before: dict[str, str]
    after: dict[str, str]


def _is_about(row: Row, machine_ids: set[str]) -> bool:
    """Whether a row is about one of the machines; their other names in an attacker's folder are
    the attacker's."""
    return row["machine_id"] in machine_ids and f"/{FOLDER}/" not in str(row.get("path"))


def _alone(result: Row) -> Row:
    """A result; that attackers were not compared with a machine is said of it, and is so."""
    message = str(result["message"] or "")
    return {**result, "message": None} if message.startswith(_NOT_COMPARED) else result


def told(source: Path, facts: Path, place: Workplace) -> Told:
    """Scan, check, report and query a folder, as users do."""
    begun = time.monotonic()
    statuses, errors = {}, {}

    def run(name: str, *words: str) -> str:
        done = place.run(*words, "--facts", str(facts), seconds=SECONDS)
        statuses[name], errors[name] = done.returncode, done.stderr
        return done.stdout

    run("scan", "scan", str(source), "--deadline", "60", "-q")
    checked = json.loads(run("check", "check", "--output", "json") or '{"results": []}')
    html, report = facts.with_suffix(".html"), facts.with_suffix(".json")
    run("report", "report", "--html", str(html), "--json", str(report))
    rows: dict[str, list[str]] = {name: [] for name in load_tables()}
    for record in json.loads(run("query", "query", _ALL_ROWS, "--output", "json") or "[]"):
        rows[record["name"]].append(record["row"])
    results = [{**row, "run_id": "", "checked": ""} for row in checked["results"]]
    leftovers = place.leftovers()
    seconds = time.monotonic() - begun
    page, listed = (path.read_text() if path.exists() else "" for path in (html, report))
    return Told(statuses, errors, rows, results, page, listed, leftovers, seconds)


def _select(name: str) -> str:
    exclude = f"run_id{', ' + VOLATILE[name] if name in VOLATILE else ''}"
    whole = f"SELECT * EXCLUDE ({exclude}) FROM {name}"  # noqa: S608 - ours
    row = "CAST(to_json(x) AS VARCHAR) AS row"
    return f"SELECT '{name}' AS name, {row} FROM ({whole}) AS x"  # noqa: S608 - ours


_ALL_ROWS = " UNION ALL ".join(map(_select, load_tables()))


def _digests(*tops: Path) -> dict[str, str]:
    """What folders hold: kind, permissions, links and content of all below them."""
    found = {}
    for path in sorted(path for top in tops for path in top.rglob("*")):
        if RACING in path.parts:
            continue
        status = path.lstat()
        content = b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        digest = hashlib.sha256(content).hexdigest()
        found[str(path)] = f"{status.st_mode:o} {status.st_size} {status.st_mtime_ns} {digest}"
    return found


def _outside(folder: Path) -> Path:
    """Files of the host that attackers name: nothing of them may be read."""
    folder.mkdir()
    (folder / "canary").write_text(CANARY)
    (folder / "machine.yaml").write_text(f"disks: [{folder}/secret.raw]\n")
    tree = honest.tree_of(folder / "tree", 99)
    (tree / "etc/hostname").write_text(f"{CANARY}\n")
    image_of(tree, folder / "secret.raw", 12)
    return folder


@contextlib.contextmanager
def _rewritten(place: Place) -> Iterator[None]:
    """An image whose header names a file of the host every other moment, its mtime put back."""
    path = place.mallory / RACING / "disk.qcow2"
    innocent = qcow2(path).read_bytes()
    guilty = qcow2(path, backing=str(place.outside / "secret.raw")).read_bytes()
    path.write_bytes(innocent)
    status, stop = path.stat(), threading.Event()

    def rewrite() -> None:
        while not stop.wait(0.003):
            for content in (guilty, innocent):
                with path.open("r+b") as stream:
                    stream.write(content)
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    """Both scans, made once."""
    top = tmp_path_factory.mktemp("fleets")
    place = Place(top / "images", _outside(top / "outside"))
    machine_ids = honest.fleet(place.source)
    os.sync()  # until then a filesystem may still change how many blocks a file has
    with Workplace() as work:
        alone = told(place.source, top / "alone", work)
        expected: dict[str, Outcome] = {}
        for make in ATTACKS.values():
            expected |= make(place)
        place.folder(RACING)
        before = _digests(place.source, place.outside)
        with _rewritten(place):
            beside = told(place.source, top / "beside", work)
        after = _digests(place.source, place.outside)
        yield Fleets(place, machine_ids, expected, alone, beside, before, after)


def test_honest_machines_are_told_the_same_beside_attackers(fleets: Fleets) -> None:
    alone, beside = fleets.alone.of(fleets.honest), fleets.beside.of(fleets.honest)
    assert len(alone["machines"]) == len(fleets.honest) == honest.COUNT
    assert len(alone["results"]) >= honest.COUNT * 50
    for table, rows in alone.items():
        assert beside[table] == rows, f"{table} of the honest machines differs"


def test_honest_machines_are_well(fleets: Fleets) -> None:
    for told_of in (fleets.alone, fleets.beside):
        machines = told_of.machines()
        assert {machines[name]["outcome"] for name in fleets.honest} == {"ok"}


def test_commands_end_as_they_should(fleets: Fleets) -> None:
    assert fleets.alone.statuses == {"scan": 0, "check": 2, "report": 0, "query": 0}
    statuses = dict(fleets.beside.statuses)
    assert statuses.pop("check") in (2, 3)
    assert statuses == {"scan": 3, "report": 0, "query": 0}
    for errors in (*fleets.alone.errors.values(), *fleets.beside.errors.values()):
        assert "Traceback" not in errors
        assert "bug" not in errors
        assert "\x1b" not in errors


def test_no_command_ran_and_no_file_changed(fleets: Fleets) -> None:
    assert not fleets.place.marker.exists()
    assert fleets.after == fleets.before
    assert fleets.beside.leftovers == []


def test_every_attacker_is_listed_with_what_became_of_it(fleets: Fleets) -> None:
    machines = fleets.beside.machines()
    wrong = []
    for name, expected in fleets.expected.items():
        row = machines.get(name)
        if row is None:
            wrong.append(f"{name} is not listed")
        elif row["outcome"] not in expected.outcomes or any(
            word not in (row["error"] or "") for word in expected.words
        ):
            wrong.append(f"{name} is {row['outcome']}: {row['error']}; expected {expected}")
    assert wrong == []


def test_errors_are_errors_of_ours(fleets: Fleets) -> None:
    from tests.bench.mutation_findings import BUGS, OWN_ERRORS

    kinds = {row["error_kind"] for row in fleets.beside.machines().values()}
    assert kinds - {None} <= OWN_ERRORS
    coverage = [json.loads(row) for row in fleets.beside.rows["coverage"]]
    assert [row for row in coverage if (row["error"] or "").startswith(BUGS)] == []


def test_nothing_that_images_name_on_the_host_is_reported(fleets: Fleets) -> None:
    assert _places_of(CANARY, fleets.beside) == []


def test_no_secret_is_reported(fleets: Fleets) -> None:
    assert _places_of(SECRET, fleets.beside) == []


def _places_of(text: str, told_of: Told) -> list[str]:
    """Tables and reports that hold a text."""
    places = {
        **{name: "\n".join(rows) for name, rows in told_of.rows.items()},
        "results": json.dumps(told_of.results),
        "html": told_of.html,
        "json": told_of.json,
        "errors": "\n".join(told_of.errors.values()),
    }
    return [name for name, content in places.items() if text in content]


def test_the_reports_list_every_machine(fleets: Fleets) -> None:
    listed = json.loads(fleets.beside.json or '{"machines": []}')
    names = {row["machine_id"] for row in listed["machines"]}
    assert names == fleets.beside.machines().keys()
    assert set(fleets.honest) <= names
    assert "<script>alert" not in fleets.beside.html


def test_nothing_took_long(fleets: Fleets) -> None:
    slowest = max(fleets.beside.rows["machines"], key=len)
    assert fleets.beside.seconds < SECONDS, slowest
