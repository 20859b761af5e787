"""VMware disk images (vmdk): sparse files, and descriptors of disks in several files.

Layout: VMware's "Virtual Disk Format 5.0" technical note; what QEMU makes of it: its block/vmdk.c.

QEMU opens the files that a descriptor names, so it never sees the descriptor of an image: it gets
one of ours (:func:`describe`), which names descriptors of files that preflight has opened. For the
same reason a sparse file of capacity 0, which QEMU takes for a descriptor's container, is refused.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight.disk_format import DiskFormat
from fleetscan.scanner.preflight.image import (
    SECTOR,
    ExtentReference,
    Image,
    Malformed,
    NumberTable,
    Read,
    check_end,
    read_blocks,
    table_pieces,
)

SPARSE_MAGIC = b"KDMV"
ESX_MAGIC = b"COWD"
DESCRIPTOR_MAGIC = b"# Disk DescriptorFile"

MAX_EXTENTS = 256
"""Most files of one disk: half a terabyte in the usual pieces of 2 GB. QEMU holds them all open."""

_MOST_TABLES = 1 << 16  # whose places are remembered; 2 TiB have as many
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_FOOTER_FROM_END = 1024  # footer, end-of-stream marker
_AT_END = (1 << 64) - 1
_ZERO_GRAINS = 1 << 2
_COMPRESSED = 1 << 16
_MAX_DESCRIPTOR = (1 << 20) - 1  # what QEMU reads of one
NO_PARENT = 0xFFFF_FFFF
"""Content id that stands for no parent."""


_EXTENT = re.compile(
    rb'(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]+)(?:\s+"([^"\0]{1,511})"(?:\s+(\d{1,15}))?)?'
)
_VALUE = re.compile(rb'([A-Za-z]+)\s*=\s*"?([^"]*)"?')

_malformed = Malformed("vmdk")


@dataclass(frozen=True)
class _Header:
    version: int
    flags: int
    capacity: int
    grain: int
    descriptor_offset: int
    descriptor_size: int
    entries: int  # of a grain table
    directory: int
    unclean: bool


class _Vmdk(DiskFormat):
    name = driver = "vmdk"
    suffixes = (".vmdk",)
    magics = ((0, SPARSE_MAGIC), (0, ESX_MAGIC), (0, DESCRIPTOR_MAGIC))

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        if not _is_sparse(read):
            return _described(read(0, _MAX_DESCRIPTOR), file_size)
        header = _true_header(read, file_size)
        first = _check_grains(read, file_size, header, deadline)
        values = _embedded(read, header) if header.descriptor_offset else None
        return Image(
            header.capacity * SECTOR,
            cluster_size=header.grain * SECTOR,
            first_block=first,
            backing_file=_parent(values) if values else None,
            backing_format="vmdk",
            cid=_content_ids(values) if values is not None else None,
            mark="dirty" if header.unclean else None,
        )

    def references(self, read: Read, file_size: int) -> tuple[bytes, ...]:
        if _is_sparse(read):
            header = _true_header(read, file_size)
            parent = _parent(_embedded(read, header)) if header.descriptor_offset else None
            return (parent,) if parent else ()
        image = _described(read(0, _MAX_DESCRIPTOR), file_size)
        names = [extent.file for extent in image.extents]
        return (*names, image.backing_file) if image.backing_file else tuple(names)

    def check_whole(self, image: Image) -> None:
        if image.cid is None:
            raise PreflightError(
                "only a part of a disk, which another file describes",
                hint="scan the small .vmdk file beside it that names this one",
            )


def _is_sparse(read: Read) -> bool:
    """Whether it is a sparse file; else it is a descriptor."""
    head = read(0, len(DESCRIPTOR_MAGIC))
    if head.startswith(ESX_MAGIC):
        raise PreflightError(
            "an ESX sparse extent (COWD), which is not supported",
            hint="consolidate the machine's snapshots, or clone the disk with vmkfstools",
        )
    if head.startswith(SPARSE_MAGIC):
        return True
    _malformed.unless(head == DESCRIPTOR_MAGIC, "no header and no descriptor")
    return False


def _true_header(read: Read, file_size: int) -> _Header:
    """The header, or the footer where that holds what the header could not know."""
    header = _header(read, 0)
    if header.directory != _AT_END:
        return header
    _malformed.unless(file_size % SECTOR == 0, f"length {file_size}")
    return _header(read, max(0, file_size - _FOOTER_FROM_END))


def _embedded(read: Read, header: _Header) -> dict[str, bytes]:
    """The settings of a sparse file's own descriptor."""
    length = min(header.descriptor_size * SECTOR, _MAX_DESCRIPTOR)
    return _values(read(header.descriptor_offset * SECTOR, length))


def _header(read: Read, offset: int) -> _Header:
    data = read(offset, _HEADER.size)
    if len(data) < _HEADER.size or not data.startswith(SPARSE_MAGIC):
        raise PreflightError("truncated: its header or footer is missing")
    fields = _HEADER.unpack(data)
    version, flags, capacity, grain, text, length, entries = fields[1:8]
    _malformed.unless(1 <= version <= 3, f"version {version}")
    _malformed.unless(0 < capacity < 1 << 54, f"capacity {capacity}")
    _malformed.unless(0 < grain <= 1 << 17 and grain & (grain - 1) == 0, f"grain size {grain}")
    _malformed.unless(0 < entries <= 512, f"grain tables of {entries} entries")
    directory, unclean = fields[9], bool(fields[11])
    return _Header(version, flags, capacity, grain, text, length, entries, directory, unclean)


def _check_grains(read: Read, file_size: int, header: _Header, deadline: float) -> int | None:
    """Check that all grains are in the file, and return where the first is, if it is plain."""
    count = -(-header.capacity // (header.grain * header.entries))
    directory = NumberTable(header.directory * SECTOR, count)
    compressed = bool(header.flags & _COMPRESSED)
    absent = frozenset({0, 1} if header.flags & _ZERO_GRAINS else {0})
    taken = _taken(read, directory, header, deadline)
    first: int | None = None
    last = 0
    tables = itertools.chain.from_iterable(table_pieces(read, directory, _malformed, deadline))
    for index, table in enumerate(tables):
        if table:
            place = NumberTable(table * SECTOR, header.entries)
            found = read_blocks(read, place, absent, _malformed, deadline, taken)
            last = max(last, found.last or 0)
            first = found.first if index == 0 else first
    if last:
        tail = header.capacity % header.grain or header.grain
        check_end((last + (1 if compressed else tail)) * SECTOR, file_size)
    return None if first is None or compressed else first * SECTOR


def _taken(read: Read, directory: NumberTable, header: _Header, deadline: float) -> frozenset[int]:
    """Sectors of the grain directory and of the grain tables."""
    length = -(-header.entries * 4 // SECTOR)
    pieces = table_pieces(read, directory, _malformed, deadline)
    starts = itertools.islice(filter(None, itertools.chain.from_iterable(pieces)), _MOST_TABLES)
    tables = {sector for start in starts for sector in range(start, start + length)}
    end = header.directory - (-directory.entries * 4 // SECTOR)
    return frozenset(tables.union(range(header.directory, end)))


def _described(text: bytes, file_size: int) -> Image:
    """What a descriptor says."""
    _malformed.unless(file_size <= _MAX_DESCRIPTOR, f"descriptor of {file_size} bytes")
    values = _values(text)
    extents = tuple(_extents(text))
    _malformed.unless(bool(extents), "a descriptor without extents")
    if len(extents) > MAX_EXTENTS:
        raise PreflightError(
            f"a disk in {len(extents)} files, of which {MAX_EXTENTS} can be opened",
            hint="join them with: qemu-img convert -O qcow2",
        )
    return Image(
        sum(extent.sectors for extent in extents) * SECTOR,
        backing_file=_parent(values),
        backing_format="vmdk",
        cid=_content_ids(values),
        extents=extents,
    )


def _extents(text: bytes) -> Iterator[ExtentReference]:
    for line in text.splitlines():
        match = _EXTENT.match(line.strip())
        if match is None:
            continue
        access, sectors, kind, name, offset = match.groups()
        if access == b"NOACCESS" or kind not in (b"FLAT", b"VMFS", b"SPARSE") or not name:
            raise PreflightError(
                f"an extent of the kind {access.decode()} {kind.decode()}, which is not supported",
                hint="convert the disk with VMware's own vmkfstools or vmware-vdiskmanager",
            )
        length = int(sectors)
        _malformed.unless(0 < length < 1 << 50, f"extent of {length} sectors")
        sparse = kind == b"SPARSE"
        yield ExtentReference(
            "SPARSE" if sparse else "FLAT", length, name, 0 if sparse else int(offset or 0)
        )


def _values(text: bytes) -> dict[str, bytes]:
    """A descriptor's settings, by name in lower case; what follows a NUL is padding."""
    lines = text.partition(b"\0")[0].splitlines()
    matches = (_VALUE.fullmatch(line.strip()) for line in lines)
    return {match[1].decode().lower(): match[2] for match in matches if match}


def _content_ids(values: dict[str, bytes]) -> tuple[int, int]:
    """The content's id and that of the parent's content."""
    return _hexadecimal(values.get("cid")), _hexadecimal(values.get("parentcid"))


def _hexadecimal(text: bytes | None) -> int:
    try:
        return int(text, 16) & 0xFFFF_FFFF if text else NO_PARENT
    except ValueError:
        return NO_PARENT


def _parent(values: dict[str, bytes]) -> bytes | None:
    if _content_ids(values)[1] == NO_PARENT:
        return None
    name = values.get("parentfilenamehint")
    _malformed.unless(bool(name), "a parent without a name")
    return name


def describe(
    extents: Sequence[ExtentReference], cid: tuple[int, int], paths: Sequence[str]
) -> bytes:
    """A descriptor that names other files than the image's own does.

    Args:
        extents: what the disk is made of.
        cid: content and parent's content id, which QEMU compares along a chain.
        paths: the files to name, one an extent.
    """
    lines = [
        DESCRIPTOR_MAGIC.decode(),
        "version=1",
        f"CID={cid[0]:08x}",
        f"parentCID={cid[1]:08x}",
        # Any kind that has extents: QEMU looks at each extent's own.
        'createType="twoGbMaxExtentSparse"',
    ]
    for extent, path in zip(extents, paths, strict=True):
        offset = f" {extent.offset}" if extent.kind == "FLAT" else ""
        lines.append(f'RW {extent.sectors} {extent.kind} "{path}"{offset}')
    return ("\n".join(lines) + "\n").encode()


FORMAT = _Vmdk()
