"""The part of YAML that netplan's files are written in: nested maps and lists of plain text.

Source: YAML 1.2.2, chapters 6 to 8, of which block maps and lists, flow lists and maps of one
level, quotes and comments are known; anchors, tags and text over several lines are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

Value: TypeAlias = str | list["Value"] | Mapping[str, "Value"]

_PLAIN = r"""[^\s#:,\[\]{}"'&*!|>%@`-][^#\n]*?|-[^\s#:][^#:\n]*"""
_KEY = re.compile(rf"""("(?:[^"\\]|\\.)*"|'[^']*'|{_PLAIN})\s*:(?:\s+|$)""")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_DEPTH = 20
_LINES, _LINE_LENGTH = 20_000, 1000


class Line(NamedTuple):
    """A line that is neither empty nor a comment; its number is from 1."""

    indent: int
    text: str
    number: int


def parse(text: str) -> Mapping[str, Value]:
    """The map that a file holds; an empty one for an empty file.

    Raises:
        ValueError: it holds something else, or what is not known here.
    """
    lines = _lines(text)
    if not lines:
        return {}
    value, rest = _block(lines, 0, 0)
    if rest < len(lines) or not isinstance(value, Mapping):
        raise _unknown(lines[min(rest, len(lines) - 1)])
    return value


def _lines(text: str) -> list[Line]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if number > _LINES or len(line) > _LINE_LENGTH:
            raise ValueError(f"line {number}: the line or the file is too long")
        plain = _COMMENT.sub("", line).rstrip()
        if plain and plain != "---":
            found.append(Line(len(plain) - len(plain.lstrip(" ")), plain.strip(), number))
    return found


def _unknown(line: Line) -> ValueError:
    # Without the text, which may be a secret.
    return ValueError(f"line {line.number}: YAML that fleetscan does not read")


def _block(lines: list[Line], at: int, depth: int) -> tuple[Value, int]:
    if depth > _DEPTH:
        raise _unknown(lines[at])
    if _is_item(lines[at]):
        return _sequence(lines, at, lines[at].indent, depth)
    return _mapping(lines, at, lines[at].indent, depth)


def _mapping(lines: list[Line], at: int, indent: int, depth: int) -> tuple[Value, int]:
    found: dict[str, Value] = {}
    while at < len(lines) and lines[at].indent == indent:
        line = lines[at]
        match = _KEY.match(line.text)
        if match is None:
            break
        key, rest = _scalar(match[1]), line.text[match.end() :]
        at += 1
        if rest:
            found[key] = _inline(rest, line)
        elif at < len(lines) and _is_below(lines[at], indent):
            found[key], at = _block(lines, at, depth + 1)
        else:
            found[key] = ""
    if not found:
        raise _unknown(lines[at])
    return found, at


def _is_item(line: Line) -> bool:
    return line.text == "-" or line.text.startswith("- ")


def _is_below(line: Line, indent: int) -> bool:
    # A list may stand as far left as the key that it belongs to.
    return line.indent > indent or (line.indent == indent and _is_item(line))


def _sequence(lines: list[Line], at: int, indent: int, depth: int) -> tuple[Value, int]:
    found: list[Value] = []
    while at < len(lines) and lines[at].indent == indent and _is_item(lines[at]):
        line = lines[at]
        rest = line.text[1:].lstrip()
        if _KEY.match(rest):  # a map begins on the dash's own line
            lines[at] = Line(indent + len(line.text) - len(rest), rest, line.number)
            value, at = _block(lines, at, depth + 1)
        elif rest:
            value, at = _inline(rest, line), at + 1
        elif at + 1 < len(lines) and lines[at + 1].indent > indent:
            value, at = _block(lines, at + 1, depth + 1)
        else:
            value, at = "", at + 1
        found.append(value)
    return found, at


def _inline(text: str, line: Line) -> Value:
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    if text.startswith("{") and text.endswith("}"):
        pairs = (item.partition(":") for item in text[1:-1].split(",") if item.strip())
        return {_scalar(key.strip()): _scalar(value.strip()) for key, _, value in pairs}
    if text[0] in "&*!|>[{":
        raise _unknown(line)
    return _scalar(text)


def _scalar(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text
