"""``fleetscan inspect``: one machine, its facts printed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.appliance.host.scratch import scratch_directory
from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.options import OutputFormat, Verbose, absolute, examples
from fleetscan.scanner.cli.scan_options import takes_options
from fleetscan.scanner.options import ScanOptions

if TYPE_CHECKING:
    from fleetscan.scanner.store.staging import StagedMachine

Row = dict[str, Any]
"""A row by column name; ``Any`` stands for the values that Arrow gives."""

_EXAMPLES = examples(
    "fleetscan inspect -a debian12.qcow2",
    "fleetscan inspect -a os.img -a data.img --format raw --output json",
    "fleetscan inspect -a laptop.qcow2 --key all:file:laptop.key",
    "fleetscan inspect --directory /mnt --files none",
)


@app.command(epilog=_EXAMPLES)
@takes_options("inspect")
def inspect(
    *,
    disks: Annotated[
        list[Path] | None,
        typer.Option(
            "-a", metavar="DISK", help="A disk; may be repeated for a machine with several disks."
        ),
    ] = None,
    disk_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="Format of the disks; detected if not given."
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            callback=absolute,
            help="A mounted tree instead of disks; this host reads it, without a VM.",
        ),
    ] = None,
    options: ScanOptions,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """Inspect one machine and print its facts.

    JSON output is one object that maps the name of each fact table to the list of its rows.
    """
    from fleetscan.appliance import built
    from fleetscan.appliance.confinement import layers
    from fleetscan.appliance.doctor import require_programs_and_memory
    from fleetscan.scanner.preflight.deciding import FORMATS

    if bool(disks) == bool(directory):
        raise UsageError(
            "give either disks with -a or a tree with --directory",
            hint="for example: fleetscan inspect -a debian12.qcow2",
        )
    if disk_format not in (None, *FORMATS):
        known = ", ".join(FORMATS)
        raise UsageError(f"format {disk_format} is not supported", hint=f"give one of {known}")
    if directory is not None and not directory.is_dir():
        raise UsageError(
            f"{str(directory)!r} is not a directory",
            hint="give the folder where a system's root is mounted; -a inspects an image",
        )
    for disk in disks or ():
        _check_there(disk)
    if directory is None:
        layers.require(options.appliance.confinement)
        require_programs_and_memory()
        built.find()
    # Rows are kept on disk meanwhile: a machine may have millions of files.
    with scratch_directory("inspect") as folder:
        staged = _inspect(folder, disks or [], disk_format, directory, options)
        (_print_json if output_format is output.Output.JSON else _print_text)(staged)
        (machine,) = rows(staged, "machines")
    return exits.NOT_SCANNED if machine["outcome"] == "failed" else exits.FINE


def _check_there(disk: Path) -> None:
    if disk.is_dir():
        raise UsageError(
            f"{str(disk)!r} is a directory",
            hint="give its images with -a, inspect a mounted tree with --directory, or scan it",
        )
    if not disk.exists():
        raise UsageError(f"{str(disk)!r} does not exist", hint="give a disk image or block device")


def _inspect(
    folder: Path,
    disks: list[Path],
    disk_format: str | None,
    directory: Path | None,
    options: ScanOptions,
) -> StagedMachine:
    from fleetscan.appliance.ground.schema import escape
    from fleetscan.scanner.disk import Disk
    from fleetscan.scanner.inspect import inspect_directory, inspect_machine
    from fleetscan.scanner.sources.ova import machine_of
    from fleetscan.scanner.store.staging import MachineWriter, staged_machine

    machine_id = escape(str(directory) if directory else disks[0].name)
    named = tuple(Disk(str(disk.absolute()), disk_format) for disk in disks)
    with MachineWriter(folder, machine_id) as writer:
        if directory is not None:
            inspect_directory(directory, options, writer)
        else:
            inspect_machine(machine_of(machine_id, named, "-a"), options, writer)
        writer.commit({})
    staged = staged_machine(folder, machine_id)
    assert staged is not None  # noqa: S101 - it was committed just now
    return staged


def rows(staged: StagedMachine, table_name: str) -> Iterator[Row]:
    """A machine's rows of one table."""
    for batch in staged.batches(table_name):
        yield from batch.to_pylist()


def _print_json(staged: StagedMachine) -> None:
    from fleetscan.scanner.tables import load_tables

    for number, name in enumerate(load_tables()):
        sys.stdout.write(f"{',' if number else '{'}\n{output.json_text(name)}: ")
        for piece in output.json_array_pieces(rows(staged, name)):
            sys.stdout.write(piece)
    sys.stdout.write("\n}\n")


def _print_text(staged: StagedMachine) -> None:
    (machine,) = rows(staged, "machines")
    why = f": {machine['error']}" if machine["error"] else ""
    output.line(f"{machine['machine_id']}: {machine['outcome']}{why}")
    for table_name, columns in _SHOWN.items():
        found = [[row[column] for column in columns] for row in rows(staged, table_name)]
        if found:
            output.heading(f"{table_name.replace('_', ' ')}")
            output.table([column.replace("_", " ") for column in columns], found, indent="  ")
    _print_coverage(staged)


_SHOWN = {
    "disks": ("device", "path", "format", "virtual_size", "error"),
    "operating_systems": ("root", "product", "version", "architecture", "hostname"),
    "filesystems": ("device", "type", "label", "uuid", "size", "used", "error"),
    "mountpoints": ("root", "path", "device", "type", "mounted"),
}
"""Tables that are shown row by row, and the columns that are."""


def _print_coverage(staged: StagedMachine) -> None:
    """How much each other table holds, and which could not be had."""
    from fleetscan.scanner.scan_state import NOT_REACHED

    totals: dict[str, int] = {}
    problems = []
    unreached = 0
    for row in rows(staged, "coverage"):
        totals[row["table_name"]] = totals.get(row["table_name"], 0) + row["rows"]
        if (row["error"] or "").startswith(NOT_REACHED):
            unreached += 1  # all for the one reason that the first line gives
        elif row["status"] == "failed":
            problems.append((row["table_name"], row["root"], row["error"]))
    counted = [(name, count) for name, count in totals.items() if name not in _SHOWN and count]
    if counted:
        output.heading("rows")
        output.table(("table", "rows"), counted, indent="  ")
    if problems:
        output.heading("not gathered")
        output.table(("table", "root", "why"), problems, indent="  ")
    if unreached:
        output.heading(f"not reached: {unreached} tables")
