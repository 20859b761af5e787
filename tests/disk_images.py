"""Disk images and archives for tests, made byte by byte."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LINUX_DATA = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4").bytes_le
_MEBIBYTE = 1 << 20
_ENTRIES, _ENTRY_BYTES = 128, 128


def gpt_disk(path: Path, filesystem: Path, sector: int) -> Path:
    """A raw disk with a GUID partition table (UEFI specification, 5.3) and one partition.

    Args:
        path: the disk.
        filesystem: what the partition, which begins at 1 MiB, holds.
        sector: size of the disk's sectors, in bytes.
    """
    content = filesystem.read_bytes()
    sectors = (2 * _MEBIBYTE + len(content)) // sector
    first, last = _MEBIBYTE // sector, (_MEBIBYTE + len(content)) // sector - 1
    unique = uuid.UUID(int=7).bytes_le
    entry = struct.pack("<16s16sQQQ72s", LINUX_DATA, unique, first, last, 0, b"")
    entries = entry.ljust(_ENTRIES * _ENTRY_BYTES, b"\0")
    length = len(entries) // sector
    with path.open("wb") as stream:
        stream.truncate(sectors * sector)
        stream.seek(446)
        stream.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, sectors - 1))
        stream.seek(510)
        stream.write(b"\x55\xaa")
        stream.seek(sector)
        stream.write(_gpt_header(1, sectors - 1, 2, entries, sector))
        stream.seek(2 * sector)
        stream.write(entries)
        stream.seek(_MEBIBYTE)
        stream.write(content)
        stream.seek((sectors - 1 - length) * sector)
        stream.write(entries)
        stream.write(_gpt_header(sectors - 1, 1, sectors - 1 - length, entries, sector))
    return path


def _gpt_header(here: int, other: int, table: int, entries: bytes, sector: int) -> bytes:
    reserved = 2 + len(entries) // sector
    disk = uuid.UUID(int=9).bytes_le
    fields = [b"EFI PART", 0x10000, 92, 0, 0, here, other, reserved, max(here, other) - reserved]
    tail = [disk, table, _ENTRIES, _ENTRY_BYTES, zlib.crc32(entries)]
    layout = struct.Struct("<8sIIIIQQQQ16sQIII")
    fields[3] = zlib.crc32(layout.pack(*fields, *tail))
    return layout.pack(*fields, *tail).ljust(sector, b"\0")


def archive(
    path: Path,
    members: Sequence[Path],
    tar_format: int = tarfile.USTAR_FORMAT,
    descriptor: str = "<Envelope/>",
) -> Path:
    """An OVA archive: a descriptor and these files."""
    with tarfile.open(path, "w", format=tar_format) as tar:
        header = tarfile.TarInfo("machine.ovf")
        header.size = len(descriptor)
        tar.addfile(header, io.BytesIO(descriptor.encode()))
        for member in members:
            tar.add(member, member.name)
    return path


def leave_log(image: bytearray, zeroed: int = 8 << 20) -> None:
    """Give a vhdx a log that would have to be replayed, of one entry ([MS-VHDX], 2.3).

    Args:
        image: the file's content.
        zeroed: the page of the file that the entry fills with zeros, in bytes from its beginning.
    """
    guid = uuid.UUID(int=5).bytes_le
    for header in (64 << 10, 128 << 10):
        image[header + 48 : header + 64] = guid
        _checksum(image, header, 4096)
    (log,) = struct.unpack_from("<Q", image, (64 << 10) + 72)
    size = len(image)
    entry = struct.pack("<4sIIIQII16sQQ", b"loge", 0, 4096, 0, 1, 1, 0, guid, size, size)
    image[log : log + 4096] = bytes(4096)
    image[log : log + 96] = entry + struct.pack("<4sIQQQ", b"zero", 0, 4096, zeroed, 1)
    _checksum(image, log, 4096)


def _checksum(image: bytearray, start: int, length: int) -> None:
    image[start + 4 : start + 8] = bytes(4)
    checksum = _crc32c(image[start : start + length])
    image[start + 4 : start + 8] = struct.pack("<I", checksum)


def _crc32c(data: bytearray) -> int:
    register = 0xFFFF_FFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F6_3B78 if register & 1 else 0)
    return register ^ 0xFFFF_FFFF


_SECTOR = 512
_FILLER = b"\xee" * _SECTOR  # stands where an image keeps nothing of its own


@dataclass(frozen=True)
class Content:
    """What a differencing image holds: the disk, and what its parent shows of it.

    Attributes:
        disk: the content that a guest sees.
        below: what it would see of the parent alone; no longer than the disk.
    """

    disk: bytes
    below: bytes

    def blocks(self, size: int) -> Iterator[tuple[int, bytes, list[int]]]:
        """Blocks that differ: number, content, and the sectors in it that do.

        Sectors that are as the parent has them are filled with what must never be read.
        """
        for number in range(-(-len(self.disk) // size)):
            first = number * size
            sectors = [
                sector
                for sector in range(size // _SECTOR)
                if self._sector(self.disk, first, sector) != self._sector(self.below, first, sector)
            ]
            if sectors:
                kept = set(sectors)
                pieces = (
                    self._sector(self.disk, first, sector) if sector in kept else _FILLER
                    for sector in range(size // _SECTOR)
                )
                yield number, b"".join(pieces), sectors

    @staticmethod
    def _sector(content: bytes, first: int, sector: int) -> bytes:
        start = first + sector * _SECTOR
        return content[start : start + _SECTOR].ljust(_SECTOR, b"\0")


def differencing(path: Path, content: Content, parent: Path, name: str = "") -> Path:
    """An image that adds to another one, of the format that its suffix names.

    Args:
        path: the image.
        content: what it holds.
        parent: the parent, for its identity.
        name: the parent's file name, as the image has it; empty for its own.
    """
    if path.suffix == ".vdi":
        return differencing_vdi(path, content, parent)
    make = {".vhd": differencing_vhd, ".vhdx": differencing_vhdx}[path.suffix]
    return make(path, content, parent, name or parent.name)


def differencing_vhd(path: Path, content: Content, parent: Path, name: str) -> Path:
    """A vhd that adds to another one (Virtual Hard Disk Image Format Specification, 2006).

    Args:
        path: the image.
        content: what it holds.
        parent: the parent, for its identity.
        name: the parent's file name, as the image has it.
    """
    block, count = 2 * _MEBIBYTE, -(-len(content.disk) // (2 * _MEBIBYTE))
    with parent.open("rb") as stream:
        stream.seek(-512, io.SEEK_END)
        linked = stream.read()[68:84]
    relative = name.replace("/", "\\").encode("utf-16-le")
    table_at = 512 + 1024 + 1024
    offset = table_at + -(-count * 4 // 512) * 512
    entries, data = [0xFFFF_FFFF] * count, bytearray()
    for number, stored, sectors in content.blocks(block):
        entries[number] = (offset + len(data)) // 512
        data += _bits(sectors, 512, "big") + stored
    locator = struct.pack(">4sIIIQ", b"W2ru", 512, len(relative), 0, 512 + 1024)
    header = struct.pack(
        ">8sQQIIII16sII512s192s256x",
        *(b"cxsparse", (1 << 64) - 1, table_at, 0x10000, count, block, 0),
        *(linked, 0, 0, "elsewhere.vhd".encode("utf-16-be"), locator),
    )
    size, geometry = len(content.disk), struct.pack(">HBB", 1, 1, 1)
    footer = struct.pack(
        ">8sIIQI4sI4sQQ4sII16sB427x",
        *(b"conectix", 2, 0x10000, 512, 0, b"test", 0x10000, b"Wi2k"),
        *(size, size, geometry, 4, 0, uuid.uuid4().bytes, 0),
    )
    head = _summed(footer, 64) + _summed(header, 36) + relative.ljust(1024, b"\0")
    table = struct.pack(f">{count}I", *entries).ljust(offset - table_at, b"\xff")
    path.write_bytes(head + table + data + _summed(footer, 64))
    return path


def _summed(data: bytes, at: int) -> bytes:
    total = ~sum(data) & 0xFFFF_FFFF
    return data[:at] + struct.pack(">I", total) + data[at + 4 :]


def _bits(sectors: Sequence[int], length: int, order: str) -> bytes:
    """A bitmap of these sectors; in big order the first of them is a byte's highest bit."""
    bits = bytearray(length)
    for sector in sectors:
        bits[sector // 8] |= 0x80 >> sector % 8 if order == "big" else 1 << sector % 8
    return bytes(bits)


def differencing_vhdx(path: Path, content: Content, parent: Path, name: str) -> Path:
    """A vhdx that adds to another one ([MS-VHDX], 2.5.1 and 2.6.2.6), made of an empty one.

    Args:
        path: the image.
        content: what it holds.
        parent: the parent, for its identity.
        name: the parent's file name, as the image has it.
    """
    _create(path, "vhdx", len(content.disk), "block_size=1048576")
    image = bytearray(path.read_bytes())
    linked = uuid.UUID(bytes_le=parent.read_bytes()[_newest_header(parent) :][32:48])
    regions = {
        bytes(image[at : at + 16]): at for at in range((192 << 10) + 16, (192 << 10) + 80, 32)
    }
    (table_at,) = struct.unpack_from("<Q", image, regions[_VHDX_TABLE] + 16)
    (metadata,) = struct.unpack_from("<Q", image, regions[_VHDX_METADATA] + 16)
    _set_parent(image, metadata, {"parent_linkage": f"{{{linked}}}", "relative_path": name})
    bitmap_at = _end(image)
    image += bytes(_MEBIBYTE)
    for number, stored, sectors in content.blocks(_MEBIBYTE):
        whole = len(sectors) == _MEBIBYTE // _SECTOR
        zeros = whole and not any(stored)
        state = 2 if zeros else 6 if whole else 7
        struct.pack_into("<Q", image, table_at + number * 8, (0 if zeros else _end(image)) | state)
        if not zeros:
            image += stored
        at = bitmap_at + number * 256
        image[at : at + 256] = _bits(sectors, 256, "little")
    # 4096 payload blocks of 1 MiB each have one block of bitmaps.
    struct.pack_into("<Q", image, table_at + 4096 * 8, bitmap_at | 6)
    path.write_bytes(image)
    return path


_VHDX_TABLE = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_VHDX_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_LOCATOR_TYPE = uuid.UUID("b04aefb7-d19e-4a81-b789-25b8e9445913").bytes_le


def _newest_header(path: Path) -> int:
    """Offset of the header of a vhdx that counts."""
    data = path.read_bytes()[: 192 << 10]
    places = (64 << 10, 128 << 10)
    return max(places, key=lambda place: struct.unpack_from("<Q", data, place + 8)[0])


def _set_parent(image: bytearray, metadata: int, pairs: dict[str, str]) -> None:
    (count,) = struct.unpack_from("<H", image, metadata + 10)
    for number in range(count):
        item = metadata + 32 + number * 32
        if image[item : item + 16] == _FILE_PARAMETERS:
            (offset,) = struct.unpack_from("<I", image, item + 16)
            image[metadata + offset + 4] |= 2
    texts = [text.encode("utf-16-le") for pair in pairs.items() for text in pair]
    head = struct.pack("<16sHH", _LOCATOR_TYPE, 0, len(pairs))
    entries, place, values = b"", len(head) + 12 * len(pairs), b""
    for key, value in zip(texts[::2], texts[1::2], strict=True):
        entries += struct.pack("<IIHH", place, place + len(key), len(key), len(value))
        values += key + value
        place += len(key) + len(value)
    locator, offset = head + entries + values, 512 << 10
    image[metadata + offset : metadata + offset + len(locator)] = locator
    struct.pack_into("<H", image, metadata + 10, count + 1)
    entry = struct.pack("<16sIIII", _PARENT_LOCATOR, offset, len(locator), 4, 0)
    image[metadata + 32 + count * 32 : metadata + 64 + count * 32] = entry


def _end(image: bytearray) -> int:
    """The next place for a block, once the image reaches to it."""
    image += bytes(-len(image) % _MEBIBYTE)
    return len(image)


def differencing_vdi(path: Path, content: Content, parent: Path) -> Path:
    """A vdi that adds to another one, made of an empty one: VirtualBox keeps whole blocks.

    Args:
        path: the image.
        content: what it holds.
        parent: the parent, for its identity.
    """
    _create(path, "vdi", len(content.disk), "static=off")
    image = bytearray(path.read_bytes())
    table_at, data_at = struct.unpack_from("<II", image, 0x154)
    linked = parent.read_bytes()[0x188:0x198]
    struct.pack_into("<I", image, 0x4C, 4)
    image[0x1A8:0x1B8] = linked
    image = image[:data_at].ljust(data_at, b"\0")
    used = 0
    for number, _, _ in content.blocks(_MEBIBYTE):
        stored = content.disk[number * _MEBIBYTE : (number + 1) * _MEBIBYTE]
        place = used if any(stored) else 0xFFFF_FFFE  # zeros are not stored
        struct.pack_into("<I", image, table_at + number * 4, place)
        if any(stored):
            image += stored.ljust(_MEBIBYTE, b"\0")
            used += 1
    struct.pack_into("<I", image, 0x184, used)
    path.write_bytes(image)
    return path


def _create(path: Path, image_format: str, size: int, options: str) -> None:
    command = ["qemu-img", "create", "-q", "-f", image_format, "-o", options, str(path), str(size)]
    subprocess.run(command, check=True, timeout=60)
