"""Every change to the store's directory tree; the rest of the store only reads and names paths.

A run has one owner at a time (`fleetscan.scanner.store.lease`); nothing else needs a lock. Names
are deterministic, files and directories appear under their names complete or not at all, by a
rename, and whoever writes the same thing twice writes it equally. That holds for any number of
processes and hosts on one POSIX directory, NFS included.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleetscan.appliance.ground.errors import ADVICE, FleetscanError, StoreError
from fleetscan.appliance.host import writing
from fleetscan.appliance.host.printable import printable


@contextlib.contextmanager
def store_errors(doing: str, *, hint: str = "") -> Iterator[None]:
    """Turn what the system or Arrow raise inside the block into a StoreError.

    Args:
        doing: what the block does, as in "reading /facts/runs/x.json".
        hint: what the user can do about it.
    """
    try:
        yield
    except FleetscanError:  # some are ValueErrors, and say more than could be said here
        raise
    except OSError as error:
        reason = error.strerror or printable(str(error))
        advice = hint or ADVICE.get(error.errno or 0, "")
        raise StoreError(f"{doing} failed: {reason}", hint=advice) from error
    except (pa.ArrowException, ValueError, RecursionError) as error:
        raise StoreError(f"{doing} failed: {printable(str(error))}", hint=hint) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """A file that appears as :func:`~fleetscan.appliance.host.writing.replacing` says.

    Its directory is made if missing, and on disk before the file is.

    Raises:
        OSError: the directory is not writable, or full.
    """
    writing.make_directory(path.parent, durable=True)
    with writing.replacing(path) as stream:
        yield stream


def check_writable(directory: Path) -> None:
    """Make sure, before work whose fruits go there is done, that files can be made in a directory.

    Args:
        directory: the directory; the nearest that is there counts when it is not.

    Raises:
        StoreError: they cannot.
    """
    here = next(folder for folder in (directory, *directory.parents) if folder.exists())
    with store_errors(f"writing to {here}"):
        trial = writing.temporary_beside(here / "trial")
        writing.new_file(trial).close()
        trial.unlink()


def write_json(path: Path, content: Mapping[str, object], *, only_there: bool = False) -> None:
    """Write a small file atomically and durably.

    Args:
        path: the file.
        content: what goes into it.
        only_there: its directory must be there, and is not made.

    Raises:
        StoreError: it could not be written.
    """
    text = json.dumps(content, indent=1) + "\n"
    replaced = writing.replacing if only_there else replacing
    with store_errors(f"writing {path}"), replaced(path) as stream:
        stream.write(text.encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote; Any because JSON has no types of ours.

    Raises:
        StoreError: the file is missing or damaged.
    """
    with store_errors(f"reading {path}"):
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        return content


def renamed(source: Path, target: Path) -> None:
    """Give a file that is on disk another name on the same filesystem.

    The new name is on disk after :func:`flush_directory`.

    Raises:
        StoreError: it could not be moved.
    """
    with store_errors(f"writing {target}"):
        writing.make_directory(target.parent, durable=True)
        source.replace(target)


def give_name(source: Path, target: Path) -> None:
    """Give a file that is on disk a second name, which nothing has; or a copy, where it has to be.

    The new name is on disk after :func:`flush_directory`.

    Raises:
        StoreError: it could not be done.
    """
    with store_errors(f"writing {target}"):
        writing.make_directory(target.parent, durable=True)
        try:
            target.hardlink_to(source)
        except OSError:  # not every filesystem has links
            with source.open("rb") as content, replacing(target) as stream:
                shutil.copyfileobj(content, stream)


def flush_directory(path: Path) -> None:
    """Force the names in a directory to disk.

    Raises:
        StoreError: it could not be done.
    """
    with store_errors(f"writing {path}"):
        writing.flush_directory(path)


def replace_tree(source: Path, target: Path) -> None:
    """Rename a directory to a name that may be taken by an earlier version of it.

    The earlier one goes first. Whoever looks meanwhile must take what is left of it for none.

    Raises:
        OSError: as rename(2).
    """
    while True:
        try:
            source.rename(target)
        except OSError:
            if not target.exists():
                raise
            remove_tree(target)
        else:
            return


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it; nothing happens where there is none.

    Raises:
        StoreError: it could not be removed.
    """
    with store_errors(f"removing {path}"):
        while path.exists():
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it too
                shutil.rmtree(path)
