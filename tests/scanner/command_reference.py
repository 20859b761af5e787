"""The reference of the commands, scanner/cli/README.md, made from the command line itself."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import typer

from fleetscan.scanner.cli import exits
from fleetscan.scanner.cli.app import app
from tests.conftest import PROJECT

PAGE = PROJECT / "scanner" / "cli" / "README.md"

_HEAD = """\
# Commands

<!-- Made by `python -m tests.regenerate` from the command line. -->

`fleetscan COMMAND --help` prints the same. Results go to standard output; progress, logs and errors
go to standard error. With `--output json`, standard output holds nothing but JSON.
"""

Command = Any  # click's classes, which Typer's releases carry under different names


def commands(group: Command = None, path: str = "fleetscan") -> Iterator[tuple[str, Command]]:
    """Every command that does something, with its full name, in the order of the help."""
    group = group or typer.main.get_command(app)
    below = getattr(group, "commands", None)
    if below is None:
        yield path, group
        return
    for name, command in below.items():
        yield from commands(command, f"{path} {name}")


def options(command: Command) -> set[str]:
    """All spellings of a command's options."""
    spelled = {word for one in command.params for word in (*one.opts, *one.secondary_opts)}
    return {word for word in spelled if word.startswith("-")} | {"-h", "--help"}


def markdown() -> str:
    """The whole page."""
    named = list(commands())
    index = [f"* [`{path}`](#{path.replace(' ', '-')}): {_lead(one)}" for path, one in named]
    parts = [_HEAD, *index, "", *_statuses()]
    for path, command in named:
        parts += _section(path, command)
    return "\n".join(parts) + "\n"


def _statuses() -> Iterator[str]:
    yield "## Exit statuses\n\n| | |\n|---|---|"
    for status, meaning in exits.MEANINGS.items():
        yield f"| {status} | {meaning} |"


def _lead(command: Command) -> str:
    return " ".join(command.help.split("\n\n")[0].split())


def _section(path: str, command: Command) -> Iterator[str]:
    yield f"\n## {path}\n"
    yield f"```\n{' '.join([path, *_usage(command)])}\n```\n"
    for paragraph in command.help.strip().split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"
    yield "| | |\n|---|---|"
    for parameter in command.params:
        if getattr(parameter, "help", None):
            yield f"| {_spelling(parameter)} | {_cell(_meaning(parameter))} |"
    lines = command.epilog.replace("\b", "").strip().splitlines()[1:]
    typed, _, rest = "\n".join(line.removeprefix("  ") for line in lines).partition("\n\n")
    yield f"\nExamples:\n\n```sh\n{typed}\n```"
    if rest:
        yield f"\n```\n{rest}\n```"


def _usage(command: Command) -> Iterator[str]:
    yield "[OPTIONS]"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = parameter.metavar or parameter.name.upper()
            repeated = "..." if parameter.nargs == -1 else ""
            yield (name if parameter.required else f"[{name}]") + repeated


def _spelling(parameter: Command) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    value = "" if parameter.is_flag or parameter.count else f" {_value(parameter)}"
    return ", ".join(
        f"`{word}{_cell(value)}`" for word in (*parameter.opts, *parameter.secondary_opts)
    )


def _value(parameter: Command) -> str:
    if parameter.metavar:
        return str(parameter.metavar)
    if isinstance(parameter.default, enum.Enum):
        return "|".join(one.value for one in type(parameter.default))
    return "TEXT"


def _meaning(parameter: Command) -> str:
    return " ".join([parameter.help, *_notes(parameter)])


def _notes(parameter: Command) -> Iterator[str]:
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        yield "Required."
    if getattr(parameter, "envvar", None):
        yield f"Environment: `{parameter.envvar}`."
    if isinstance(default, bool) and parameter.secondary_opts:
        yield f"Default: `{(parameter.opts if default else parameter.secondary_opts)[0]}`."
    elif not isinstance(default, bool | None) and not getattr(parameter, "count", False):
        yield f"Default: `{default.value if isinstance(default, enum.Enum) else default}`."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
