"""Rows as the agent sends them: redacted, and as lines of JSON."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fleetscan.appliance.ground.redaction import redact, redact_named
from fleetscan.appliance.ground.redaction.sieve import suspects
from fleetscan.appliance.ground.schema import Column, escape, redacted_columns

_BATCH = 64
"""Rows that are encoded together."""

# No JSON text holds a control character: one marks where a row or value ends.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",\x01", ":")).encode


def encode_rows(rows: Iterable[object]) -> Iterator[bytes]:
    """Rows as newline-ended JSON objects, null columns left out, secrets redacted.

    Args:
        rows: instances of one table's row class; or all bytes, rows encoded already, of a table
            none of whose columns may hold a secret.
    """
    rest = iter(rows)
    for first in rest:
        if isinstance(first, bytes):
            yield first
            yield from rest  # type: ignore[misc] # bytes as well
        else:
            encoding = _encoding(type(first))  # type: ignore[arg-type] # a class is hashable
            for batch in _batches(itertools.chain((first,), rest)):
                yield from encoding.encoded(batch)


def _batches(rows: Iterable[object]) -> Iterator[list[object]]:
    """Rows by some; those that were gathered before a collector failed are not lost."""
    batch: list[object] = []
    try:
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


class _Encoding:
    """How rows of one class are encoded."""

    def __init__(self, row: type) -> None:
        self._names = tuple(field.name for field in dataclasses.fields(row))
        self._values = _getter(self._names)
        self._columns = redacted_columns(row)
        named_by = [name for column in self._columns for name in column.named_by]
        # What the redactor looks at: columns, and what names them.
        names = (column.name for column in self._columns)
        self._looked_at = tuple(dict.fromkeys((*names, *named_by)))
        self._is_name = tuple(name in named_by for name in self._looked_at)
        self._texts = _getter(self._looked_at)

    def encoded(self, rows: Sequence[object]) -> Iterable[bytes]:
        """Some rows, each encoded."""
        values = [
            {name: value for name, value in zip(self._names, row, strict=True) if value is not None}
            for row in map(self._values, rows)
        ]
        for place in self._suspects(rows):
            row, column = divmod(place, len(self._looked_at))
            _redact(self._columns, values[row], self._looked_at[column])
        return _lines(values)

    def _suspects(self, rows: Sequence[object]) -> Iterable[int]:
        if not self._looked_at:
            return ()
        texts = [
            text if type(text) is str else "\n".join(text or ())
            for text in itertools.chain.from_iterable(map(self._texts, rows))
        ]
        return suspects(texts, self._is_name)


_encoding = functools.cache(_Encoding)


def warm_up(row: type) -> None:
    """Find out how rows of a class are encoded."""
    _encoding(row)


def _getter(names: tuple[str, ...]) -> Callable[[object], tuple[Any, ...]]:
    """What reads a row's columns; ``attrgetter`` of one or no name would not give a tuple."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda row: tuple(getattr(row, name) for name in names)


def _redact(columns: Iterable[Column], values: dict[str, Any], suspect: str) -> None:
    """Take the secrets out of a row's column, and out of those that it names."""
    for column in columns:
        value = values.get(column.name)
        if not value or suspect not in (column.name, *column.named_by):
            continue
        if type(value) is not str:
            values[column.name] = tuple(map(redact, value))
        elif column.named_by:
            names = (values.get(name) for name in reversed(column.named_by))
            values[column.name] = redact_named(next(filter(None, names), ""), value)
        else:
            values[column.name] = redact(value)


def _lines(rows: list[dict[str, Any]]) -> Iterable[bytes]:
    text = _encode(rows)[1:-1].replace("},\x01{", "}\n{").replace("\x01", "")
    try:
        lines = f"{text}\n".encode().splitlines(keepends=True)
    except UnicodeEncodeError:
        return map(_encode_escaped, rows)
    if "\\\\x" in text:  # rare: something may need an escape
        both = zip(lines, rows, strict=True)
        lines = [_encode_escaped(row) if b"\\\\x" in line else line for line, row in both]
    return lines


def _encode_escaped(row: dict[str, Any]) -> bytes:
    text = _encode({name: _escaped(value) for name, value in row.items()})
    return text.replace("\x01", "").encode() + b"\n"


def _escaped(value: object) -> object:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, tuple):
        return [escape(item) for item in value]
    return value
