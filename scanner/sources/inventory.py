r"""Inventory files: a list of machines with their disks, as YAML, JSON or CSV.

YAML and JSON hold a list of machines, or an object whose ``machines`` is that list::

    machines:
      - id: web01
        disks:
          - /srv/images/web01.qcow2
          - {path: data/web01.img, format: raw}

Keys for encrypted volumes are named, never given (see
:mod:`fleetscan.scanner.sources.volume_keys`). A command that prints one is run only where the
command line allows it (``--allow-key-commands``)::

      - id: web02
        disks: [web02.qcow2]
        keys: ["all:file:/etc/fleetscan/web02.key"]

What names the content of a machine's disks, such as the id of a snapshot or an image's checksum,
may be given as well. The machine is not scanned again while it stays the same, whatever the paths
are called and wherever they are; that serves block devices and dated snapshots, too::

      - id: db01
        disks: [/dev/vg0/db01-2026-01-31]
        identity: snapshot-4711

CSV has the columns ``id``, ``path`` and, if wanted, ``format``; one line a disk, the lines of
one machine in the order of its disks. Relative paths start from the inventory's own folder.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import pydantic
import pydantic_core

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner import bounded_yaml
from fleetscan.scanner.bounded_yaml import Parsed
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.preflight.deciding import FORMATS
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.sources.ova import machine_of
from fleetscan.scanner.sources.volume_keys import KeySource, parse_key


def _checked_key(text: str) -> str:
    parse_key(text, Path())
    return text


_SIZE_LIMIT = 64 << 20
"""Largest inventory read, in bytes: several hundred thousand machines."""


def _storable(text: str) -> str:
    os.fsencode(text)  # what no file name can have is a ValueError
    return text


def _openable(name: str) -> str:
    if name not in FORMATS:
        known = {"known": ", ".join(FORMATS)}
        raise pydantic_core.PydanticCustomError("format", "Input should be one of {known}", known)
    return name


_Text = Annotated[
    str,
    pydantic.StringConstraints(min_length=1, pattern=r"^[^\x00]*$"),
    pydantic.AfterValidator(_storable),
]
_MachineId = Annotated[
    str, pydantic.StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")
]

_Format = Annotated[str, pydantic.AfterValidator(_openable)]
_Key = Annotated[_Text, pydantic.AfterValidator(_checked_key)]


class DiskEntry(pydantic.BaseModel):
    """One disk: a path, or a path and the format to open it as."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    path: _Text
    format: _Format | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_path(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value


class MachineEntry(pydantic.BaseModel):
    """One machine of an inventory."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: _MachineId
    disks: list[DiskEntry] = pydantic.Field(min_length=1)
    keys: list[_Key] = []
    identity: _Text | None = None


class Inventory(pydantic.BaseModel):
    """A whole inventory."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    machines: list[MachineEntry]


_Where = tuple[int | str, ...]
"""Place of a value in a document: keys and list positions from its top."""

_LineOf = Callable[[_Where], int]
"""The line of a document that a place in it stands on, from 1."""

Model = TypeVar("Model", bound=pydantic.BaseModel)


def inventory_machines(source: str, *, key_commands: bool = False) -> list[Machine]:
    """The machines of an inventory file, in its order.

    Args:
        source: the file.
        key_commands: keys may be what a command prints.

    Raises:
        UsageError: it cannot be read, is malformed, or names a command for a key although that is
            not allowed; file and line are named.
    """
    path = Path(source)
    inventory, line_of = _inventory(path, _read(path))
    if not key_commands:
        _check_no_commands(inventory, path, line_of)
    base = path.absolute().parent
    return [
        machine_of(
            entry.id,
            _disks(entry.disks, base),
            source,
            keys=_keys(entry.keys, base),
            identity=entry.identity,
        )
        for entry in inventory.machines
    ]


def _inventory(path: Path, text: str) -> tuple[Inventory, _LineOf]:
    """What an inventory says, and where it says it."""
    if path.suffix.lower() == ".csv":
        data, lines = _parse_csv(path, text)
        line_of_csv = functools.partial(_csv_line, lines)
        return validated(Inventory, data, path, line_of_csv), line_of_csv
    is_json = path.suffix.lower() == ".json"
    parsed = _parse_json(path, text) if is_json else parsed_yaml(text, path)
    nested = isinstance(parsed.value, dict)

    def line_of(where: _Where) -> int:
        return parsed.line(where if nested else where[1:])

    whole = parsed.value if nested else {"machines": parsed.value}
    return validated(Inventory, whole, path, line_of), line_of


def _check_no_commands(inventory: Inventory, path: Path, line_of: _LineOf) -> None:
    for number, machine in enumerate(inventory.machines):
        for key, text in enumerate(machine.keys):
            if parse_key(text, Path()).kind == "command":
                line = line_of(("machines", number, "keys", key))
                raise UsageError(
                    f"{path}:{line}: a key of {machine.id!r} comes from a command, and inventories "
                    "may not run commands",
                    hint="if you trust the inventory, add --allow-key-commands",
                )


def _disks(entries: Iterable[DiskEntry], base: Path) -> tuple[Disk, ...]:
    return tuple(Disk(str(base / entry.path), entry.format) for entry in entries)


def _keys(texts: Iterable[str], base: Path) -> tuple[KeySource, ...]:
    return tuple(parse_key(text, base) for text in texts)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(_SIZE_LIMIT + 1)
        if len(data) > _SIZE_LIMIT:
            raise UsageError(f"{path}: larger than {_SIZE_LIMIT >> 20} MiB")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8 text") from error


def parsed_yaml(text: str, path: Path, *, typed: bool = True) -> Parsed:
    """What the text of a file says.

    Args:
        text: the text.
        path: the file.
        typed: as for :func:`bounded_yaml.parse`.

    Raises:
        UsageError: it is not YAML that is read here; file and line are named.
    """
    try:
        return bounded_yaml.parse(text, typed=typed)
    except bounded_yaml.RefusedError as error:
        raise UsageError(f"{path}:{error.line or 1}: {error}") from error


@dataclass(frozen=True)
class _Json:
    """A JSON document, which is searched for line numbers only when something is wrong."""

    text: str
    value: object

    def line(self, where: _Where) -> int:
        """As Parsed.line. YAML reads JSON, but refuses tabs between tokens."""
        try:
            return bounded_yaml.parse(self.text.replace("\t", " ")).line(where)
        except bounded_yaml.RefusedError as error:
            return error.line or 1


def _parse_json(path: Path, text: str) -> _Json:
    try:
        return _Json(text, json.loads(text))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{path}:{error.lineno}: not JSON: {error.msg}",
            hint="fleetscan scan --help shows an inventory",
        ) from error
    except ValueError as error:  # a number of thousands of digits
        raise UsageError(f"{path}: not JSON: {error}") from error
    except RecursionError as error:
        line = _Json(text, None).line(())
        raise UsageError(f"{path}:{line}: not JSON: nested too deeply") from error


def _parse_csv(path: Path, text: str) -> tuple[object, list[list[int]]]:
    """The inventory that a CSV file means, and for each machine the lines of its disks."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="extra")
    columns = set(reader.fieldnames or ())
    if not {"id", "path"} <= columns <= {"id", "path", "format"}:
        raise UsageError(
            f"{path}:1: the columns must be id, path and, if wanted, format",
            hint="the first line names the columns, separated by commas",
        )
    disks: dict[str, list[dict[str, object]]] = {}
    lines: dict[str, list[int]] = {}
    try:
        for row in reader:
            name = row.pop("id")
            disk = {key: value for key, value in row.items() if value != ""}
            disks.setdefault(name, []).append(disk)
            lines.setdefault(name, []).append(reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    machines = [{"id": name, "disks": rows} for name, rows in disks.items()]
    return {"machines": machines}, list(lines.values())


def validated(model: type[Model], data: object, path: Path, line_of: _LineOf) -> Model:
    """A document as its model has it.

    Args:
        model: what it must be.
        data: the document.
        path: its file.
        line_of: the line that a part of it stands on.

    Raises:
        UsageError: it is something else; file and line are named.
    """
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise UsageError(
            f"{path}:{line_of(first['loc'])}: {where or 'document'}: {first['msg']}{more}",
            hint="fleetscan scan --help shows an inventory",
        ) from error


def _csv_line(lines: Sequence[Sequence[int]], where: _Where) -> int:
    positions = [part for part in where if isinstance(part, int)]
    if not positions:
        return 1
    machine = lines[positions[0]]
    return machine[positions[1] if len(positions) > 1 else 0]
