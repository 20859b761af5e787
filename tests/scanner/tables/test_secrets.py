"""No table, error or log tells a secret: by convention for every column, and on whole systems."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetscan.appliance.ground import schema
from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.redaction import MARKER
from fleetscan.appliance.ground.schema import Column, Kind, Origin, Table
from fleetscan.appliance.ground.wire import FrameKind, FrameReader, encode_json
from fleetscan.appliance.guest import __main__ as agent
from fleetscan.appliance.guest.machine import DirectoryMachine
from fleetscan.scanner import tables
from fleetscan.scanner.inspect import inspect_directory
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.store.arrow import decode_rows
from fleetscan.scanner.store.staging import MemorySink
from fleetscan.scanner.tables import load_tables
from tests.appliance.ground.redaction_corpus import HOLDING, MARKED
from tests.scanner import secret_trees
from tests.scanner.secret_trees import MARK
from tests.scanner.tables.make_hives import make_hives
from tests.scanner.tables.run_case import run_in_debian_python

TABLES = load_tables()
TEXTS = (Kind.STRING, Kind.STRING_LIST)
ENCODED_BY_THEMSELVES = ("files",)
"""Tables whose collectors hand on encoded rows."""

PLAIN: dict[Kind, Any] = {  # Any: a column's value
    Kind.STRING: "x",
    Kind.BOOL: False,
    Kind.FLOAT64: 0.0,
    Kind.STRING_LIST: ("x",),
}
every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)


class Stream:
    """What an agent says, for one request."""

    def __init__(self, request: bytes) -> None:
        self._left = [request]
        self.said = b""

    def recv(self, _: int, /) -> bytes:
        return self._left.pop() if self._left else b""

    def sendall(self, data: bytes, /) -> None:
        self.said += data

    def frames(self, kind: FrameKind) -> list[bytes]:
        return [frame.payload for frame in FrameReader().feed(self.said) if frame.kind == kind]


def serve(monkeypatch: pytest.MonkeyPatch, rows: Iterator[object], tmp_path: Path) -> Stream:
    """Have the real agent collect rows."""
    monkeypatch.setattr(tables, "load_collector", lambda _: lambda _: rows)
    args = {"table": "t", "root": None}
    stream = Stream(encode_json(FrameKind.REQUEST, {"op": "collect", "args": args}))
    agent.Operations(stream, DirectoryMachine(str(tmp_path)), tables).serve()
    return stream


def _plain(column: Column) -> object:
    return column.values[0] if column.values else PLAIN.get(column.kind, 0)


def _rows_with_secrets(table: Table) -> Iterator[object]:
    plain = {column.name: _plain(column) for column in table.columns}
    for column in table.columns:
        for text in HOLDING if column.may_be_secret else ():
            marked = text.replace("SECRET", MARKED)
            value = ("x", marked) if column.kind is Kind.STRING_LIST else marked
            yield table.row(**{**plain, column.name: value})


@every_table
def test_a_secret_planted_in_any_text_column_does_not_reach_the_host(
    table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planted = list(_rows_with_secrets(table))
    stream = serve(monkeypatch, iter(planted), tmp_path)
    rows: list[dict[str, Any]] = []  # Any: columns' values
    for payload in stream.frames(FrameKind.ROWS):
        lines = payload.partition(b"\n")[2]
        root = "r" if table.scope is schema.Scope.ROOT else None
        rows += decode_rows(table, lines, machine_id="m", root=root).to_pylist()
    assert len(rows) == len(planted)
    assert [row for row in rows if "SECRET" in str(row)] == []
    assert [row for row in rows if MARKER not in str(row)] == []


@every_table
def test_a_column_that_is_not_redacted_is_text_and_says_why(table: Table) -> None:
    reasoned = [column for column in table.columns if column.unredacted]
    assert [column.name for column in reasoned if column.kind not in TEXTS] == []
    assert [column.name for column in reasoned if len(column.unredacted.split()) < 3] == []
    names = {column.name for column in table.columns}
    for column in table.columns:
        assert names.issuperset(column.named_by), column.name
        assert not (column.named_by and column.unredacted), column.name
        assert not column.named_by or column.kind is Kind.STRING, column.name


@pytest.mark.parametrize("name", ENCODED_BY_THEMSELVES)
def test_rows_that_are_not_encoded_here_have_no_column_that_may_hold_a_secret(name: str) -> None:
    assert schema.redacted_columns(TABLES[name].row) == ()


def test_only_those_collectors_hand_on_encoded_rows() -> None:
    folder = Path(agent.__file__).parents[2] / "scanner" / "tables"
    found = {
        path.parent.name
        for path in folder.glob("*/*.py")
        if "Iterator[bytes]" in path.read_text() and path.name in ("collect.py", "native.py")
    }
    assert found == set(ENCODED_BY_THEMSELVES)


@pytest.mark.parametrize("text", HOLDING)
def test_errors_do_not_quote_secrets(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def collect() -> Iterator[object]:
        raise ValueError(f"line 3: {text.replace('SECRET', MARKED)}")
        yield

    stream = serve(monkeypatch, collect(), tmp_path)
    (payload,) = stream.frames(FrameKind.ERROR)
    assert MARKED not in payload.decode()
    assert json.loads(payload)["name"] == "ValueError"


def test_warnings_and_logs_do_not_quote_secrets(tmp_path: Path) -> None:
    class Warned(DirectoryMachine):
        def discover(self, *_: object) -> None:
            self.warnings = [f"cannot mount with password={MARKED}"]

    request = {"op": "discover", "args": {"disks": [], "options": {"files": "none"}}}
    stream = Stream(encode_json(FrameKind.REQUEST, request))
    told = agent.Operations(stream, Warned(str(tmp_path)), tables)
    told.serve()
    told.log(f"curl -u bob:{MARKED} https://x")
    assert MARKED not in stream.said.decode("utf-8", "replace")
    assert stream.said.count(MARKER.encode()) == 2


# -- Whole systems -------------------------------------------------------------------------------


def everything(top: Path, caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """All that the host has of a tree, as text by table, and its log."""
    caplog.set_level(logging.DEBUG)
    sink = MemorySink()
    inspect_directory(top, ScanOptions.of(deadline=120), sink)
    found = {name: str(sink.table(name).to_pylist()) for name in TABLES}
    return {**found, "log": caplog.text}


def places(texts: dict[str, str]) -> list[str]:
    """Where a mark is, with what stands around it."""
    return [
        f"{name}: {text[max(0, at - 60) : at + 20]}"
        for name, text in texts.items()
        if (at := text.find(MARK)) >= 0
    ]


def test_a_linux_full_of_secrets_tells_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert secret_trees.linux(tmp_path) > 40
    texts = everything(tmp_path, caplog)
    assert places(texts) == []
    marked = {name for name, text in texts.items() if MARKER in text}
    assert marked >= {"boot", "config", "kernel_settings", "packages", "scheduled_tasks"}
    assert marked >= {"firewall_rules", "services", "ssh_keys", "users"}
    assert "'99999'" in texts["config"]
    assert "'pam_pwquality.so'" in texts["config"]


def test_errors_about_a_broken_linux_tell_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret_trees.broken_linux(tmp_path)
    texts = everything(tmp_path, caplog)
    assert "malformed" in texts["coverage"]
    assert places(texts) == []


def test_a_windows_full_of_secrets_tells_none(tmp_path: Path) -> None:
    secret_trees.windows(tmp_path)
    make_hives(tmp_path)
    outcomes = {
        name: run_in_debian_python(name, tmp_path)
        for name in ("operating_systems", "registry", "services")
    }
    assert {name: outcome.error for name, outcome in outcomes.items() if outcome.error} == {}
    texts = {name: "".join(outcome.rows) for name, outcome in outcomes.items()}
    assert places(texts) == []
    assert secret_trees.HEX_MARK not in texts["registry"]
    values = {row["name"]: row.get("value") for row in map(json.loads, outcomes["registry"].rows)}
    assert values["WUServer"] == f"http://bob:{MARKER}@wsus.example:8530"
    assert values["Map"] == rf"net use x: \\srv\share {MARKER} /user:bob"
    assert values["DefaultPIN"] == values["Password"] == values["DigitalProductId"] == MARKER
    assert (values["PasswordExpiryWarning"], values["AutoAdminLogon"]) == ("5", "1")
    assert f"db.exe --password {MARKER}" in texts["services"]


def test_origin_of_rows_does_not_matter() -> None:
    row = dataclasses.replace(_example("coverage"), error="password=x1")
    (line,) = encode_rows([row])
    assert json.loads(line)["error"] == f"password={MARKER}"


def _example(name: str) -> Any:  # Any: a row of the table
    table = TABLES[name]
    assert table.origin is Origin.HOST
    return table.row(**{column.name: _plain(column) for column in table.columns})
