"""Every format is found by being there, says what it is, and writes any fleet."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from fleetscan.reports import formats
from fleetscan.reports.formats import load_formats
from fleetscan.reports.report_format import CheckedRun, ReportFormat, TextFormat
from fleetscan.reports.sections import Sections
from fleetscan.scanner.cli import exits, run
from tests.reports.report_fleet import GENERATED, Fleet, rich_fleet, small_fleet

FORMATS = load_formats()


def written(form: ReportFormat, fleet: Fleet, *, checked: bool = True) -> bytes:
    results = fleet.results_table() if checked else None
    asked = CheckedRun(fleet.connect(), results, fleet.rules, "A title", GENERATED, Sections())
    stream = io.BytesIO()
    form.write(asked, stream)
    return stream.getvalue()


def test_the_formats_are_the_modules_of_their_folder() -> None:
    folder = Path(str(formats.__file__)).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {"html", "json"} <= modules == FORMATS.keys()


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_format_says_what_it_is(form: ReportFormat, capsys: pytest.CaptureFixture[str]) -> None:
    assert form.suffix.startswith(".")
    assert form.media_type.count("/") == 1
    assert run(["report", "--help"]) == exits.FINE
    assert f"--{form.name} FILE" in capsys.readouterr().out


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("make", [small_fleet, rich_fleet, Fleet])
@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_a_format_writes_any_fleet(form: ReportFormat, make: type[Fleet], checked: bool) -> None:
    report = written(form, make(), checked=checked)
    assert report
    if isinstance(form, TextFormat):
        assert "\x1b" not in report.decode()


def test_listing_the_formats_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys; from fleetscan.reports.formats import load_formats; load_formats();"
        "print({'duckdb', 'jinja2', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
