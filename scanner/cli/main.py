"""The whole command line, and how every command ends."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from fleetscan.appliance.ground.errors import ADVICE, FleetscanError, UsageError
from fleetscan.appliance.host.without_pandas import without_pandas
from fleetscan.scanner import extras
from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app

# In the order in which the help lists what they add.
for _name in ("scan", "inspection", "check_and_report", "querying", "rules", "host"):
    importlib.import_module(f"fleetscan.scanner.cli.{_name}")

# Typer's releases carry click's classes under different names; these are the same in all.
_BadUsage: Any = typer.BadParameter.__base__


def main() -> None:
    """The ``fleetscan`` command: the one place that exits."""
    without_pandas()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    output.configure(0)
    try:
        code = typer.main.get_command(app).main(
            list(arguments), prog_name="fleetscan", standalone_mode=False
        )
        sys.stdout.flush()
        return int(code or exits.FINE)
    except _BadUsage as error:
        return _bad_usage(error)
    except FleetscanError as error:
        output.error(error, error.hint)
        return exits.BAD_USAGE if isinstance(error, UsageError) else exits.FAILED
    except (KeyboardInterrupt, typer.Abort):
        output.message("fleetscan: interrupted")
        return exits.INTERRUPTED
    except BrokenPipeError:
        return _broken_pipe()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # click makes it a failure
            return _broken_pipe()
        raise
    except OSError as error:  # a problem of the host: a full disk, no permission
        where = f"{error.filename}: " if error.filename else ""
        output.error(f"{where}{error.strerror or error}", ADVICE.get(error.errno or 0, ""))
        output.trace(error)
        return exits.FAILED
    except ModuleNotFoundError as error:
        return _not_installed(error)
    except Exception as error:
        return _bug(error)


def _broken_pipe() -> int:
    # The interpreter flushes once more on its way out.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.BROKEN_PIPE


def _not_installed(error: ModuleNotFoundError) -> int:
    advice = extras.advice(error)
    if advice is None:
        return _bug(error)
    output.error(f"this command needs {error.name}, which is not installed", advice)
    output.trace(error)
    return exits.FAILED


def _bug(error: Exception) -> int:  # reported like other failures, with more under -v
    output.error(
        f"this is a bug: {type(error).__name__}: {error}",
        "run the command again with -v and report its output",
    )
    output.trace(error)
    return exits.FAILED


def _bad_usage(error: Any) -> int:  # Any: a class of click's, see above
    command = error.ctx.command_path if error.ctx else "fleetscan"
    output.error(error.format_message(), f"run {command} --help to see how it is used")
    return exits.BAD_USAGE
