"""The header and tables of a qcow2 image, read strictly and within bounds.

Everything here is read from a hostile file: each read has a fixed upper size, no table is
followed further than one step without a deadline, and nothing is computed from a field before
its range was checked. Layout and limits are those of QEMU's docs/interop/qcow2.txt.
"""

from __future__ import annotations

import array
import re
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight import qcow2_tables
from fleetscan.scanner.preflight.disk_format import Compared, DiskFormat
from fleetscan.scanner.preflight.image import Image, Malformed, Read, Snapshot
from fleetscan.scanner.preflight.qcow2_tables import COMPRESSED, OFFSET, Qcow2Tables, entries_of

MAGIC = b"QFI\xfb"

_V2_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_V3_HEADER = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")

_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_ENCRYPTION = 0x0537BE77

_AES, _LUKS = 1, 2  # crypt_method
_CRYPTO_HEADER = struct.Struct(">QQ")  # where the LUKS header is, and its length
_LUKS_HEADER = struct.Struct(">6sH160x40s")  # magic, version, UUID (LUKS1 on-disk format, 2.3)
_LUKS_MAGIC = b"LUKS\xba\xbe"
_UUID = re.compile(r"[0-9a-fA-F-]{36}")
_MAX_LUKS_BYTES = 64 << 20  # that of QEMU has 2 MiB

_DIRTY = 1 << 0  # refcounts may lag behind; reading does not need them
_CORRUPT = 1 << 1  # QEMU marks what it must not write to; reading is allowed
_DATA_FILE = 1 << 2
_COMPRESSION_TYPE = 1 << 3
_EXTENDED_L2 = 1 << 4
_KNOWN_FEATURES = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION_TYPE | _EXTENDED_L2

_MAX_L1_BYTES = 32 << 20  # QEMU's own limits (block/qcow2.h)
_MAX_REFTABLE_BYTES = 8 << 20
_MAX_NAME_BYTES = 1023
_MAX_SNAPSHOTS = 65536

_ZEROS = 1 << 0
_ALL_SUBCLUSTERS = (1 << 32) - 1  # all 32 of a cluster are stored, none reads as zeros

_SNAPSHOT = struct.Struct(">QIHHIIQII")
_MAX_SNAPSHOT_EXTRA = 1024
_MAX_SNAPSHOT_TABLE = 16 << 20  # bytes; a snapshot's entry has about a hundred

_malformed = Malformed("qcow2")


@dataclass(frozen=True)
class Qcow2Header:
    """The fields of a header that matter here; offsets and sizes in bytes.

    Attributes:
        snapshots: how many.
        backing_file: the name as it stands, not yet to be trusted; None without one.
        backing_format: what the header says the backing file's format is; None if it does not.
        luks: offset and length of the LUKS header of an encrypted image; None for others.
    """

    version: int
    cluster_bits: int
    virtual_size: int
    l1_offset: int
    l1_entries: int
    reftable_offset: int
    reftable_size: int
    refcount_bits: int
    snapshots: int
    snapshots_offset: int
    dirty: bool
    corrupt: bool
    extended_l2: bool
    backing_file: bytes | None
    backing_format: str | None
    luks: tuple[int, int] | None

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits


class _Qcow2(DiskFormat):
    name = driver = "qcow2"
    suffixes = (".qcow2", ".qcow")  # a .qcow may be of its first version, as the header says
    magics = ((0, MAGIC),)

    def read_image(self, read: Read, file_size: int, deadline: float) -> Image:
        header = parse_header(read, file_size)
        qcow2_tables.check(read, file_size, tables_of(header), seconds=deadline - time.monotonic())
        return Image(
            header.virtual_size,
            cluster_size=header.cluster_size,
            backing_file=header.backing_file,
            backing_format=header.backing_format,
            first_block=None if header.luks else _first_block(read, header),
            luks_uuid=_luks_uuid(read, *header.luks) if header.luks else None,
            snapshots=tuple(_snapshots(read, header)),
            mark="corrupt" if header.corrupt else "dirty" if header.dirty else None,
        )

    def references(self, read: Read, file_size: int) -> tuple[bytes, ...]:
        name = parse_header(read, file_size).backing_file
        return (name,) if name else ()

    # Any: values are whatever qemu-img says of a hostile image.
    def compared(self, image: Image, info: Mapping[str, Any]) -> Compared:
        size = ("cluster size", image.cluster_size, info.get("cluster-size"))
        return [size, *_backing_pair(image.backing_file, info)]


def parse_header(read: Read, file_size: int) -> Qcow2Header:
    """Read a header and check that each of its fields makes sense.

    Raises:
        PreflightError: it does not, the file is cut short, or it needs what is not supported:
            encryption of the old kind, an external data file, features that we do not know.
    """
    data = read(0, _V2_HEADER.size)
    if len(data) < _V2_HEADER.size:
        raise PreflightError("truncated: shorter than a qcow2 header")
    fields = _V2_HEADER.unpack(data)
    magic, version, backing_offset, backing_size, cluster_bits, size, crypt = fields[:7]
    l1_entries, l1_offset, reftable_offset, reftable_clusters, snapshots, snapshots_offset = fields[
        7:
    ]
    _require(magic == MAGIC, "no qcow2 header")
    if version not in (2, 3):
        raise PreflightError(
            f"qcow version {version} is not supported",
            hint="convert it with: qemu-img convert -f qcow -O qcow2" if version == 1 else "",
        )
    _require(9 <= cluster_bits <= 21, f"cluster size 2^{cluster_bits}")
    cluster_size = 1 << cluster_bits
    features, refcount_order, header_length = _v3_fields(read, version, cluster_size)
    _check_supported(features, crypt)

    header = Qcow2Header(
        version=version,
        cluster_bits=cluster_bits,
        virtual_size=size,
        l1_offset=l1_offset,
        l1_entries=l1_entries,
        reftable_offset=reftable_offset,
        reftable_size=reftable_clusters * cluster_size,
        refcount_bits=1 << refcount_order,
        snapshots=snapshots,
        snapshots_offset=snapshots_offset,
        dirty=bool(features & _DIRTY),
        corrupt=bool(features & _CORRUPT),
        extended_l2=bool(features & _EXTENDED_L2),
        backing_file=_backing_file(read, backing_offset, backing_size, header_length, cluster_size),
        backing_format=_backing_format(read, header_length, backing_offset or cluster_size),
        luks=_luks(read, header_length, backing_offset or cluster_size) if crypt == _LUKS else None,
    )
    if header.luks:
        _check_table("encryption header", *header.luks, cluster_size, file_size)
    _require(snapshots <= _MAX_SNAPSHOTS, f"{snapshots} snapshots")
    if snapshots:
        _check_table("snapshot table", snapshots_offset, 1, 8, file_size)
    _check_tables(header, file_size)
    return header


def _v3_fields(read: Read, version: int, cluster_size: int) -> tuple[int, int, int]:
    """Incompatible features, refcount order and header length."""
    if version == 2:
        return 0, 4, _V2_HEADER.size
    data = read(_V2_HEADER.size, _V3_HEADER.size)
    if len(data) < _V3_HEADER.size:
        raise PreflightError("truncated: shorter than a qcow2 header")
    features, _compatible, _autoclear, refcount_order, header_length = _V3_HEADER.unpack(data)
    _require(refcount_order <= 6, f"refcount order {refcount_order}")
    _require(
        104 <= header_length <= cluster_size and header_length % 8 == 0,
        f"header length {header_length}",
    )
    return features, refcount_order, header_length


def _check_supported(features: int, crypt: int) -> None:
    if crypt not in (0, _LUKS):
        kind = "AES, which was found insecure" if crypt == _AES else f"method {crypt}"
        raise PreflightError(
            f"encrypted ({kind}) in a way that QEMU no longer opens for virtual machines",
            hint="convert it with qemu-img to encrypt.format=luks, or scan a decrypted copy",
        )
    if features & _DATA_FILE:
        raise PreflightError(
            "keeps its data in an external file, which is refused",
            hint="if you trust whoever made the image, scan a copy made with qemu-img convert",
        )
    if unknown := features & ~_KNOWN_FEATURES:
        raise PreflightError(f"needs unknown qcow2 features (bits {unknown:#x})")


def _check_tables(header: Qcow2Header, file_size: int) -> None:
    entries = header.cluster_size // (16 if header.extended_l2 else 8)
    needed = -(-header.virtual_size // (header.cluster_size * entries))
    _require(header.virtual_size < 1 << 63, f"virtual size {header.virtual_size}")
    _require(header.l1_entries * 8 <= _MAX_L1_BYTES, f"{header.l1_entries} L1 entries")
    _require(
        header.l1_entries >= needed,
        f"{header.l1_entries} L1 entries for {header.virtual_size} bytes",
    )
    _require(
        0 < header.reftable_size <= _MAX_REFTABLE_BYTES,
        f"refcount table of {header.reftable_size} bytes",
    )
    if header.l1_entries:
        _check_table(
            "L1 table", header.l1_offset, header.l1_entries * 8, header.cluster_size, file_size
        )
    _check_table(
        "refcount table",
        header.reftable_offset,
        header.reftable_size,
        header.cluster_size,
        file_size,
    )


def _check_table(name: str, offset: int, length: int, alignment: int, file_size: int) -> None:
    _require(offset > 0 and offset % alignment == 0, f"{name} at {offset}")
    if offset + length > file_size:
        raise PreflightError(f"truncated: its {name} lies beyond the end of the file")


def _backing_file(
    read: Read, offset: int, length: int, header_length: int, cluster_size: int
) -> bytes | None:
    if not offset or not length:
        return None
    _require(length <= _MAX_NAME_BYTES, f"backing file name of {length} bytes")
    _require(
        header_length <= offset and offset + length <= cluster_size,
        f"backing file name at {offset}",
    )
    name = read(offset, length)
    if len(name) < length:
        raise PreflightError("truncated: its backing file name lies beyond the end of the file")
    _require(b"\0" not in name, "backing file name with a NUL byte")
    return name


def _backing_format(read: Read, start: int, end: int) -> str | None:
    """The backing format extension among the header extensions in [start, end)."""
    found = _extension(read, start, end, _EXTENSION_BACKING_FORMAT)
    if found is None:
        return None
    offset, length = found
    _require(length <= 15, f"backing format name of {length} bytes")
    return read(offset, length).decode("ascii", "backslashreplace")


def _luks(read: Read, start: int, end: int) -> tuple[int, int]:
    """Offset and length of the LUKS header, from the extension that must be there."""
    offset, length = _extension(read, start, end, _EXTENSION_ENCRYPTION) or (0, 0)
    _require(length == _CRYPTO_HEADER.size, f"encryption header extension of {length} bytes")
    data = _malformed.whole(read(offset, length), length, "encryption header extension")
    place, size = _CRYPTO_HEADER.unpack(data)
    _require(_LUKS_HEADER.size <= size <= _MAX_LUKS_BYTES, f"encryption header of {size} bytes")
    return place, size


def _luks_uuid(read: Read, offset: int, _length: int) -> str:
    data = _malformed.whole(read(offset, _LUKS_HEADER.size), _LUKS_HEADER.size, "LUKS header")
    magic, version, uuid = _LUKS_HEADER.unpack(data)
    _require(magic == _LUKS_MAGIC and version == 1, "no LUKS header where it should be")
    text: str = uuid.partition(b"\0")[0].decode("ascii", "backslashreplace")
    _require(_UUID.fullmatch(text) is not None, f"LUKS header with the UUID {text!r}")
    return text


def _extension(read: Read, start: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Where the content of a header extension in [start, end) is, and its length."""
    offset = start
    while offset + _EXTENSION.size <= end:
        data = read(offset, _EXTENSION.size)
        if len(data) < _EXTENSION.size:
            return None
        kind, length = _EXTENSION.unpack(data)
        if kind == _EXTENSION_END:
            return None
        offset += _EXTENSION.size
        _require(length <= end - offset, f"header extension of {length} bytes")
        if kind == wanted:
            return offset, length
        offset += -(-length // 8) * 8
    return None


def tables_of(header: Qcow2Header) -> Qcow2Tables:
    """Where a header says that the image's tables are."""
    return Qcow2Tables(
        cluster_bits=header.cluster_bits,
        l1=(header.l1_offset, header.l1_entries * 8),
        reftable=(header.reftable_offset, header.reftable_size),
        refcount_bits=header.refcount_bits,
        extended=header.extended_l2,
        stale=header.dirty,
        others=(header.luks,) if header.luks else (),
    )


def _first_block(read: Read, header: Qcow2Header) -> int | None:
    """Where the disk begins, if it is stored as it is."""
    width = 16 if header.extended_l2 else 8
    table = next(iter(entries_of(read(header.l1_offset, 8))), 0) & OFFSET
    entries = entries_of(read(table, width)) if table else array.array("Q")
    if not entries or entries[0] & (COMPRESSED | _ZEROS):
        return None
    if header.extended_l2 and (len(entries) < 2 or entries[1] != _ALL_SUBCLUSTERS):
        return None
    return entries[0] & OFFSET or None


def _backing_pair(name: bytes | None, info: Mapping[str, Any]) -> Compared:
    try:
        ours = name.decode() if name else None
    except UnicodeDecodeError:
        return []  # JSON cannot carry it; the name is still resolved by us alone
    return [("backing file", ours, info.get("backing-filename"))]


def _snapshots(read: Read, header: Qcow2Header) -> Iterator[Snapshot]:
    offset = header.snapshots_offset
    for number in range(header.snapshots):
        what = f"snapshot {number + 1}"
        head = _malformed.whole(read(offset, _SNAPSHOT.size), _SNAPSHOT.size, what)
        fields = _SNAPSHOT.unpack(head)
        id_length, name_length, seconds, nanoseconds, _, state_size, extra_length = fields[2:]
        _require(extra_length <= _MAX_SNAPSHOT_EXTRA, f"{what} with {extra_length} extra bytes")
        offset += _SNAPSHOT.size
        length = extra_length + id_length + name_length
        total = offset + length - header.snapshots_offset
        _require(total <= _MAX_SNAPSHOT_TABLE, f"snapshot table of more than {total} bytes")
        data = _malformed.whole(read(offset, length), length, what)
        if extra_length >= 8:
            state_size = int.from_bytes(data[:8])
        name = data[extra_length:]
        yield Snapshot(
            id=name[:id_length],
            name=name[id_length:],
            created_ns=seconds * 1_000_000_000 + nanoseconds,
            state_size=state_size,
            virtual_size=int.from_bytes(data[8:16]) if extra_length >= 16 else None,
        )
        offset += -(-(_SNAPSHOT.size + length) // 8) * 8 - _SNAPSHOT.size


def _require(condition: bool, what: str) -> None:
    _malformed.unless(condition, what)


FORMAT = _Qcow2()
