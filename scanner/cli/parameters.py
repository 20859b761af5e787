"""Commands whose options follow from something else than the function that they are."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

T = TypeVar("T")

Made = Callable[[Mapping[str, Any]], object]  # Any: what the command line gives


def parameter(name: str, kind: Any, typer_option: Any, default: object = None) -> inspect.Parameter:
    """A parameter of a command: ``Any`` for a type, and for what Typer says of an option."""
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, typer_option],
    )


def standing_for(
    place: str, parameters: Sequence[inspect.Parameter], make: Made
) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a command parameters in the place of one, which is made of their values.

    Args:
        place: name of the function's own parameter.
        parameters: those that the command line has instead.
        make: makes the function's argument of their values by name.
    """
    names = [one.name for one in parameters]

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def run(**values: Any) -> T:  # Any: what the command line gives
            given = {name: values.pop(name) for name in names}
            return function(**values, **{place: make(given)})

        signature = _replaced(inspect.signature(function, eval_str=True), place, parameters)
        run.__signature__ = signature  # type: ignore[attr-defined] # inspect and typer look there
        taken = signature.parameters.values()
        run.__annotations__ = {one.name: one.annotation for one in taken}
        return run

    return decorate


def _replaced(
    signature: inspect.Signature, place: str, parameters: Sequence[inspect.Parameter]
) -> inspect.Signature:
    taken: list[inspect.Parameter] = []
    for one in signature.parameters.values():
        taken += parameters if one.name == place else [one]
    by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in taken]
    return signature.replace(parameters=by_name)
