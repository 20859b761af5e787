"""Pages that are made from something else are what it makes today."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import package_description, regenerate
from tests.conftest import PROJECT

PAGES = regenerate.pages()


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only page of a project of its own; it should say "new"."""
    made: Mapping[Path, regenerate.Maker] = {tmp_path / "page.md": lambda: "new\n"}
    monkeypatch.setattr(regenerate, "PROJECT", tmp_path)
    monkeypatch.setattr(regenerate, "pages", lambda: made)
    return tmp_path / "page.md"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path](), f"run: {regenerate.COMMAND}"


@pytest.mark.parametrize("before", ["old\n", None])
def test_an_outdated_or_missing_page_fails_the_check_and_is_written_without_it(
    before: str | None, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if before is not None:
        page.write_text(before)
    assert regenerate.main(["--check"]) == 1
    assert (page.read_text() if page.exists() else None) == before
    assert regenerate.main([]) == 0
    assert page.read_text() == "new\n"
    assert capsys.readouterr().out == "page.md\n" * 2
    assert regenerate.main(["--check"]) == 0
    assert capsys.readouterr().out == ""


def test_other_arguments_are_bad_usage(page: Path) -> None:
    assert regenerate.main(["--chek"]) == 64
    assert not page.exists()


def test_the_description_for_a_package_index_has_no_link_that_is_dead_there() -> None:
    text = package_description.markdown()
    assert "](" not in text.replace("](http", "")
    assert "`appliance/`" in text
