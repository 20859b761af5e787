"""A kind of source is one module, found by being there."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner import sources
from fleetscan.scanner.cli import exits, run
from fleetscan.scanner.sources import Machine, SourceOptions, absolute, find_machines, kinds
from fleetscan.scanner.sources.kinds import load_kinds
from fleetscan.scanner.sources.source_kind import SourceKind

KINDS = load_kinds()


class Far(SourceKind):
    """A made-up kind, whose sources are no paths."""

    name = "far"
    form = "far://NAME"
    rank = -1

    def accepts(self, source: str) -> bool:
        return source.startswith("far://")

    def machines(self, source: str, options: SourceOptions) -> list[Machine]:
        name = source.removeprefix("far://")
        return [Machine(f"{name}/{number}", (), source) for number in (1, 2)]

    def absolute(self, source: str) -> str:
        return source

    def identity(self, source: str) -> str:
        return source.casefold()


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "load_kinds", lambda: (Far(), *KINDS))


def test_the_kinds_are_the_modules_of_their_folder() -> None:
    folder = Path(str(kinds.__file__)).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {"folder", "image", "inventory"} <= modules == {kind.name for kind in KINDS}
    for name in modules:
        module = importlib.import_module(f"fleetscan.scanner.sources.kinds.{name}")
        assert module.KIND in KINDS


@pytest.mark.usefixtures("far")
def test_a_new_kind_yields_machines_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    options = SourceOptions(exclude=("rack/2",))
    found = find_machines(["far://rack", str(tmp_path)], options)
    assert [one.machine_id for one in found] == ["rack/1", "a.img"]
    assert absolute("far://rack") == "far://rack"
    with pytest.raises(UsageError, match="given twice"):
        find_machines(["far://rack", "far://RACK"])


def test_a_path_is_absolute_whether_it_exists_or_not() -> None:
    assert absolute("missing") == str(Path("missing").absolute())
    assert absolute("/") == "/"


@pytest.mark.usefixtures("far")
def test_what_no_kind_accepts_is_an_error_that_names_them_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist") as caught:
        find_machines([str(tmp_path / "missing")])
    for kind in (*KINDS, Far()):
        assert kind.form in caught.value.hint


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_with_an_option_explains_it(
    kind: SourceKind, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bool(kind.flag) == bool(kind.metavar) == bool(kind.help)
    assert run(["scan", "--help"]) == exits.FINE
    assert kind.flag in capsys.readouterr().out


def test_listing_the_kinds_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys; from fleetscan.scanner.sources.kinds import load_kinds; load_kinds();"
        "print({'pydantic', 'pyarrow', 'fleetscan.scanner.preflight'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
