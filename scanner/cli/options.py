"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.scanner.cli import output

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def absolute(path: Path | None) -> Path | None:
    """A path that means the same to workers, to plans, and to whoever resumes a run elsewhere."""
    return path and path.absolute()


def _facts_directory(text: str) -> Path:
    """Where facts are kept.

    Raises:
        UsageError: the text is a URL, which as a path would be a directory named "s3:".
    """
    if _URL.match(text):
        raise UsageError(
            f"--facts takes a directory, and not a URL: {text.partition('://')[0]}://...",
            hint="give a path; a bucket can be mounted, or the facts copied after the scan",
        )
    return Path(text).absolute()


Facts = Annotated[
    Path,
    typer.Option(
        "--facts",
        metavar="DIR",
        envvar="FLEETSCAN_FACTS",
        parser=str,
        callback=_facts_directory,
        help="The facts directory.",
    ),
]
RunId = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="The run to use; the newest if not given."),
]
FailOver = Annotated[
    float | None,
    typer.Option(
        "--fail-over",
        metavar="PERCENT",
        min=0,
        max=100,
        help="Exit with status 1 if more than this share of the machines fails or has no verdict.",
    ),
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
