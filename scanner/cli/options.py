"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetscan.scanner.cli import output
from fleetscan.scanner.store.remote_url import is_url


def absolute(path: Path | None) -> Path | None:
    """A path that means the same to workers, to plans, and to whoever resumes a run elsewhere."""
    return path and path.absolute()


def _facts_directory(text: str) -> Path:
    """Where facts are kept: a directory, or the local copy of a remote store.

    Raises:
        UsageError: it is a URL that cannot be that of a facts directory.
    """
    if not is_url(text):
        return Path(text).absolute()
    from fleetscan.scanner.store.remote import local_copy

    return local_copy(text)


Facts = Annotated[
    Path,
    typer.Option(
        "--facts",
        metavar="DIR|URL",
        envvar="FLEETSCAN_FACTS",
        parser=str,
        callback=_facts_directory,
        help="The facts directory; or one in an object store, such as s3://bucket/facts.",
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
