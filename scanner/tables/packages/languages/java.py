"""Java archives: Maven's coordinates in them, else their manifests.

Format: the JAR File Specification; META-INF/maven/*/*/pom.properties as Maven's archiver writes
it. Archives within archives are opened too.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import purl
from fleetscan.scanner.tables.packages.spec import Package

LIMIT = 512 << 20
"""Largest archive that is read, in bytes."""

_INNER_LIMIT = 32 << 20  # of an archive within another, which is unpacked to memory
_UNPACKED_LIMIT = 512 << 20  # of all that is unpacked of an archive
_MEMBER_LIMIT = 1 << 20  # of a manifest or a pom.properties
_LIST_LIMIT = 8 << 20  # of an archive's list of members, which is held in memory some ten times
_DEPTH = 2  # a web application's archive holds libraries, and seldom those any more
_LIST_END = b"PK\5\6"  # APPNOTE.TXT, 4.3.16
_LIST_END_SIZE = 22
_LIST_END_64 = b"PK\6\6"  # 4.3.14; Python looks for it only here
_LIST_END_64_BEFORE = 56 + 20  # bytes: its own, and those of what locates it
_TAIL = _LIST_END_SIZE + _LIST_END_64_BEFORE + 0xFFFF  # a comment may follow
_SUFFIXES = (".jar", ".war", ".ear", ".jpi", ".hpi")
_POM = re.compile(r"META-INF/maven/[^/]+/[^/]+/pom\.properties")
_PROPERTY = re.compile(r"(?m)^\s*(groupId|artifactId|version)\s*[=:]\s*(.*?)\s*$")
_MANIFEST = "META-INF/MANIFEST.MF"
_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError)
"""What zipfile raises; RuntimeError for members that are encrypted."""

_NAMED = re.compile(r"(.+?)-([0-9][^/]*)")


def places(_: Root) -> Iterator[str]:
    """None: archives may be anywhere."""
    return iter(())


def records(directory: str, names: Sequence[str]) -> Iterator[str]:
    """Archives, by their names."""
    return (f"{directory}/{name}" for name in names if name.endswith(_SUFFIXES))


def read(root: Root, path: str) -> Iterator[Package]:
    """The packages that an archive holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or larger than the limits.
    """
    if root.is_dir(path):
        return
    with root.open(path) as stream:
        if stream.seek(0, io.SEEK_END) > LIMIT:
            raise ValueError(f"larger than {LIMIT} bytes")
        yield from from_archive(stream, path)


class _Unpacking:
    """Takes members out of archives until too much was taken.

    Args:
        left: how many bytes may be.
    """

    def __init__(self, left: int = _UNPACKED_LIMIT) -> None:
        self._left = left

    def take(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
        """A member's content.

        Raises:
            ValueError: it is larger than the limit, or too much was taken before.
        """
        limit = min(limit, self._left)
        with archive.open(member) as stream:
            content = stream.read(limit + 1)
        self._left -= min(len(content), limit)
        if len(content) > limit:
            raise ValueError(f"{member.filename} is larger than {limit} bytes")
        return content


def from_archive(
    stream: BinaryIO, path: str, depth: int = _DEPTH, unpacking: _Unpacking | None = None
) -> Iterator[Package]:
    """The packages of an archive, and those of the archives within.

    Args:
        stream: the archive.
        path: its path, with those of the archives around it before an exclamation mark each.
        depth: how many archives within each other are looked into.
        unpacking: what takes members out of it and out of the archives around it.

    Raises:
        ValueError: it is damaged, or larger than the limits, or an archive within it is; raised
            after everything that could be read.
    """
    _check_list(stream)
    unpacking = unpacking or _Unpacking()
    first = ""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            yield from _own(archive, members, path, unpacking)
            for member in members:
                if depth and member.filename.endswith(_SUFFIXES):
                    within = f"{path}!/{member.filename}"
                    try:
                        inner = io.BytesIO(unpacking.take(archive, member, _INNER_LIMIT))
                        yield from from_archive(inner, within, depth - 1, unpacking)
                    except (ValueError, *_DAMAGE) as error:
                        first = first or f"{member.filename}: {error}"
    except _DAMAGE as error:
        raise ValueError(f"damaged archive: {error}") from error
    if first:
        raise ValueError(first)


def _check_list(stream: BinaryIO) -> None:
    """Refuse an archive whose list of members is too long, before it is read.

    Raises:
        ValueError: it is, or the archive has none.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - _TAIL))
    tail = stream.read()
    place = tail.rfind(_LIST_END)
    if place < 0 or place + _LIST_END_SIZE > len(tail):
        raise ValueError("damaged archive: it has no list of members")
    (listed,) = struct.unpack_from("<I", tail, place + 12)
    before = place - _LIST_END_64_BEFORE
    if before >= 0 and tail[before:].startswith(_LIST_END_64):
        (listed,) = struct.unpack_from("<Q", tail, before + 40)
    if listed > _LIST_LIMIT:
        raise ValueError("its list of members is too long")


def _own(
    archive: zipfile.ZipFile,
    members: Sequence[zipfile.ZipInfo],
    path: str,
    unpacking: _Unpacking,
) -> Iterator[Package]:
    """What an archive says that it is itself; one that has others merged into it says several."""
    found = False
    for member in members:
        if _POM.fullmatch(member.filename):
            properties = dict(
                _PROPERTY.findall(_text(unpacking.take(archive, member, _MEMBER_LIMIT)))
            )
            artifact, version = properties.get("artifactId"), properties.get("version")
            if artifact and version:
                found = True
                yield _row(properties.get("groupId", ""), artifact, version, path)
    if not found:
        manifest = next((member for member in members if member.filename == _MANIFEST), None)
        text = _text(unpacking.take(archive, manifest, _MEMBER_LIMIT)) if manifest else ""
        if named := from_manifest(text, path):
            yield named


def from_manifest(text: str, path: str) -> Package | None:
    """The row for an archive without Maven's coordinates; None when it states no version."""
    fields: dict[str, str] = {}
    for line in re.sub(r"\r?\n ", "", text).splitlines():  # a line continues after a blank
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    file = path.rpartition("/")[2].rpartition(".")[0]
    named = _NAMED.fullmatch(file)
    name = fields.get("Bundle-SymbolicName", "").partition(";")[0] or (named[1] if named else file)
    version = (
        fields.get("Implementation-Version")
        or fields.get("Bundle-Version")
        or fields.get("Specification-Version")
        or (named[2] if named else "")
    )
    return _row("", name, version, path, fields.get("Implementation-Vendor")) if version else None


def _row(group: str, artifact: str, version: str, path: str, vendor: str | None = None) -> Package:
    return Package(
        manager="java",
        name=f"{group}:{artifact}" if group else artifact,
        version=version,
        # Without its group an archive cannot be matched to Maven's of that name.
        purl=purl("maven", artifact, version, group)
        if group
        else purl("generic", artifact, version, "java"),
        upstream_version=version,
        vendor=vendor or None,
        path=path,
    )


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")
