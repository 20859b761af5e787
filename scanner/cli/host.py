"""``fleetscan appliance`` and ``doctor``: what a host needs to scan."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.options import OutputFormat, Verbose, examples

if TYPE_CHECKING:
    from fleetscan.appliance.built import Appliance

appliance = typer.Typer(help="Build, show, export and import the appliance.", no_args_is_help=True)
app.add_typer(appliance, name="appliance")


@appliance.command(epilog=examples("fleetscan appliance build"))
def build(
    force: Annotated[
        bool, typer.Option("--force", help="Build the appliance again even if it exists.")
    ] = False,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """Build the appliance from Debian packages, unless it already exists."""
    from fleetscan.appliance.build import build as build_appliance

    made = build_appliance(force=force, log=output.message if verbose else lambda line: None)
    _print(made, output_format)
    return exits.FINE


@appliance.command(epilog=examples("fleetscan appliance info --output json"))
def info(output_format: OutputFormat = output.Output.TEXT, verbose: Verbose = 0) -> int:
    """Show which appliance this host uses."""
    from fleetscan.appliance.built import find

    _print(find(), output_format)
    return exits.FINE


@appliance.command("export", epilog=examples("fleetscan appliance export appliance.tar.gz"))
def export_appliance(
    file: Annotated[Path, typer.Argument(metavar="FILE")], verbose: Verbose = 0
) -> int:
    """Write the appliance to one file, for hosts that cannot build it."""
    from fleetscan.appliance.exchange import export_to

    export_to(file)
    output.message(f"wrote {file}")
    return exits.FINE


@appliance.command("import", epilog=examples("fleetscan appliance import appliance.tar.gz"))
def import_appliance(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """Import an appliance that another host exported."""
    from fleetscan.appliance.exchange import import_from

    _print(import_from(file), output_format)
    return exits.FINE


def _print(made: Appliance, output_format: output.Output) -> None:
    if output_format is output.Output.JSON:
        output.json_object(asdict(made))
        return
    output.line(f"appliance {made.content}: {made.suite}, kernel {made.kernel_release}")
    output.line(f"in {made.directory}")


@app.command(epilog=examples("fleetscan doctor"))
def doctor(output_format: OutputFormat = output.Output.TEXT, verbose: Verbose = 0) -> int:
    """Try every part that a scan needs.

    For each part that fails, say how to fix it.
    """
    from fleetscan.appliance.doctor import run_checks

    checks = []
    for check in run_checks():
        checks.append(check)
        if output_format is output.Output.TEXT:
            output.line(f"{'ok    ' if check.ok else 'FAILED'}  {check.name}: {check.detail}")
            if check.hint:
                output.line(f"        {check.hint}")
    if output_format is output.Output.JSON:
        output.json_object([asdict(check) for check in checks])
    return exits.FINE if all(check.ok for check in checks) else exits.FAILED
