"""Text of unknown encoding, rows as JSON, and tables read off their row classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.schema import U32, Kind, Scope, Timestamp, column, table
from fleetscan.scanner.tables import load_tables
from tests.strategies import guest_texts, rows_of


@table(scope=Scope.MACHINE)
class Sample:
    """Samples of things.

    More about them.
    """

    name: str = column("Its name.", example="one")
    size: U32 | None = column("Its size.", unit="bytes")
    seen: Timestamp | None = column("When it was seen.")
    state: Literal["on", "off"] = column("Its state.")
    tags: tuple[str, ...] = column("Its tags.")


@given(st.binary())
def test_bytes_survive_escaping(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    assert schema.unescape(schema.escape(text)) == data


@given(st.binary())
def test_escaped_text_is_valid_unicode(data: bytes) -> None:
    schema.escape(data.decode("utf-8", "surrogateescape")).encode("utf-8", "strict")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_without_look_alikes_of_escapes_is_stored_as_it_is(text: str) -> None:
    stored = schema.escape(text)
    assert stored == text or "\\x" in text


@pytest.mark.parametrize("text", ["C:\\Windows\\x86", "a\\b", "\\x", "\\xZZ", "\\x4", "\\X41"])
def test_backslashes_that_start_no_escape_are_kept(text: str) -> None:
    kept = text.replace("\\x86", "\\x5cx86")
    assert schema.escape(text) == kept
    assert schema.unescape(kept) == text.encode()


@pytest.mark.parametrize("name", load_tables())
def test_rows_of_every_table_read_back_without_their_nulls(name: str) -> None:
    @given(rows_of(load_tables()[name]))
    def check(row: object) -> None:
        (line,) = encode_rows([row])
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        values = json.loads(line)
        for field in load_tables()[name].columns:
            value = getattr(row, field.name)
            if value is None:
                assert field.name not in values
            elif field.kind in (Kind.STRING, Kind.ENUM):
                assert values[field.name] == schema.escape(value)
            elif field.kind is Kind.STRING_LIST:
                assert values[field.name] == [schema.escape(item) for item in value]
            else:
                assert values[field.name] == value

    check()


@given(guest_texts())
def test_row_is_valid_utf8_whatever_the_guest_wrote(text: str) -> None:
    row = Sample(name=text, size=None, seen=-1, state="on", tags=(text,))
    (line,) = encode_rows([row])
    values = json.loads(line.decode("utf-8", "strict"))
    assert schema.unescape(values["name"]) == text.encode("utf-8", "surrogateescape")


@given(
    st.lists(
        guest_texts() | st.sampled_from(["},{", '},\x01{"', "\n", "\\x41", "\udce9"]), max_size=200
    )
)
def test_rows_that_are_encoded_together_are_encoded_as_each_alone(texts: list[str]) -> None:
    rows = [Sample(name=text, size=None, seen=1, state="on", tags=(text, "")) for text in texts]
    alone = [line for row in rows for line in encode_rows([row])]
    assert list(encode_rows(rows)) == alone
    assert [json.loads(line)["name"] for line in alone] == [schema.escape(text) for text in texts]


def test_rows_before_a_collector_failed_are_not_lost() -> None:
    def rows() -> Iterator[object]:
        for number in range(100):
            yield Sample(name="x", size=number, seen=None, state="on", tags=())
        raise ValueError("line 101")

    lines = iter(encode_rows(rows()))
    assert [json.loads(next(lines))["size"] for _ in range(100)] == list(range(100))
    with pytest.raises(ValueError, match="line 101"):
        next(lines)


def test_table_is_read_off_its_row_class() -> None:
    found = schema.describe("samples", Sample)
    assert (found.name, found.scope, found.row) == ("samples", Scope.MACHINE, Sample)
    assert found.summary == "Samples of things."
    assert found.description == "More about them."
    assert [(c.name, c.kind, c.nullable) for c in found.columns] == [
        ("name", Kind.STRING, False),
        ("size", Kind.UINT32, True),
        ("seen", Kind.TIMESTAMP, True),
        ("state", Kind.ENUM, False),
        ("tags", Kind.STRING_LIST, False),
    ]
    assert found.columns[3].values == ("on", "off")
    assert found.columns[1].unit == "bytes"
    assert found.columns[0].example == "one"


def test_type_that_no_column_has_is_refused() -> None:
    @table()
    class Odd:
        """Odd."""

        ratio: complex = column("A number.")

    with pytest.raises(TypeError, match="ratio"):
        schema.describe("odd", Odd)


def test_rows_cannot_be_changed() -> None:
    row = Sample(name="a", size=1, seen=None, state="on", tags=())
    with pytest.raises(AttributeError):
        row.name = "b"  # type: ignore[misc] # the error is what is tested
