r"""Makes a registry hive from text, with hivex: ``hives.py TEXT HIVE``.

The text is in the form of Windows' .reg files, keys from the hive's root:

    [Microsoft\Windows NT\CurrentVersion]
    "ProductName"="Windows 10 Pro"
    "InstallDate"=dword:65920080

Beside ``dword:`` and ``hex(TYPE):`` a value may be ``expand:"..."``, ``multi:"...","..."``,
``qword:HEX``, and ``text(TYPE):"..."`` for UTF-16 text without an end mark in ``hex`` values, as
``hex(3):01,00,text:"Guest"``. Lines that begin with ``;`` are comments.

Runs on Debian's Python, which has hivex' binding (python3-hivex): standard library only.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TIME = 0x01DA3C5A00000000  # 2024-01-01 in Windows' units, for the seed's own fields
_LINE = re.compile(r'(?:"((?:[^"\\]|\\.)*)"|(@))=(.*)')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BYTES = re.compile(r'text:"((?:[^"\\]|\\.)*)"|([0-9a-fA-F]{2})|(,)')

SZ, EXPAND, BINARY, DWORD, MULTI, QWORD = 1, 2, 3, 4, 7, 11


def main(text: Path, hive: Path) -> None:
    """Write the hive."""
    import hivex

    hive.write_bytes(seed())
    handle = hivex.Hivex(str(hive), write=True)
    for path, values in keys(text.read_text()):
        node = _make(handle, path)
        for value in values:
            handle.node_set_value(node, value)
    handle.commit(None)


def keys(text: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each key of the text, with its values as hivex takes them.

    Raises:
        ValueError: a line cannot be read.
    """
    path = ""
    values: list[dict[str, Any]] = []
    for line in text.replace("\\\n", "").splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            if path:
                yield path, values
            path, values = line[1:-1], []
        elif match := _LINE.fullmatch(line):
            kind, data = _value(match[3])
            values.append({"key": _plain(match[1] or ""), "t": kind, "value": data})
        elif line and not line.startswith(";"):
            raise ValueError(f"cannot read {line!r}")
    yield path, values


def _value(text: str) -> tuple[int, bytes]:
    kind, colon, rest = text.partition(":")
    if text.startswith('"'):
        return SZ, _ended(_plain(text[1:-1]))
    if kind == "expand":
        return EXPAND, _ended(_plain(rest[1:-1]))
    if kind == "multi":
        return MULTI, b"".join(_ended(_plain(item)) for item in _QUOTED.findall(rest)) + b"\0\0"
    if kind == "dword":
        return DWORD, struct.pack("<I", int(rest, 16))
    if kind == "qword":
        return QWORD, struct.pack("<Q", int(rest, 16))
    if match := re.fullmatch(r"hex(?:\(([0-9a-f]+)\))?", kind):
        return int(match[1] or "3", 16), _binary(rest)
    raise ValueError(f"cannot read {text!r}{colon}")


def _binary(text: str) -> bytes:
    parts = []
    for words, byte, _ in _BYTES.findall(text):
        parts.append(_plain(words).encode("utf-16-le") if words else bytes.fromhex(byte))
    return b"".join(parts)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _ended(text: str) -> bytes:
    return f"{text}\0".encode("utf-16-le")


def _make(handle: Any, path: str) -> int:  # Any: an untyped binding
    """A key and those that lead to it, made where they are missing."""
    node: int = handle.root()
    for part in path.split("\\"):
        node = handle.node_get_child(node, part) or handle.node_add_child(node, part)
    return node


# -- The hive that is filled: one key. Source: Maxim Suhanov, "Windows registry file format
# specification" (base block, hive bin, key node, key security).

_NONE = 0xFFFFFFFF
_ROOT_AT = 32  # the first cell of a bin, counted from the first bin


def seed() -> bytes:
    """A hive with nothing but a root key."""
    name = b"ROOT"
    security_at = _ROOT_AT + len(_cell(_key_node(name, 0)))
    cells = _cell(_key_node(name, security_at)) + _cell(_security(security_at))
    free = 4096 - _ROOT_AT - len(cells)
    cells += struct.pack("<i", free) + bytes(free - 4)
    return _base_block() + struct.pack("<4sIIQQI", b"hbin", 0, 4096, 0, _TIME, 0) + cells


def _base_block() -> bytes:
    head = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, _TIME, 1, 5, 0, 1, _ROOT_AT, 4096, 1)
    checksum = 0
    for word in struct.unpack("<127I", head.ljust(508, b"\0")):
        checksum ^= word
    return (head.ljust(508, b"\0") + struct.pack("<I", checksum)).ljust(4096, b"\0")


def _key_node(name: bytes, security_at: int) -> bytes:
    root_and_latin_name = 0x0004 | 0x0008 | 0x0020
    lists = struct.pack("<IIIIII", 0, 0, _NONE, _NONE, 0, _NONE)
    rest = struct.pack("<IIIIIIIHH", security_at, _NONE, 0, 0, 0, 0, 0, len(name), 0)
    return struct.pack("<2sHQII", b"nk", root_and_latin_name, _TIME, 0, 0) + lists + rest + name


def _security(at: int) -> bytes:
    administrators = struct.pack("<BB6sII", 1, 2, b"\0\0\0\0\0\5", 32, 544)
    offsets = (20, 20 + len(administrators), 0, 0)
    descriptor = struct.pack("<BBHIIII", 1, 0, 0x8000, *offsets) + 2 * administrators
    return struct.pack("<2sHIIII", b"sk", 0, at, at, 1, len(descriptor)) + descriptor


def _cell(content: bytes) -> bytes:
    length = (len(content) + 4 + 7) // 8 * 8
    return struct.pack("<i", -length) + content.ljust(length - 4, b"\0")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
