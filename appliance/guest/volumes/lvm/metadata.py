"""Metadata of lvm's volume groups, as far as they are plain: read off physical volumes.

A group is plain that has linear and striped volumes alone, on physical volumes that are all there.

Sources: lvm2's lib/label/label.h and lib/format_text/layout.h (labels, headers), its
lib/format_text/export.c (the text), lib/misc/crc.c (checksum).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

_SECTOR = 512
_LABEL = struct.Struct("<8sQII8s")
_LABEL_SECTORS = 4
_AREA = struct.Struct("<QQ")
_AREAS = 40  # where in a physical volume's header the list of areas begins
_METADATA = struct.Struct("<I16sIQQ")
_METADATA_MAGIC = b" LVM2 x[5A%r0N*>"
_METADATA_HEADER = 512
_TEXT = struct.Struct("<QQII")
_IGNORED = 1
_CHECKSUM_START = 0xF597A6CF
_TEXT_LIMIT = 1 << 20

_TOKEN = re.compile(
    rb'\s+|#[^\n]*|"(?P<text>(?:\\.|[^"\\])*)"|(?P<word>[A-Za-z0-9_.+-]+)|(?P<sign>[{}\[\]=,])'
)
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")
_DEEPEST = 8

_GROUP_STATUS = {"RESIZEABLE", "READ", "WRITE"}
_VOLUME_STATUS = {"READ", "WRITE", "VISIBLE"}
_NOT_PLAIN = ("system_id", "lock_type", "historical_logical_volumes")

Section = dict[str, "Value"]
Value = str | int | list["Value"] | Section


class NotPlainError(ValueError):
    """Something is not as simple as is read here; lvm may find out more."""


@dataclass(frozen=True)
class Target:
    """A run of sectors of a volume.

    Attributes:
        start, length: where it is in the volume, in sectors.
        kind: device mapper's target.
        parameters: the target's; devices as ``{0}``, ``{1}`` ... for those of ``members``.
        members: UUIDs of the physical volumes.
    """

    start: int
    length: int
    kind: str
    parameters: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class LogicalVolume:
    """A logical volume of a plain group, as its metadata has it; UUIDs with hyphens."""

    group: str
    group_uuid: str
    name: str
    uuid: str
    layout: str
    targets: tuple[Target, ...]


# -- what is on a physical volume ------------------------------------------------------------------


def text_on(path: str) -> bytes | None:
    """The metadata on a physical volume; None where it has none, being of no group or without.

    Raises:
        NotPlainError: it cannot be made out.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        texts = list(_texts(descriptor))
    finally:
        os.close(descriptor)
    if len(set(texts)) > 1:
        raise NotPlainError("copies of the metadata differ")
    return texts[0] if texts else None


def _texts(descriptor: int) -> Iterator[bytes]:
    head = os.pread(descriptor, _LABEL_SECTORS * _SECTOR, 0)
    for number in range(_LABEL_SECTORS):
        sector = head[number * _SECTOR : (number + 1) * _SECTOR]
        if sector[:8] == b"LABELONE":
            break
    else:
        raise NotPlainError("there is no label")
    _, place, checksum, offset, kind = _LABEL.unpack_from(sector)
    if place != number or kind != b"LVM2 001" or checksum != _checksum(sector[20:]):
        raise NotPlainError("the label is not understood")
    data, metadata = _areas(sector[offset:])
    if len(data) != 1:
        raise NotPlainError("there is more than one data area")
    for start, size in metadata:
        text = _read_text(descriptor, start, size)
        if text is not None:
            yield text


def _areas(header: bytes) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Data areas and metadata areas: pairs of start and size in bytes."""
    lists: list[list[tuple[int, int]]] = [[], []]
    at = _AREAS
    for found in lists:
        while True:
            if at + _AREA.size > len(header):
                raise NotPlainError("the header is cut off")
            start, size = _AREA.unpack_from(header, at)
            at += _AREA.size
            if not start:
                break
            found.append((start, size))
    return lists[0], lists[1]


def _read_text(descriptor: int, start: int, size: int) -> bytes | None:
    """The text in a metadata area; None where there is none, or that is not to be used."""
    header = os.pread(descriptor, _METADATA_HEADER, start)
    if len(header) < _METADATA_HEADER:
        raise NotPlainError("the metadata area is cut off")
    checksum, magic, version, own_start, own_size = _METADATA.unpack_from(header)
    if (magic, version, own_start, own_size) != (_METADATA_MAGIC, 1, start, size):
        raise NotPlainError("the metadata's header is not understood")
    if checksum != _checksum(header[4:]):
        raise NotPlainError("the metadata's header is damaged")
    offset, length, checksum, flags = _TEXT.unpack_from(header, _METADATA.size)
    if not offset or flags & _IGNORED:
        return None
    if length > _TEXT_LIMIT or not _METADATA_HEADER <= offset < size:
        raise NotPlainError("the metadata is too long")
    text = os.pread(descriptor, min(length, size - offset), start + offset)
    if len(text) < length:  # it continues where the area begins
        text += os.pread(descriptor, length - len(text), start + _METADATA_HEADER)
    if _checksum(text) != checksum:
        raise NotPlainError("the metadata is damaged")
    return text


def _checksum(data: bytes) -> int:
    """CRC-32 with another start than usual, and its bits not turned over."""
    return zlib.crc32(data, _CHECKSUM_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


# -- what the metadata says ------------------------------------------------------------------------


def parse(text: bytes) -> Section:
    """A metadata text as nested dictionaries, whose lists and strings are as written.

    Raises:
        NotPlainError: it is not of this form.
    """
    top: Section = {}
    sections = [top]
    tokens = _tokens(text.rstrip(b"\0"))
    for kind, word in tokens:
        sign = next(tokens, ("", ""))[1] if kind == "word" else word
        if kind == "word" and sign == "=":
            sections[-1][word] = _value(tokens)
        elif kind == "word" and sign == "{" and len(sections) < _DEEPEST:
            section: Section = {}
            sections[-1][word] = section
            sections.append(section)
        elif kind == "sign" and sign == "}" and len(sections) > 1:
            sections.pop()
        else:
            raise NotPlainError("the metadata is malformed")
    if len(sections) != 1:
        raise NotPlainError("the metadata ends too early")
    return top


def _tokens(text: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotPlainError("the metadata is malformed")
        at = match.end()
        if match.lastgroup:
            yield match.lastgroup, match[match.lastgroup].decode("utf-8", "surrogateescape")


def _value(tokens: Iterator[tuple[str, str]]) -> Value:
    kind, token = next(tokens, ("", ""))
    if kind == "text":
        return token
    if kind == "word" and _NUMBER.fullmatch(token):
        return int(token)
    if (kind, token) != ("sign", "["):
        raise NotPlainError("the metadata has an invalid value")
    found: list[Value] = []
    for kind, token in tokens:
        if (kind, token) == ("sign", "]"):
            return found
        if kind == "text":
            found.append(token)
        elif kind == "word" and token.isdigit():
            found.append(int(token))
        elif (kind, token) != ("sign", ","):
            break
    raise NotPlainError("the metadata has an invalid list")


def read(text: bytes, present: Collection[str]) -> Iterator[LogicalVolume]:
    """The volumes of the group that a metadata text describes.

    Args:
        text: the metadata.
        present: UUIDs of the physical volumes that are there.

    Raises:
        NotPlainError: the group is not plain, or not complete.
    """
    try:
        groups = [(name, item) for name, item in parse(text).items() if isinstance(item, dict)]
        ((name, group),) = groups
        yield from _volumes(name, group, present)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise NotPlainError(f"the metadata is not understood: {error}") from error


def _volumes(name: str, group: Section, present: Collection[str]) -> Iterator[LogicalVolume]:
    _expect(_NAME.fullmatch(name), "its name")
    _expect(set(_list(group["status"])) <= _GROUP_STATUS, "the group's status")
    _expect(not _list(group.get("flags", [])), "the group's flags")
    _expect(not any(word in group for word in _NOT_PLAIN), "the group is not for everybody")
    extent = _number(group["extent_size"])
    starts: dict[str, tuple[str, int]] = {}
    for label, item in _section(group["physical_volumes"]).items():
        volume = _section(item)
        _expect(not _list(volume.get("flags", [])), "a physical volume's flags")
        uuid = _string(volume["id"])
        _expect(uuid in present, "a physical volume is missing")
        starts[label] = uuid, _number(volume["pe_start"])
    for label, item in _section(group.get("logical_volumes", {})).items():
        volume = _section(item)
        _expect(_NAME.fullmatch(label), "a volume's name")
        status = set(_list(volume["status"]))
        _expect("VISIBLE" in status and status <= _VOLUME_STATUS, "a volume's status")
        _expect(not _list(volume.get("flags", [])), "a volume's flags")
        count = _number(volume["segment_count"])
        segments = [_section(volume[f"segment{number + 1}"]) for number in range(count)]
        targets = tuple(_target(segment, extent, starts) for segment in segments)
        layouts = {target.kind for target in targets}
        _expect(len(layouts) == 1, "a volume of more than one kind")
        ends = [0, *(target.start + target.length for target in targets)]
        _expect([target.start for target in targets] == ends[:-1], "a volume with holes")
        group_uuid, uuid = _string(group["id"]), _string(volume["id"])
        yield LogicalVolume(name, group_uuid, label, uuid, layouts.pop(), targets)


def _target(segment: Section, extent: int, starts: Mapping[str, tuple[str, int]]) -> Target:
    _expect(segment["type"] == "striped", f"a segment of the type {segment['type']}")
    count = _number(segment["stripe_count"])
    stripes = _list(segment["stripes"])
    _expect(count > 0 and len(stripes) == 2 * count, "a segment's stripes")
    members, places = [], []
    for number, (label, first) in enumerate(zip(stripes[::2], stripes[1::2], strict=True)):
        uuid, start = starts[_string(label)]
        members.append(uuid)
        places.append(f"{{{number}}} {start + _number(first) * extent}")
    start, length = (
        _number(segment[f"{what}"]) * extent for what in ("start_extent", "extent_count")
    )
    if count == 1:
        return Target(start, length, "linear", places[0], tuple(members))
    head = f"{count} {_number(segment['stripe_size'])}"
    return Target(start, length, "striped", " ".join([head, *places]), tuple(members))


def _expect(truth: object, what: str) -> None:
    if not truth:
        raise NotPlainError(what)


def _list(value: Value) -> list[str | int]:
    if not isinstance(value, list):
        raise NotPlainError("a list is missing")
    return value  # type: ignore[return-value] # lists hold only strings and numbers


def _section(value: Value) -> Section:
    if not isinstance(value, dict):
        raise NotPlainError("a section is missing")
    return value


def _string(value: Value) -> str:
    if not isinstance(value, str):
        raise NotPlainError("a string is missing")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise NotPlainError("a number is missing")
    return value
