"""Tasks of Windows' scheduler: their files, and what the registry's cache of tasks adds."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.scheduled_tasks import jobfile, taskxml
from fleetscan.scanner.tables.scheduled_tasks.spec import ScheduledTask

_CACHE = "Microsoft\\Windows NT\\CurrentVersion\\Schedule\\TaskCache"
_TREE, _TASKS = f"{_CACHE}\\Tree", f"{_CACHE}\\Tasks"
_DEPTH_LIMIT = 16

# Of a cached task: a number, then when it was registered and when it last ran.
_DYNAMIC = struct.Struct("<4xQQ")
# Of its actions: what begins the value and each of them. Found by those who looked at what
# Windows 7 to 11 write, there being no documentation.
_VERSION, _EXECUTE, _CALL = 3, 0x6666, 0x7777


@dataclass(frozen=True)
class Cached:
    """What the registry knows of a task.

    Attributes:
        name: its path in the scheduler's tree.
        last_run: when it last ran, microseconds since 1970.
        command: its actions.
    """

    name: str
    last_run: int | None
    command: str | None


def tasks(reader: Reader) -> Iterator[ScheduledTask]:
    """One row a task: of each file, then of those that only the registry has.

    Args:
        reader: of a Windows root; gets a note for whatever cannot be read.
    """
    root = reader.root
    wanted = [
        Want(_TREE, _DEPTH_LIMIT, ("id",)),
        Want(_TASKS, 1, ("dynamicinfo", "actions")),
    ]
    software = hives.read_system(root, "SOFTWARE", wanted, reader)
    known = cached(software)
    folder = f"{root.windows}/System32/Tasks"
    for path in _files(reader, folder, 0):
        name = path.removeprefix(folder).replace("/", "\\")
        entry = known.pop(name.lower(), None)
        content = reader.data(path, path)
        if content is None:
            continue
        try:
            task = taskxml.parse(content)
        except ValueError as error:
            reader.note(f"{path}: {error}", path)
            continue
        registered = entry is not None or not software.find(_TREE)
        yield _of_file(path, name, task, entry, registered=registered)
    yield from _jobs(reader)
    for entry in known.values():
        yield _of_registry(hives.system_hive(root, "SOFTWARE"), entry)


def _files(reader: Reader, folder: str, depth: int) -> Iterator[str]:
    """The files below a directory."""
    if depth > _DEPTH_LIMIT:
        reader.note(f"{folder}: too deep")
        return
    for path in reader.root.glob(folder):
        if reader.root.is_link(path):
            continue
        if reader.root.is_dir(path):
            yield from _files(reader, path, depth + 1)
        else:
            yield path


def _jobs(reader: Reader) -> Iterator[ScheduledTask]:
    for path in reader.root.glob(f"{reader.root.windows}/Tasks", "*.[jJ][oO][bB]"):
        content = reader.data(path, path)
        if content is None:
            continue
        try:
            job = jobfile.parse(content)
        except ValueError as error:
            reader.note(f"{path}: {error}", path)
            continue
        yield ScheduledTask(
            kind="windows",
            file=path,
            schedule=job.schedule,
            command=job.command,
            enabled=job.enabled,
        )


def _of_file(
    path: str, name: str, task: taskxml.TaskFile, entry: Cached | None, *, registered: bool
) -> ScheduledTask:
    return ScheduledTask(
        kind="windows",
        file=path,
        name=name,
        schedule=task.schedule,
        user=task.user,
        command=task.command or None,
        enabled=task.enabled and registered,
        elevated=task.elevated,
        last_run=entry.last_run if entry else None,
    )


def _of_registry(hive: str, entry: Cached) -> ScheduledTask:
    return ScheduledTask(
        kind="windows",
        file=hive,
        name=entry.name,
        schedule="",
        command=entry.command,
        enabled=True,
        last_run=entry.last_run,
    )


def cached(software: HiveKey) -> dict[str, Cached]:
    """The tasks that the registry knows, by their path in the scheduler's tree in lower case."""
    tree = software.find(_TREE)
    return {entry.name.lower(): entry for entry in _leaves(software, tree, "")} if tree else {}


def _leaves(software: HiveKey, key: HiveKey, path: str) -> Iterator[Cached]:
    if identifier := key.text("Id"):
        task = software.find(f"{_TASKS}\\{identifier}") or HiveKey("")
        yield Cached(path, last_run(task.data("DynamicInfo")), command(task.data("Actions")))
    for below in key.keys.values():
        yield from _leaves(software, below, f"{path}\\{below.name}")


def last_run(data: bytes) -> int | None:
    """When a task last ran, of its DynamicInfo; None for never, and for what is none."""
    return hives.filetime(_DYNAMIC.unpack_from(data)[1]) if len(data) >= _DYNAMIC.size else None


def command(data: bytes) -> str | None:
    """The actions of a cached task, as :func:`taskxml.parse` words them; None for none."""
    try:
        (version,) = struct.unpack_from("<H", data)
        _, at = _text(data, 2)
        actions = []
        while version == _VERSION and at < len(data):
            action, at = _action(data, at)
            actions.append(action)
    except (struct.error, ValueError):
        return None
    return "; ".join(actions) or None


def _action(data: bytes, at: int) -> tuple[str, int]:
    (kind,) = struct.unpack_from("<H", data, at)
    _, at = _text(data, at + 2)
    if kind == _EXECUTE:
        program, at = _text(data, at)
        arguments, at = _text(data, at)
        _, at = _text(data, at)
        return f"{program} {arguments}".rstrip(), at + 2
    if kind == _CALL:
        identifier = uuid.UUID(bytes_le=data[at : at + 16])
        argument, at = _text(data, at + 16)
        return f"com:{{{str(identifier).upper()}}} {argument}".rstrip(), at
    raise ValueError(f"unknown action {kind}")


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A text, before which its length in bytes stands; and what follows it."""
    (length,) = struct.unpack_from("<I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise ValueError("a string is cut off")
    return hives.utf16(data[at + 4 : end]), end
