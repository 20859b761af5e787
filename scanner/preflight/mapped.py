"""Images that QEMU does not read by itself, shown to it as sparse vmdk files.

QEMU reads no vhd, vhdx or vdi that adds to a parent. It does read a sparse vmdk on top of another,
and such a file is little more than a table that says where each piece of a disk is, by the
sector. So of every image of a differencing chain the table is made here (:func:`head`) and put
before the image's own file, which stays as it is; QEMU joins the two.

Layout: VMware's "Virtual Disk Format 5.0" technical note, sections "Hosted sparse extents".
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Callable, Iterator

from fleetscan.appliance.ground.errors import PreflightError
from fleetscan.scanner.preflight.image import SECTOR, DiskStretch, Runs

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_ZERO_GRAINS = 1 << 2
_ENTRIES = 512  # of a table
_TABLE_SECTORS = _ENTRIES * 4 // SECTOR
_DESCRIPTOR_SECTORS = 20  # where QEMU looks for the content id: sectors 1 to 20
_ZERO = 1
_DIRECTORY_AT = 1 + _DESCRIPTOR_SECTORS
_MAX_GRAIN = 1 << 12  # sectors
_MAX_HEAD_BYTES = 64 << 20  # as of other tables
_MAX_SECTORS = 1 << 32  # places in a table have 32 bits


def head(size: int, file_size: int, cid: tuple[int, int], runs: Callable[[], Runs]) -> bytes:
    """What put before an image's file makes a sparse vmdk of both.

    Args:
        size: of the disk, in bytes.
        file_size: of the file, in bytes.
        cid: content and parent's content id, which QEMU compares along a chain.
        runs: the stretches of the disk that the image decides on; read three times.

    Raises:
        PreflightError: the tables would become too large, or the file is.
    """
    sectors, file_sectors = -(-size // SECTOR), file_size // SECTOR
    grain = _grain(runs(), sectors)
    count = -(-sectors // (grain * _ENTRIES))
    used = len({number for run in runs() for number in _numbers(run, grain)})
    tables_at = _DIRECTORY_AT + -(-count * 4 // SECTOR)
    length = tables_at + used * _TABLE_SECTORS
    if length * SECTOR > _MAX_HEAD_BYTES:
        raise PreflightError(
            "its differences from its parent are too finely spread to be read",
            hint="merge it with its parent",
        )
    if length + file_sectors >= _MAX_SECTORS:
        raise PreflightError("differencing images of 2 TiB or more are not read")
    directory, tables = array.array("I", bytes(4 * count)), bytearray()
    for number, table in _tables(runs(), grain, length, file_sectors):
        directory[number] = tables_at + len(tables) // SECTOR
        tables += _little(table)
    parts = (_header(sectors, grain, length), _descriptor(cid, sectors), _little(directory))
    return b"".join(parts).ljust(tables_at * SECTOR, b"\0") + tables


def _grain(runs: Runs, sectors: int) -> int:
    """Sectors of the largest pieces that no stretch begins or ends within."""
    edges = _MAX_GRAIN
    for run in runs:
        end = run.start + run.sectors
        edges |= run.start | (end if end < sectors else 0)
    return edges & -edges


def _numbers(run: DiskStretch, grain: int) -> range:
    """Numbers of the tables that have entries for a stretch."""
    covered = grain * _ENTRIES
    return range(run.start // covered, (run.start + run.sectors - 1) // covered + 1)


def _tables(
    runs: Runs, grain: int, before: int, file_sectors: int
) -> Iterator[tuple[int, array.array[int]]]:
    """Each table that has an entry, with its number, in order.

    Args:
        runs: the stretches, in order.
        grain: sectors of a piece.
        before: sectors before the image's file.
        file_sectors: the file's length.
    """
    current, table = -1, array.array("I")
    for run in runs:
        if run.place is not None and run.place + run.sectors > file_sectors:
            raise PreflightError("truncated: data lies beyond the end of the file")
        for number in _numbers(run, grain):
            if number != current:
                if table:
                    yield current, table
                current, table = number, array.array("I", bytes(4 * _ENTRIES))
            _fill(table, number * _ENTRIES, run, grain, before)
    if table:
        yield current, table


def _fill(table: array.array[int], first: int, run: DiskStretch, grain: int, before: int) -> None:
    """Set a table's entries for a stretch, of which others may hold a part.

    Args:
        table: the entries.
        first: number of its first piece.
        run: the stretch.
        grain: sectors of a piece.
        before: sectors before the image's file.
    """
    start = max(run.start // grain, first)
    end = min(-(-(run.start + run.sectors) // grain), first + _ENTRIES)
    if run.place is None:
        entries = array.array("I", [_ZERO]) * (end - start)
    else:
        place = before + run.place + start * grain - run.start
        entries = array.array("I", range(place, place + (end - start) * grain, grain))
    table[start - first : end - first] = entries


def _header(sectors: int, grain: int, length: int) -> bytes:
    head = (b"KDMV", 1, _ZERO_GRAINS, sectors, grain, 1, _DESCRIPTOR_SECTORS, _ENTRIES)
    return _HEADER.pack(*head, 0, _DIRECTORY_AT, length, 0, b"\n \r\n", 0).ljust(SECTOR, b"\0")


def _descriptor(cid: tuple[int, int], sectors: int) -> bytes:
    lines = (
        "# Disk DescriptorFile",
        "version=1",
        f"CID={cid[0]:08x}",
        f"parentCID={cid[1]:08x}",
        'createType="monolithicSparse"',
        f'RW {sectors} SPARSE "disk.vmdk"',
        "",
    )
    return "\n".join(lines).encode().ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0")


def _little(numbers: array.array[int]) -> bytes:
    if sys.byteorder != "little":
        numbers.byteswap()
    return numbers.tobytes()
