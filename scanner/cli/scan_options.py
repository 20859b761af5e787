"""The options of ``scan`` and ``inspect``, made from the one model that states them."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import typer

from fleetscan.appliance.ground.option import Command, OptionField, options_of
from fleetscan.scanner.cli.parameters import parameter, standing_for
from fleetscan.scanner.options import ScanOptions

T = TypeVar("T")


def takes_options(
    command: Command, model: type[ScanOptions] = ScanOptions
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command's function the scan options that the command takes.

    The function has a parameter ``options``, of the model. On the command line, the options stand
    in its place.
    """
    taken = [one for one in options_of(model) if command in one.option.commands]

    def make(values: Mapping[str, Any]) -> ScanOptions:  # Any: what the command line gives
        return model.of(**{one.name: _read(one, values[one.name]) for one in taken})

    return standing_for("options", [_parameter(one) for one in taken], make)


def _parameter(one: OptionField) -> inspect.Parameter:
    stated = one.option
    typer_option = typer.Option(
        stated.flag or one.flag,
        help=stated.help,
        metavar=stated.metavar,
        min=stated.minimum,
        max=stated.maximum,
        envvar=stated.environment or None,
    )
    kind, default = _on_command_line(one)
    return parameter(one.name, kind, typer_option, default)


def _is_repeated(one: OptionField) -> bool:
    return typing.get_origin(one.type) is tuple


def _is_choice(one: OptionField) -> bool:
    return typing.get_origin(one.type) is typing.Literal


def _on_command_line(one: OptionField) -> tuple[Any, Any]:  # Any: a type, and a value of it
    """The type and the default with which Typer gets an option."""
    if _is_repeated(one):
        return list[str] | None, None
    if _is_choice(one):  # not every release of Typer that we support takes a Literal
        words = {word: word for word in typing.get_args(one.type)}
        choices = enum.StrEnum("Choice", words)  # type: ignore[misc] # mypy wants literal members
        return choices, choices(one.default)
    return one.type, one.default


def _read(one: OptionField, value: Any) -> Any:  # Any: what the command line gives
    if _is_repeated(one):
        return tuple(one.option.read(text) for text in value or ())
    return str(value) if _is_choice(one) else value
