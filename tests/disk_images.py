"""Disk images and archives for tests, made byte by byte."""

from __future__ import annotations

import io
import struct
import tarfile
import uuid
import zlib
from collections.abc import Sequence
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
