"""The options of ``scan`` and ``inspect``, made from the one model that states them."""

from __future__ import annotations

import enum
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from fleetscan.appliance.ground.option import Command, OptionField, options_of
from fleetscan.scanner.options import ScanOptions

T = TypeVar("T")
_Run: TypeAlias = Callable[..., T]


def takes_options(
    command: Command, model: type[ScanOptions] = ScanOptions
) -> Callable[[_Run[T]], _Run[T]]:
    """Give a command's function the scan options that the command takes.

    The function has a parameter ``options``, of the model. On the command line, the options stand
    in its place.
    """
    taken = [one for one in options_of(model) if command in one.option.commands]

    def decorate(function: _Run[T]) -> _Run[T]:
        @functools.wraps(function)
        def run(**values: Any) -> T:  # Any: what the command line gives
            given = {one.name: _read(one, values.pop(one.name)) for one in taken}
            return function(**values, options=model.of(**given))

        signature = _with_options(inspect.signature(function, eval_str=True), taken)
        run.__signature__ = signature  # type: ignore[attr-defined] # inspect and typer look there
        parameters = signature.parameters.values()
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _with_options(signature: inspect.Signature, taken: list[OptionField]) -> inspect.Signature:
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += map(_parameter, taken) if parameter.name == "options" else [parameter]
    by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    return signature.replace(parameters=by_name)


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
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer_option],
    )


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
