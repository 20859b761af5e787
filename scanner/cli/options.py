"""Options that several commands share."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from fleetscan.appliance.confinement import Wanted
from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.cli import output


class Files(enum.StrEnum):
    """Which directory entries the ``files`` table keeps."""

    ALL = "all"
    NOTABLE = "notable"
    NONE = "none"


class Packages(enum.StrEnum):
    """Where packages of programming languages are looked for."""

    KNOWN = "known"
    ALL = "all"


class Bases(enum.StrEnum):
    """What becomes of images that others of their folder are based on."""

    LEAVE = "leave"
    SCAN = "scan"


_REGISTRY_KEY = re.compile(r"(?:HKLM\\(?:SOFTWARE|SYSTEM)|HKU)(?:\\[^\\]+)+", re.IGNORECASE)


def _registry_keys(keys: list[str] | None) -> list[str] | None:
    for key in keys or ():
        if not _REGISTRY_KEY.fullmatch(key):
            raise UsageError(
                f"{key!r} is not a registry key that fleetscan can list",
                hint="keys begin with HKLM\\SOFTWARE\\, HKLM\\SYSTEM\\, or HKU\\ for every user",
            )
    return keys


def absolute(path: Path | None) -> Path | None:
    """A path that means the same to workers, to plans, and to whoever resumes a run elsewhere."""
    return path and path.absolute()


Facts = Annotated[
    Path,
    typer.Option(
        "--facts",
        metavar="DIR",
        envvar="FLEETSCAN_FACTS",
        callback=absolute,
        help="The facts directory.",
    ),
]
RunId = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="The run to use; the newest if not given."),
]
OutputFormat = Annotated[
    output.Output, typer.Option("--output", help="Output for people (text) or programs (json).")
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        show_default=False,
        callback=output.configure,
        help="Log what happens, and show where errors come from; -vv logs more.",
    ),
]
FilesMode = Annotated[
    Files,
    typer.Option("--files", help="Which directory entries to list; see `fleetscan tables files`."),
]
PackagesMode = Annotated[
    Packages,
    typer.Option(
        "--packages",
        help="Search for packages of programming languages where their tools put them, or in all "
        "files (slow).",
    ),
]
RegistryKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--registry",
        metavar="KEY",
        callback=_registry_keys,
        help="Another Windows registry key to list, with everything below it; may be repeated.",
    ),
]
UsageDepth = Annotated[
    int,
    typer.Option(
        "--usage-depth",
        metavar="N",
        min=0,
        max=16,
        help="Depth down to which directory sizes are listed; see `fleetscan tables "
        "directory_usage`.",
    ),
]
Deadline = Annotated[
    float, typer.Option("--deadline", metavar="SECONDS", min=1, help="Time limit for one machine.")
]
Live = Annotated[
    bool,
    typer.Option(
        "--live", help="Read images even if they are in use; their rows are marked as torn."
    ),
]
Template = Annotated[
    bool,
    typer.Option(
        "--template/--no-template",
        help="Clone a booted appliance for each machine, or boot a new one each time (slower).",
    ),
]
Confinement = Annotated[
    Wanted,
    typer.Option(
        "--confinement",
        envvar="FLEETSCAN_CONFINEMENT",
        help="Layers of confinement that must hold for QEMU; see `fleetscan doctor`.",
    ),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="SELECTOR:file:PATH",
        help="A key for encrypted volumes; env:NAME or command:WORDS may replace file:PATH; "
        "SELECTOR is all, a UUID or a device; may be repeated.",
    ),
]
AllowedDirectories = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-dir",
        metavar="DIR",
        help="A directory where backing files may lie besides their image's own, and where links "
        "in a source may lead; may be repeated.",
    ),
]
BasesMode = Annotated[
    Bases,
    typer.Option(
        "--bases",
        help="Leave out images that others in their folder are based on, or scan them too.",
    ),
]
KeyCommands = Annotated[
    bool,
    typer.Option(
        "--allow-key-commands", help="Run the commands that inventories give for printing keys."
    ),
]
Packs = Annotated[
    list[str] | None,
    typer.Option(
        "--pack",
        metavar="NAME|DIR",
        help="A rule pack; may be repeated; all packs of fleetscan if not given.",
    ),
]


def examples(*lines: str) -> str:
    """A command's epilog: lines to begin with, shown as they are."""
    verbatim = "\b"  # click's mark for a paragraph that is not to be wrapped
    return "\n".join([verbatim, "Examples:", *(f"  {line}" for line in lines)])
