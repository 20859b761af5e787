"""Options that several commands share."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import typer

from appliance.confinement import Wanted
from scanner.cli import output
from scanner.errors import UsageError


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
                f"{key!r} is no registry key that can be listed",
                hint="begin with HKLM\\SOFTWARE\\, HKLM\\SYSTEM\\, or HKU\\ for every user",
            )
    return keys


Facts = Annotated[
    Path,
    typer.Option(
        "--facts", metavar="DIR", envvar="FLEETSCAN_FACTS", help="The directory that holds facts."
    ),
]
RunId = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="The run; the newest if not given.")
]
OutputFormat = Annotated[output.Output, typer.Option("--output", help="For people or programs.")]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        show_default=False,
        callback=output.configure,
        help="Say what happens, and how errors came about; -vv says more.",
    ),
]
FilesMode = Annotated[
    Files, typer.Option("--files", help="Which directory entries to list: see `tables files`.")
]
PackagesMode = Annotated[
    Packages,
    typer.Option(
        "--packages",
        help="Look for languages' packages where their tools put them, or in all files: dear.",
    ),
]
RegistryKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--registry",
        metavar="KEY",
        callback=_registry_keys,
        help="A Windows registry key to list as well, with all below it; may be repeated.",
    ),
]
UsageDepth = Annotated[
    int,
    typer.Option(
        "--usage-depth",
        metavar="N",
        min=0,
        max=16,
        help="Add up what directories hold down to this depth: see `tables directory_usage`.",
    ),
]
Deadline = Annotated[
    float, typer.Option("--deadline", metavar="SECONDS", min=1, help="Most time for one machine.")
]
Live = Annotated[
    bool, typer.Option("--live", help="Read images in use; their rows are marked as torn.")
]
Template = Annotated[
    bool,
    typer.Option(
        "--template/--no-template",
        help="Clone the host's booted appliance for each machine, or boot it anew each time.",
    ),
]
Confinement = Annotated[
    Wanted,
    typer.Option(
        "--confinement",
        envvar="FLEETSCAN_CONFINEMENT",
        help="Layers of confinement that must hold for QEMU: see `fleetscan doctor`.",
    ),
]
Keys = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="SELECTOR:file:PATH",
        help="A key for encrypted volumes, or env:NAME or command:WORDS instead of file:PATH; "
        "SELECTOR is all, a UUID or a device; may be repeated.",
    ),
]
AllowedDirectories = Annotated[
    list[Path] | None,
    typer.Option(
        "--allow-dir",
        metavar="DIR",
        help="Backing files may lie here too, not only beside their image, and links in a source "
        "may lead here; may be repeated.",
    ),
]
BasesMode = Annotated[
    Bases,
    typer.Option(
        "--bases",
        help="Leave images that others of their folder are based on to those, or scan them too.",
    ),
]
KeyCommands = Annotated[
    bool,
    typer.Option(
        "--allow-key-commands", help="Run the commands that inventories name to print keys."
    ),
]
Packs = Annotated[
    list[str] | None,
    typer.Option(
        "--pack", metavar="NAME|DIR", help="A rule pack; may be repeated; all ours if not given."
    ),
]


def examples(*lines: str) -> str:
    """A command's epilog: lines to begin with, shown as they are."""
    verbatim = "\b"  # click's mark for a paragraph that is not to be wrapped
    return "\n".join([verbatim, "Examples:", *(f"  {line}" for line in lines)])
