from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.errors import RowError
from fleetscan.appliance.ground.schema import Kind, Scope, Table
from fleetscan.scanner.store import arrow
from fleetscan.scanner.store.arrow import all_columns, arrow_schema, decode_rows, rows_to_arrow
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage
from fleetscan.scanner.tables.groups.spec import Group
from tests.strategies import rows_of

TABLES = list(load_tables().values())
GROUPS = load_tables()["groups"]
USERS = load_tables()["users"]
COVERAGE = load_tables()["coverage"]

ROW = b'{"name":"sudo","gid":27,"members":["ann"],"administrators":[]}\n'
TIMED = b'{"table_name":"files","status":"ok","rows":1,"seconds":0.5}\n'


def root_of(table: Table) -> str | None:
    return "/dev/sda1" if table.scope is Scope.ROOT else None


def decode(payload: bytes, table: Table = GROUPS) -> pa.Table:
    return decode_rows(table, payload, machine_id="m", root=root_of(table))


def plain(column: schema.Column, value: Any) -> Any:
    """A row's value as the Arrow table, timestamps taken as numbers, gives it back."""
    if column.kind is Kind.STRING and value is not None:
        return schema.escape(value)
    if column.kind is Kind.STRING_LIST and value is not None:
        return [schema.escape(item) for item in value]
    return value


def numbers(rows: pa.Table) -> list[dict[str, Any]]:
    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            rows = rows.set_column(index, field.name, rows.column(index).cast(pa.int64()))
    return rows.to_pylist()


# -- schemas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_schema_has_the_columns_of_the_spec_with_their_descriptions(table: Table) -> None:
    found = arrow_schema(table)
    assert found.names == [column.name for column in all_columns(table)]
    assert [field.nullable for field in found] == [c.nullable for c in all_columns(table)]
    for field, column in zip(found, all_columns(table), strict=True):
        assert field.metadata
        assert field.metadata[b"description"].decode() == column.description
        assert field.metadata[b"unit"].decode() == column.unit
    assert found.metadata == {b"table": table.name.encode()}


def test_schema_uses_narrow_types() -> None:
    found = arrow_schema(load_tables()["users"])
    assert found.names[:2] == ["machine_id", "root"]
    assert found.field("uid").type == pa.uint32()
    assert found.field("password").type == pa.dictionary(pa.int32(), pa.string())
    assert found.field("expires").type == pa.timestamp("us", tz="UTC")


# -- rows that fit -------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_rows_come_back_as_they_were(table: Table, data: st.DataObject) -> None:
    rows = data.draw(st.lists(rows_of(table), min_size=1, max_size=3))
    result = rows_to_arrow(table, rows, machine_id="web/a.qcow2", root=root_of(table))
    result.validate(full=True)
    assert result.schema.equals(arrow_schema(table), check_metadata=True)
    head = {"machine_id": "web/a.qcow2"}
    if table.scope is Scope.ROOT:
        head["root"] = "/dev/sda1"
    own = [{c.name: plain(c, getattr(row, c.name)) for c in table.columns} for row in rows]
    assert numbers(result) == [head | row for row in own]


def test_no_rows_of_the_host_are_an_empty_table() -> None:
    empty = rows_to_arrow(GROUPS, [], machine_id="m", root="r")
    assert empty.num_rows == 0
    assert empty.schema.equals(arrow_schema(GROUPS), check_metadata=True)


def test_null_columns_may_be_given_or_left_out() -> None:
    given_null = TIMED.replace(b'"ok"', b'"ok","error":null')
    assert decode(given_null, COVERAGE).equals(decode(TIMED, COVERAGE))


def test_braces_and_escapes_inside_strings_are_text() -> None:
    payload = ROW.replace(b"sudo", rb"}{\"}null{[\\\u0000\ud83d\ude00") * 2
    assert decode(payload).column("name").to_pylist() == ['}{"}null{[\\\x00\U0001f600'] * 2


def test_strings_and_lists_may_be_as_long_as_their_limits() -> None:
    text = b"a" * arrow.MAX_STRING
    items = b",".join([b'""'] * arrow.MAX_ITEMS)
    rows = decode(ROW.replace(b"sudo", text).replace(b'"ann"', items))
    assert len(rows.column("name")[0].as_py()) == arrow.MAX_STRING
    assert len(rows.column("members")[0]) == arrow.MAX_ITEMS


# -- rows that do not ----------------------------------------------------------------------------

HOSTILE = {
    "nothing": (b"", "a payload of 0 bytes"),
    "blank line": (b"\n", "row 1 is not one flat JSON object"),
    "blank line between rows": (ROW + b"\n" + ROW, "row 2 is not one flat"),
    "no newline at the end": (ROW[:-1], "row 1 does not end with a newline"),
    "cut off": (ROW[:20] + b"\n", "row 1 is not one flat"),
    "carriage return": (ROW[:-1] + b"\r\n", "row 1 is not one flat"),
    "byte order mark": (b"\xef\xbb\xbf" + ROW, "row 1 is not one flat"),
    "top-level null": (b"null\n", "row 1 is not one flat"),
    "null after a row": (ROW + b"null\n", "row 2 is not one flat"),
    "null on a row's line": (ROW[:-1] + b"null" + ROW, "row 1 is not one flat"),
    "null before a row": (b"null" + ROW, "row 1 is not one flat"),
    "null between braces": (b"{}null{}\n", "row 1 is not one flat"),
    "two rows on a line": (ROW[:-1] + ROW, "row 1 is not one flat"),
    "row over two lines": (ROW.replace(b",", b",\n", 1), "row 1 is not one flat"),
    "top-level array": (b"[" + ROW[:-1] + b"]\n", "row 1 is not one flat"),
    "top-level number": (b"1\n", "row 1 is not one flat"),
    "trailing garbage": (ROW[:-1] + b"garbage\n", "row 1 is not one flat"),
    "trailing NUL": (ROW + b"\0\n", "row 2 is not one flat"),
    "empty object": (b"{}\n", "row 1: column name is missing"),
    "missing column": (ROW.replace(b'"gid":27,', b""), "row 1: column gid is missing"),
    "null in a column": (ROW + ROW.replace(b"27", b"null"), "row 2: column gid is missing"),
    "null list": (ROW.replace(b"[]", b"null"), "row 1: column administrators is missing"),
    "null item": (ROW.replace(b'"ann"', b'null,"ann"'), "column members has an item that is null"),
    "number as item": (ROW.replace(b'"ann"', b"1"), "row 1: column members: changed from string"),
    "nested list": (ROW.replace(b'"ann"', b"[]"), "row 1: column members: changed from string"),
    "nested object": (ROW.replace(b"27", b"{}"), "row 1 is not one flat"),
    "unknown column": (ROW.replace(b"{", b'{"shell":1,'), "unexpected field"),
    "column twice": (ROW.replace(b"{", b'{"gid":27,'), "column gid: was specified twice"),
    "null, then again": (ROW.replace(b"{", b'{"gid":null,'), "column gid: was specified twice"),
    "machine_id given": (ROW.replace(b"{", b'{"machine_id":"x",'), "unexpected field"),
    "string for number": (ROW.replace(b"27", b'"27"'), "column gid: changed from number"),
    "number for string": (ROW.replace(b'"sudo"', b"1"), "column name: changed from string"),
    "boolean for number": (ROW.replace(b"27", b"true"), "column gid: changed from number"),
    "float for integer": (ROW.replace(b"27", b"27.0"), "column gid: Failed to convert"),
    "exponent": (ROW.replace(b"27", b"27e0"), "column gid: Failed to convert"),
    "negative": (ROW.replace(b"27", b"-1"), "column gid: Failed to convert"),
    "too large": (ROW.replace(b"27", b"4294967296"), "column gid: Failed to convert"),
    "endless": (ROW.replace(b"27", b"9" * 100_000), "groups: "),
    "NaN for integer": (ROW.replace(b"27", b"NaN"), "column gid: Failed to convert"),
    "bad UTF-8": (ROW + ROW.replace(b"sudo", b"\xff"), "column name: Invalid: Invalid UTF8"),
    "overlong UTF-8": (ROW.replace(b"sudo", b"\xc0\x80"), "column name: Invalid: Invalid UTF8"),
    "surrogate in UTF-8": (ROW.replace(b"sudo", b"\xed\xa0\x80"), "column name: Invalid"),
    "bad UTF-8 in a list": (ROW.replace(b"ann", b"\xff"), "column members: Invalid"),
    "bad UTF-8 in a name": (ROW.replace(b"gid", b"g\xffd"), "unexpected field"),
    "lone high surrogate": (ROW.replace(b"sudo", rb"\ud800"), "surrogate"),
    "lone low surrogate": (ROW.replace(b"sudo", rb"\udc00"), "surrogate"),
    "raw control character": (ROW.replace(b"sudo", b"su\x01do"), "Invalid encoding"),
    "raw NUL": (ROW.replace(b"sudo", b"su\0do"), "groups: "),
    "unknown escape": (ROW.replace(b"sudo", rb"\x41"), "Invalid escape"),
    "single quotes": (b"{'name':'a'}\n", "row 1: Missing a name"),
    "comment": (ROW.replace(b",", b",/* */", 1), "row 1: Missing a name"),
    "trailing comma": (ROW.replace(b"}", b",}"), "row 1: Missing a name"),
    "long string": (ROW.replace(b"sudo", b"a" * (arrow.MAX_STRING + 1)), "column name is longer"),
    "long item": (ROW.replace(b"ann", b"a" * (arrow.MAX_STRING + 1)), "column members has an item"),
    "long list": (
        ROW.replace(b'"ann"', b",".join([b'""'] * (arrow.MAX_ITEMS + 1))),
        "row 1: column members has more than",
    ),
}


@pytest.mark.parametrize(("payload", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_payload_that_does_not_fit_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(RowError) as caught:
        decode(payload)
    assert str(caught.value).startswith("groups: ")
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Inf", b"1e999", b"-1e999"])
def test_numbers_that_are_not_finite_are_refused(number: bytes) -> None:
    with pytest.raises(RowError, match=r"^coverage: "):
        decode(TIMED.replace(b"0.5", number), COVERAGE)


@pytest.mark.parametrize("moment", [schema.TIMESTAMP_MIN - 1, schema.TIMESTAMP_MAX + 1, 2**63 - 1])
def test_times_that_are_no_dates_are_refused(moment: int) -> None:
    row = b'{"name":"a","uid":1,"gid":1,"shell":"/bin/sh","password":"set","expires":%d}\n'
    with pytest.raises(RowError, match="column expires lies outside the years 1 to 9999"):
        decode(row % moment, USERS)


def test_a_value_that_an_enum_does_not_have_is_refused() -> None:
    with pytest.raises(RowError, match="row 2: column status is not one of the values"):
        decode(TIMED + TIMED.replace(b"ok", b"fine"), COVERAGE)


def test_a_payload_above_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "MAX_PAYLOAD", len(ROW))
    assert decode(ROW).num_rows == 1
    with pytest.raises(RowError, match="bytes, not 1 to"):
        decode(ROW * 2)


@pytest.mark.parametrize("machine_id", ["", "a" * 4097, "\udc80"])
def test_a_machine_id_or_root_that_no_column_holds_is_refused(machine_id: str) -> None:
    with pytest.raises(RowError, match="machine_id"):
        decode_rows(COVERAGE, TIMED, machine_id=machine_id, root=None)
    with pytest.raises(RowError, match="root"):
        decode_rows(GROUPS, ROW, machine_id="m", root=machine_id)


def test_a_root_belongs_to_root_tables_only() -> None:
    with pytest.raises(RowError, match="needs a root"):
        decode_rows(GROUPS, ROW, machine_id="m", root=None)
    with pytest.raises(RowError, match="knows no roots"):
        decode_rows(COVERAGE, TIMED, machine_id="m", root="/dev/sda1")


def test_rows_of_the_host_are_checked_like_those_of_a_guest() -> None:
    wrong: Any = "fine"
    row = Coverage(
        root=None, table_name="files", status=wrong, rows=1, seconds=1.0, error=None, unread=None
    )
    with pytest.raises(RowError, match="column status"):
        rows_to_arrow(COVERAGE, [row], machine_id="m")
    group = Group(name="\ud800", gid=1, members=(), administrators=(), sid=None)
    with pytest.raises(RowError, match="surrogates not allowed"):
        rows_to_arrow(GROUPS, [group], machine_id="m", root="r")


# -- hostile input at large ----------------------------------------------------------------------

_PIECES = st.sampled_from(
    [ROW, ROW[:-1], b'"name":"x"', b'"gid":1', b'"members":[]', b'"a"', b"null", b"{}", b"true"]
) | st.sampled_from([bytes([byte]) for byte in b'{}[]"\\,: \n0-.e\xff\0'])


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Rows with some stretch replaced by something else."""
    payload = bytearray(ROW * draw(st.integers(1, 3)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(payload)))
        end = draw(st.integers(start, min(start + 8, len(payload))))
        payload[start:end] = draw(_PIECES | st.binary(max_size=4))
    return bytes(payload)


@settings(deadline=None, max_examples=300)
@given(damaged() | st.lists(_PIECES).map(b"".join))
def test_what_is_accepted_means_what_it_means_to_another_json_parser(payload: bytes) -> None:
    try:
        rows = decode(payload)
    except RowError:
        return
    lines = payload.decode().split("\n")[:-1]
    assert rows.drop_columns(["machine_id", "root"]).to_pylist() == [
        {"name": None, "gid": None, "members": None, "administrators": None, "sid": None}
        | json.loads(line)
        for line in lines
    ]


_CRASHERS = """
from fleetscan.appliance.ground.errors import RowError
from fleetscan.scanner.store.arrow import decode_rows
from fleetscan.scanner.tables import load_tables
n = 100_000
payloads = [b"[" * n, b"{" * n, b'{"a":' * n, b'{"name":' + b"[" * n, b'{"members":' + b"[" * n]
payloads += [b'{"x":' + b"[" * n + b"]" * n + b"}", b'{"x":' * n + b"1" + b"}" * n]
payloads += [b"null", b"{}null", b"{}\\nnull", b"{" + b'"' * n]
payloads += [b"{" + b'"gid":1,' * n + b'"gid":1}']
payloads += [b'{"gid":' + b"1" * (1 << 20) + b"}", b'{"name":"' + b"\\\\" * (1 << 20) + b'"}']
for payload in payloads:
    for end in (b"", b"\\n", b"}\\n"):
        try:
            decode_rows(load_tables()["groups"], payload + end, machine_id="m", root="r")
        except RowError:
            continue
        raise SystemExit(f"accepted: {payload[:20]!r}")
print("all refused")
"""


def test_nesting_and_bare_nulls_do_not_end_the_process() -> None:
    # In a process of its own, since what is tested is that a process survives.
    done = subprocess.run(
        [sys.executable, "-c", _CRASHERS],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all refused\n"), done.stderr
