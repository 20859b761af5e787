"""Quoted SQL, read by DuckDB."""

from __future__ import annotations

import ast

import duckdb
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.scanner.store.quoting import identifier, literal
from tests.conftest import PROJECT

# DuckDB takes no NUL in SQL, and no surrogates.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(texts)
def test_a_literal_is_its_text_and_nothing_more(text: str) -> None:
    assert duckdb.execute(f"SELECT {literal(text)}").fetchall() == [(text,)]


@given(texts.filter(bool))
def test_an_identifier_is_one_name(name: str) -> None:
    columns = duckdb.execute(f"SELECT 1 AS {identifier(name)}").description
    assert [column[0] for column in columns or ()] == [name]


def test_no_other_module_doubles_quotes() -> None:
    found = set()
    for top in ("scanner", "rules", "reports", "appliance"):
        for path in (PROJECT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "replace":
                    words = [word.value for word in node.args if isinstance(word, ast.Constant)]
                    if words in (["'", "''"], ['"', '""']):
                        found.add(str(path.relative_to(PROJECT)))
    assert found == {"scanner/store/quoting.py"}
