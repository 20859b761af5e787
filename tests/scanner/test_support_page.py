from __future__ import annotations

import pytest

from tests.scanner import support_page

ROWS = [row for rows in support_page.load().values() for row in rows]


def test_every_kind_of_thing_that_the_code_knows_has_a_row() -> None:
    covered = {claim for row in ROWS for claim in row.covers}
    assert support_page.claims() - covered == set(), "add a row to tests/scanner/support.yaml"


def test_every_row_is_about_what_the_code_knows() -> None:
    assert {claim for row in ROWS for claim in row.covers} - support_page.claims() == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_the_tests_that_a_row_names_are_there(row: support_page.Row) -> None:
    assert [test for test in row.tests if not support_page.exists(test)] == []


def test_a_test_that_is_not_there_is_noticed() -> None:
    assert not support_page.exists("vm/test_volumes::test_of_nothing")
    assert not support_page.exists("vm/test_nothing::test_of_nothing")
    assert not support_page.exists("case packages/nothing")


def test_the_readme_leads_to_the_page() -> None:
    assert "(scanner/SUPPORT.md)" in (support_page.PROJECT / "README.md").read_text()
