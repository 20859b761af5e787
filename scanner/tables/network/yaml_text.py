"""YAML of which every single value is the text that stands there, as netplan's files need it.

libyaml parses it. Its events are taken one by one and within bounds: no aliases, which make small
files huge, no more depth and no more values than people write. What is refused is named by its line
and never quoted, as it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import yaml

Value: TypeAlias = str | list["Value"] | Mapping[str, "Value"]

_DEPTH = 20
_EVENTS = 50_000


def parse(text: str) -> Mapping[str, Value]:
    """The map that a file holds; an empty one for an empty file.

    Raises:
        ValueError: it holds something else, or is not YAML.
    """
    try:
        value = _document(_bounded(yaml.parse(text, Loader=yaml.CBaseLoader)))
    except UnicodeEncodeError as error:  # from bytes that are not UTF-8
        raise _refused(text.count("\n", 0, error.start)) from None
    except yaml.reader.ReaderError as error:
        raise _refused(text.encode().count(b"\n", 0, error.position)) from None
    except yaml.MarkedYAMLError as error:
        raise _refused(error.problem_mark.line if error.problem_mark else 0) from None
    if not isinstance(value, Mapping):
        raise _refused(0)
    return value


def _refused(line: int) -> ValueError:
    return ValueError(f"line {line + 1}: YAML that fleetscan does not read")


def _refused_at(event: yaml.Event) -> ValueError:
    return _refused(event.start_mark.line if event.start_mark else 0)


def _bounded(events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    for number, event in enumerate(events):
        if number >= _EVENTS or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise _refused_at(event)
        yield event


def _document(events: Iterator[yaml.Event]) -> Value:
    """The value of the only document."""
    next(events)  # the stream's start
    value: Value = {}
    for number, event in enumerate(events):
        if isinstance(event, yaml.DocumentStartEvent):
            if number:
                raise _refused_at(event)
            value = _value(next(events), events, 0)
    return value


def _value(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Value:
    if isinstance(event, yaml.ScalarEvent):
        return event.value
    if depth < _DEPTH and isinstance(event, yaml.SequenceStartEvent):
        items = _until(yaml.SequenceEndEvent, events)
        return [_value(item, events, depth + 1) for item in items]
    if depth < _DEPTH and isinstance(event, yaml.MappingStartEvent):
        keys = _until(yaml.MappingEndEvent, events)
        return {_key(key): _value(next(events), events, depth + 1) for key in keys}
    raise _refused_at(event)


def _until(end: type[yaml.Event], events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _key(event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise _refused_at(event)
    return event.value
