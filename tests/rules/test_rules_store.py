from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.load import load_packs
from fleetscan.rules.results import read_results, write_results
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.views import connect
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from tests.scanner.store.making import ROOT, group_rows, machine_rows


def write_run(folder: Path, machines: dict[str, list[str]]) -> str:
    run = Store(folder).begin(machines, settings={}, batch_size=1)
    for machine_id, groups in machines.items():
        looked_at = Coverage(
            root=ROOT,
            table_name="groups",
            status=CoverageStatus.OK,
            rows=len(groups),
            seconds=0.1,
            error=None,
            unread=None,
        )
        with run.machine_writer(machine_id) as writer:
            writer.write("machines", machine_rows(machine_id, run.run_id))
            writer.write("groups", group_rows(machine_id, groups))
            writer.write(
                "coverage",
                rows_to_arrow(load_tables()["coverage"], [looked_at], machine_id=machine_id),
            )
            writer.commit({"groups": len(groups)})
    return run.finish().run_id


def test_the_packs_are_evaluated_over_the_views_of_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    run_id = write_run(tmp_path, {"a": ["sudo", "adm"], "b": ["video"]})
    packs = load_packs()

    with connect(tmp_path, memory_limit="1GB") as connection:
        results = evaluate(connection, packs)
    write_results(results, tmp_path, run_id)

    rows = read_results(tmp_path, run_id).to_pylist()
    assert len(rows) == 2 * sum(len(pack.rules) for pack in packs)
    assert {row["run_id"] for row in rows} == {run_id}
    found = {(row["machine_id"], row["rule_id"]): row["state"] for row in rows}
    assert found["a", "accounts-unique-gids"] == "fail"
    assert found["b", "accounts-unique-gids"] == "pass"
    assert {state for (_, rule), state in found.items() if rule != "accounts-unique-gids"} == {
        "unknown"
    }
