from __future__ import annotations

from pathlib import Path

import pytest

from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.cli import exits, run
from fleetscan.scanner.sources import SourceOptions, absolute, find_machines
from fleetscan.scanner.sources.kinds.list import KIND
from fleetscan.scanner.store.runs import Store


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in ("a b.img", "c.img", "#d.img"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "more.yaml").write_text("- {id: web01, disks: [images/c.img]}\n")
    return tmp_path


def listed(folder: Path, content: str, options: SourceOptions | None = None) -> list[str]:
    (folder / "list").write_text(content)
    found = find_machines([f"@{folder}/list"], options or SourceOptions())
    return [machine.machine_id for machine in found]


def test_a_list_names_images_folders_and_inventories(fleet: Path) -> None:
    assert listed(fleet, f"# all\n\n  {fleet}/images/c.img\nmore.yaml\n") == ["c.img", "web01"]
    assert listed(fleet, "images\n", SourceOptions(exclude=("c*",))) == ["#d.img", "a b.img"]


def test_names_that_end_in_nul_are_taken_as_they_are(fleet: Path) -> None:
    assert listed(fleet, "images/a b.img\0images/c.img\0") == ["a b.img", "c.img"]


def test_an_empty_list_names_no_machine(fleet: Path) -> None:
    assert listed(fleet, "") == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("images/missing.img\n", "does not exist"),
        ("images\nimages/../images\n", "given twice"),
        ("images\n@list\n", "line 2: a list cannot name a list"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(fleet: Path, content: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        listed(fleet, content)


def test_a_list_that_cannot_be_read_is_an_error(fleet: Path) -> None:
    for name in ("missing", "images"):
        with pytest.raises(UsageError, match="cannot be read"):
            find_machines([f"@{fleet / name}"])


def test_a_list_is_known_from_any_directory(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fleet)
    assert absolute("@list") == f"@{fleet}/list"
    with pytest.raises(UsageError, match="given twice"):
        find_machines(["@list", KIND.named(f"{fleet}/images/../list")])


def test_scan_takes_lists_as_an_argument_and_as_an_option(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Appliance(Path("/none"), "inputs", "content", "6.12", "trixie", {})
    monkeypatch.setattr("fleetscan.appliance.built.find", lambda: nowhere)
    monkeypatch.setattr("fleetscan.appliance.built.verify", lambda appliance: None)
    monkeypatch.setattr("fleetscan.scanner.isolation.require_start", lambda asked, keys: None)
    (fleet / "list").write_text("images/c.img\n")
    (fleet / "other").write_text("images/a b.img\n")
    facts = fleet / "facts"
    scan = ["scan", f"@{fleet}/list", "--list", f"{fleet}/other", "--facts", str(facts), "-q"]
    assert run([*scan, "-P", "1"]) == exits.NOT_SCANNED
    (info,) = Store(facts).runs()
    assert info.settings["sources"] == [f"@{fleet}/list", f"@{fleet}/other"]
    assert info.outcomes == {"failed": 2}
