"""Files that hold a disk in a way that nothing here reads: compressed, archived, acquired.

Read as raw they would end as "no operating system found". They are
recognised by their first bytes, or the trailer of an Apple image, and by what those must agree
with; and only where no boot sector or partition table says that the file is a raw disk. A guest can
write such bytes into its own raw disk: its machine then fails, and the error says why.

Signatures: gzip RFC 1952; zstd RFC 8878; xz "The .xz File Format" 1.2.1; bzip2, 7z, lzip, lzop, LZ4
and Z by their own descriptions; zip PKWARE's APPNOTE 6.3.10; RAR "RAR 5.0 archive format"; tar
POSIX.1-2017 "pax"; EWF and its second version, Apple's images (UDIF, sparse): Joachim Metz,
documentation of libewf and libmodi; AFF and AD1: file(1)'s magic; Android's sparse images:
libsparse's sparse_format.h; WIM: Microsoft's "Windows Imaging File Format"; Bochs: QEMU's
block/bochs.c; partclone: its IMAGE_FORMATS.md.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight import ova_members
from fleetscan.scanner.preflight.image import Read

_HEAD_BYTES = 512
_BOOT_SIGNATURE = b"\x55\xaa"  # ends the first sector of a disk that has partitions or boots
_GPT_SIGNATURE, _GPT_PLACES = b"EFI PART", (512, 4096)
_KOLY = struct.Struct(">4sII")  # signature, version, length
_KOLY_BYTES, _KOLY_XML_LENGTH = 512, 224

_COMPRESSED_SUFFIXES = frozenset(
    {".gz", ".xz", ".zst", ".zstd", ".bz2", ".lz4", ".lzo", ".lz", ".z", ".zip", ".7z", ".rar"}
)
CONTAINER_SUFFIXES = frozenset({".e01", ".ex01", ".aff", ".ad1", ".dmg", ".sparseimage", ".asif"})
"""Suffixes, in lower case, that name nothing but a disk in a container."""


@dataclass(frozen=True)
class _Container:
    magic: bytes
    name: str
    todo: str
    agrees: Callable[[bytes], bool] = lambda _head: True


def _uint(head: bytes, offset: int, length: int = 4) -> int:
    return int.from_bytes(head[offset : offset + length], "little")


def _xz_agrees(head: bytes) -> bool:
    return _uint(head, 8) == zlib.crc32(head[6:8])


def _7z_agrees(head: bytes) -> bool:
    return head[6] == 0 and _uint(head, 8) == zlib.crc32(head[12:32])


def _bzip2_agrees(head: bytes) -> bool:
    return head[3:4] in b"123456789" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90")


def _sparse_agrees(head: bytes) -> bool:
    return _uint(head, 4, 2) == 1 and _uint(head, 8, 2) == 28


_EWF = "ewfexport, which makes a raw disk of it"
_MAC = "hdiutil convert -format UDTO on a Mac, which makes a raw disk of it"

_CONTAINERS = (
    _Container(b"\x1f\x8b\x08", "gzip-compressed", "gunzip -k", lambda h: not h[3] & 0xE0),
    _Container(b"\xfd7zXZ\0", "xz-compressed", "unxz -k", _xz_agrees),
    _Container(b"\x28\xb5\x2f\xfd", "zstd-compressed", "unzstd", lambda h: not h[4] & 8),
    _Container(b"BZh", "bzip2-compressed", "bunzip2 -k", _bzip2_agrees),
    _Container(b"\x04\x22\x4d\x18", "LZ4-compressed", "unlz4", lambda h: h[4] >> 6 == 1),
    _Container(b"\x02\x21\x4c\x18", "LZ4-compressed", "unlz4"),
    _Container(b"\x89LZO\0\r\n\x1a\n", "lzop-compressed", "lzop -d"),
    _Container(b"LZIP\x01", "lzip-compressed", "lzip -dk"),
    _Container(b"\x1f\x9d", "compressed (Z)", "gunzip -k", lambda h: 9 <= h[2] & 0x1F <= 16),
    _Container(b"PK\x03\x04", "a zip archive", "unzip", lambda h: _uint(h, 8, 2) <= 99),
    _Container(b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x", _7z_agrees),
    _Container(b"Rar!\x1a\x07\x00", "a RAR archive", "unrar x"),
    _Container(b"Rar!\x1a\x07\x01\x00", "a RAR archive", "unrar x"),
    _Container(b"EVF\x09\r\n\xff\0", "an EnCase image (E01)", _EWF),
    _Container(b"EVF2\r\n\x81\0", "an EnCase image (Ex01)", _EWF),
    _Container(b"LVF\x09\r\n\xff\0", "EnCase logical evidence (L01)", "ewfexport -f files"),
    _Container(b"LEF2\r\n\x81\0", "EnCase logical evidence (Lx01)", "ewfexport -f files"),
    _Container(b"AFF10\r\n\0", "an AFF image", "affconvert -r, which makes a raw disk of it"),
    _Container(b"ADSEGMENTEDFILE\0", "an AccessData image (AD1)", "FTK Imager"),
    _Container(b"encrcdsa", "an encrypted Apple disk image", _MAC),
    _Container(b"sprs\0\0\0\x03", "an Apple sparse image", _MAC),
    _Container(b"shdw\0\0\0\x01\0\0\x02\0", "an Apple sparse image (ASIF)", _MAC),
    _Container(b"\x3a\xff\x26\xed", "an Android sparse image", "simg2img", _sparse_agrees),
    _Container(b"MSWIM\0\0\0\xd0\0\0\0", "a Windows image (WIM)", "wimapply, into a disk"),
    _Container(b"partclone-image", "a partclone image", "partclone.restore, into a raw disk"),
    _Container(b"Bochs Virtual HD Image", "a Bochs image", "qemu-img convert -f bochs -O qcow2"),
)


def refuse(read: Read, file_size: int) -> None:
    """Refuse a file that holds a disk only once something was done to it.

    Args:
        read: reads the file.
        file_size: in bytes.

    Raises:
        PreflightError: it is such a file; it says of which kind, and what to do.
    """
    head = read(0, _HEAD_BYTES)
    if len(head) < 32 or _is_disk(read, head):
        return
    for container in _CONTAINERS:
        if head.startswith(container.magic) and container.agrees(head):
            raise _named(container.name, container.todo)
    if head[257:262] == b"ustar" and ova_members.is_sound(head):
        raise _named("a tar archive", "tar -xf; one that follows the OVF standard is named .ova")
    if _is_udif(read, file_size):
        raise _named("an Apple disk image (dmg)", "dmg2img, which makes a raw disk of it")


def is_named(name: str, image_suffixes: frozenset[str]) -> bool:
    """Whether a file's name says that it holds a disk in such a way.

    Args:
        name: the file's, without its folder.
        image_suffixes: those of disks; what was compressed counts only if it had one of them, as
            "logs.tar.gz" is no machine.
    """
    stem, _, last = name.lower().rpartition(".")
    if f".{last}" in CONTAINER_SUFFIXES:
        return bool(stem)
    _, dot, inner = stem.rpartition(".")
    return f".{last}" in _COMPRESSED_SUFFIXES and dot + inner in image_suffixes


def _is_disk(read: Read, head: bytes) -> bool:
    tables = (read(place, len(_GPT_SIGNATURE)) for place in _GPT_PLACES)
    return head[510:512] == _BOOT_SIGNATURE or _GPT_SIGNATURE in tables


def _is_udif(read: Read, file_size: int) -> bool:
    """Whether it ends with an Apple image's trailer that lists blocks, which plain ones do not."""
    trailer = read(max(0, file_size - _KOLY_BYTES), _KOLY_BYTES)
    if len(trailer) < _KOLY_BYTES or _KOLY.unpack_from(trailer) != (b"koly", 4, _KOLY_BYTES):
        return False
    place, length = struct.unpack_from(">QQ", trailer, _KOLY_XML_LENGTH - 8)
    return bool(length) and bool(place + length <= file_size)


def _named(name: str, todo: str) -> PreflightError:
    return PreflightError(
        f"is {name}, which cannot be read as it is",
        hint=f"use {todo}; if it is a raw disk that happens to begin like this, state format raw",
    )
