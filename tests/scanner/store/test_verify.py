"""What ``runs verify`` finds, and how it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fleetscan.scanner.cli import exits
from fleetscan.scanner.cli.main import run as fleetscan
from fleetscan.scanner.store import layout
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.store.verify import verify
from tests.scanner.store.making import add_machine, finished_run


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.unlink(), "No such file"),
    (lambda path: path.write_bytes(path.read_bytes()[:-9]), "failed"),
    (flipped, "sha256"),
    (lambda path: path.write_bytes(b""), "failed"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGES, ids=["gone", "short", "a bit", "empty"])
def test_damage_of_any_file_is_found_and_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    told: str,
) -> None:
    sound = finished_run(tmp_path, {"a": ["sudo"]})
    info = finished_run(tmp_path, {"a": ["sudo"]})
    path = layout.part(tmp_path, "groups", info.run_id, 0)
    damage(path)
    assert fleetscan(["runs", "verify", "--facts", str(tmp_path)]) == exits.FAILED
    out = capsys.readouterr().out
    assert str(path) in out.replace("\n", "")
    assert told in out
    command = ["runs", "verify", "--facts", str(tmp_path), "--output", "json"]
    assert fleetscan(command) == exits.FAILED
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    problems = {one["run_id"]: bool(one["problems"]) for one in answer["runs"]}
    assert problems == {sound.run_id: False, info.run_id: True}
    assert fleetscan([*command, "--run", sound.run_id]) == exits.FINE


def test_a_sound_store_is_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"], "b": []})
    assert fleetscan(["runs", "verify", "--facts", str(tmp_path)]) == exits.FINE
    (found,) = verify(Store(tmp_path))
    assert (found.files, found.unproven, found.problems) == (2, 0, ())
    assert found.bytes == sum(file.bytes or 0 for _, file in info.files())


def test_a_run_that_needs_one_that_is_gone_and_a_run_file_that_lies_are_damaged(
    tmp_path: Path,
) -> None:
    first = finished_run(tmp_path, {"a": ["sudo"]})
    later = Store(tmp_path).begin(["a"], settings={})
    add_machine(later, "a", facts_run=first.run_id)
    later.finish()
    layout.run_file(tmp_path, first.run_id).unlink()
    path = layout.run_file(tmp_path, later.run_id)
    path.write_text(path.read_text().replace('"rows": 1,', '"rows": 7,', 1))
    (found,) = verify(Store(tmp_path))
    assert [first.run_id in found.problems[0], "run file says 7" in found.problems[-1]] == [
        True
    ] * 2


def test_runs_of_before_checksums_are_read_and_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"]})
    path = layout.run_file(tmp_path, info.run_id)
    content = json.loads(path.read_text())
    for table in content["tables"].values():
        table["files"] = [{"name": file["name"]} for file in table["files"]]
    path.write_text(json.dumps(content))
    assert fleetscan(["runs", "verify", "--facts", str(tmp_path)]) == exits.FINE
    assert "2 files have no checksum" in capsys.readouterr().out


def test_a_damaged_run_file_is_found(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": ["sudo"]})
    layout.run_file(tmp_path, info.run_id).write_text("{")
    (found,) = verify(Store(tmp_path))
    assert info.run_id in found.problems[0]


def test_a_run_is_named_only_to_verify_it(tmp_path: Path) -> None:
    info = finished_run(tmp_path, {"a": []})
    command = ["runs", "--facts", str(tmp_path), "--run", info.run_id]
    assert fleetscan(command) == exits.BAD_USAGE
    none = ["runs", "verify", "--facts", str(tmp_path), "--run", "20260131T020304Z-3f9a1c"]
    assert fleetscan(none) == exits.FAILED
