"""What a scan of a damaged machine must not say, told by comparing it with the whole machine's."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetscan.appliance.ground import errors
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.load import load_packs
from fleetscan.scanner.store.views import connect
from tests.bench.mutating import TEXTS, Mutation

OWN_ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type)} | {
    "IncompleteFacts",
    "NoOperatingSystem",
}
"""Kinds of error that say what is wrong with a machine; any other is a bug of ours."""

_DELIBERATE = ("IncompleteError", "MemoryError")
BUGS = (
    "error: ",  # struct's
    *(
        f"{name}: "
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, OSError)
        if name not in _DELIBERATE
    ),
)
"""How errors begin that a collector meets and does not raise; the guest sends kind and text."""

_UNDECIDED = ("fail", "unknown", "error")
_ENDED = ("ApplianceError", "DeadlineError", "WireError")

_Key = tuple[str | None, str]  # root, and a table's or a rule's name


@dataclass(frozen=True)
class Seen:
    """What a scan said of a machine.

    Attributes:
        outcome: ok, partial or failed.
        error_kind: what kind of error its row has, if any.
        error: its text.
        rows: rows of each root's tables that are covered as ok, empty or not applicable.
        covered: errors of those that are not.
        states: of each rule that was evaluated.
    """

    outcome: str
    error_kind: str | None
    error: str | None
    rows: dict[_Key, int] = field(default_factory=dict)
    covered: dict[_Key, str] = field(default_factory=dict)
    states: dict[_Key, str] = field(default_factory=dict)

    @property
    def roots(self) -> set[str]:
        """Systems of which some table could be looked at."""
        return {root for root, _ in self.rows if root is not None}


@dataclass(frozen=True)
class Finding:
    """Something that must not be, or that somebody has to look at.

    Attributes:
        kind: ``hang``, ``memory``, ``bug`` or ``written``; ``ended`` (the VM did, or its time),
            ``lost`` and ``pass`` are suspicions.
        text: what was seen.
    """

    kind: str
    text: str

    @property
    def certain(self) -> bool:
        """Whether it is wrong whatever the damage means."""
        return self.kind not in ("ended", "lost", "pass")


def seen(facts: Path, run_id: str) -> dict[str, Seen]:
    """What a run says of each of its machines, rules included."""
    with contextlib.closing(connect(facts, run_id)) as connection:
        found = {
            row["machine_id"]: Seen(row["outcome"], row["error_kind"], row["error"])
            for row in _rows(connection, "SELECT * FROM machines")
        }
        for row in _rows(connection, "SELECT * FROM coverage"):
            key = (row["root"], row["table_name"])
            if row["status"] == "failed":
                found[row["machine_id"]].covered[key] = row["error"] or ""
            else:
                found[row["machine_id"]].rows[key] = row["rows"]
        for row in evaluate(connection, load_packs(())).table.to_pylist():
            key = (row["root"], f"{row['pack']}:{row['rule_id']}")
            found[row["machine_id"]].states[key] = row["state"]
    return found


def _rows(connection: Any, sql: str) -> list[dict[str, Any]]:  # Any: DuckDB has no row type
    rows: list[dict[str, Any]] = connection.sql(sql).to_arrow_table().to_pylist()
    return rows


def compare(whole: Seen, damaged: Seen, damage: Mutation) -> Iterator[Finding]:
    """What is wrong, or may be, with what was said of a damaged machine."""
    if damaged.error_kind is not None and damaged.error_kind not in OWN_ERRORS:
        yield Finding("bug", f"the machine ended with {damaged.error_kind}: {damaged.error}")
    if damaged.error_kind in _ENDED and damaged.error_kind != whole.error_kind:
        yield Finding("ended", f"{damaged.error_kind}: {damaged.error}")
    for (root, table), error in damaged.covered.items():
        if error.startswith(BUGS):
            yield Finding("bug", f"{table} of {root} ended with {error}")
    yield from _lost(whole, damaged, damage)
    for key, state in damaged.states.items():
        if state == "pass" and whole.states.get(key) in _UNDECIDED:
            yield Finding("pass", f"{key[1]} of {key[0]} was {whole.states[key]}")


def _lost(whole: Seen, damaged: Seen, damage: Mutation) -> Iterator[Finding]:
    """Rows that are gone without a word; a text may mean another thing than it did."""
    if damaged.outcome == "ok" and whole.roots - damaged.roots:
        yield Finding("lost", f"ok without {', '.join(sorted(whole.roots - damaged.roots))}")
    if damage.kind in TEXTS or damaged.outcome == "failed":
        return
    warned = (damaged.outcome, damaged.error) != (whole.outcome, whole.error)
    for (root, table), rows in damaged.rows.items():
        before = whole.rows.get((root, table), 0)
        # What a disk is made of is the machine's to complain of, not a table's.
        if rows < before and not (root is None and warned):
            yield Finding("lost", f"{table} of {root} has {rows} rows of {before}")
