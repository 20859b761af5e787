"""The command that all others hang on: ``fleetscan``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fleetscan.scanner.cli import output
from fleetscan.scanner.cli.options import examples

app = typer.Typer(
    name="fleetscan",
    help="Scan fleets of disk images. Each machine's disks are opened read-only in a VM of their "
    "own; what is found is stored in fact tables, which rules and reports read.",
    epilog=examples(
        "fleetscan doctor",
        "fleetscan appliance build",
        "fleetscan scan /srv/images --facts facts",
        "fleetscan check --facts facts",
        "fleetscan report --facts facts --html report.html",
    ),
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        try:
            version = importlib.metadata.version("fleetscan")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        output.line(f"fleetscan {version}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def fleetscan(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Without a command, show the help."""
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help())
