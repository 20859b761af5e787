"""Agents that say anything: every pack and every renderer over every column at its extremes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from fleetscan.rules.results import read_results
from fleetscan.scanner.cli import exits, run
from tests.hostile import liars
from tests.hostile.liars import HONEST, RUN


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checked runs of honest machines, without liars and with them."""
    base = liars.honest_rows()
    found = {}
    for name, hostile in (("alone", []), ("beside", list(liars.liars(base)))):
        found[name] = tmp_path_factory.mktemp(name)
        liars.write(found[name], base, hostile)
        assert run(["check", "--facts", str(found[name]), "--fail-on", "none"]) == exits.FINE
    return found


def honest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results of honest machines, whenever they were checked."""
    return [{**row, "checked": None} for row in rows if row["machine_id"] in HONEST]


def test_no_rule_fails_over_any_value(folders: dict[str, Path]) -> None:
    rows = read_results(folders["beside"], RUN).to_pylist()
    failing = {(row["rule_id"], row["message"]) for row in rows if row["state"] == "error"}
    assert failing == set()


def test_verdicts_on_honest_machines_stay_the_same(folders: dict[str, Path]) -> None:
    alone, beside = (honest(read_results(folder, RUN).to_pylist()) for folder in folders.values())
    compared = {"ssh-unique-host-keys", "system-unique-machine-id"}
    assert {row["state"] for row in alone} > {"pass", "fail"}
    assert [row for row in beside if row["rule_id"] not in compared] == [
        row for row in alone if row["rule_id"] not in compared
    ]


def report(folder: Path, form: str) -> str:
    path = folder / f"report.{form}"
    assert run(["report", "--facts", str(folder), f"--{form}", str(path)]) == exits.FINE
    return path.read_text()


def test_the_json_report_tells_the_same_of_honest_machines(folders: dict[str, Path]) -> None:
    alone, beside = (json.loads(report(folder, "json")) for folder in folders.values())
    assert beside["problems"] == {}
    for part in ("machines", "coverage", "filesystems"):
        assert honest(beside[part]) == honest(alone[part]) != []


def test_the_page_is_whole(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    page = report(folders["beside"], "html")
    assert "could not be computed" not in page + capsys.readouterr().err
    assert page.rstrip().endswith("</html>")
    assert page.count("data:image/svg+xml") == 16


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_queries_print_the_same_of_honest_machines(
    form: str, folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("machines", "filesystems", "users", "network", "certificates", "packages"):
        printed = []
        for folder in folders.values():
            arguments = ["--facts", str(folder), "--output", form]
            assert run(["query", f"SELECT * FROM {name} ORDER BY ALL", *arguments]) == exits.FINE  # noqa: S608
            printed.append(_rows(capsys.readouterr().out, form))
        alone, beside = printed
        assert alone == beside != []


def _is_honest(row: str) -> bool:
    return any(name in row for name in HONEST)


def _rows(text: str, form: str) -> list[str]:
    """Rows that tell of a machine; in a table, however wide its columns are."""
    if form == "csv":
        found = [str(row) for row in csv.reader(io.StringIO(text))]
    elif form == "json":
        found = [str(row) for row in json.loads(text)]
    else:
        found = [" ".join(line.split()) for line in text.splitlines()]
    return [row for row in found if _is_honest(row)]
