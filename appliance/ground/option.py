"""What a scan option is: a field of a dataclass that states all there is to know about it.

A run's plan, the request on the wire, the command line and the test whether earlier facts can be
used again all follow from the fields, so an option is stated once and nowhere else. The options
that reach the agent are in :mod:`fleetscan.appliance.ground.options`; all of them are in
:mod:`fleetscan.scanner.options`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Planned = Literal["kept", "confirmed", "counted", "asked"]
"""What the plan of a run, which others may write to, has to do with an option when it is resumed.

``kept``: its value is the plan's. ``confirmed``: likewise, and the user must give the same again,
because it grants something. ``counted``: it is a secret; only the number of values is kept, and the
user must give as many again. ``asked``: it is not in the plan and is what the user says each time.
"""

Command = Literal["scan", "inspect"]

_KEY = "fleetscan.option"


@dataclass(frozen=True)
class Option:
    """What is stated about an option besides its name, type and default.

    Attributes:
        decides: whether it decides what is found. Facts that were gathered with another value of
            such an option are never used again.
        help: what it does, for ``--help``; empty for an option that no command takes.
        flag: how it is written on the command line; made from its name if empty.
        metavar: what stands for its value in the help.
        minimum: the least value of a number.
        maximum: the greatest value of a number.
        environment: the variable that gives its value if the command line does not; empty if none.
        planned: what a run's plan keeps of it.
        commands: which commands take it.
        read: makes a value of each text that the user gave.
    """

    decides: bool
    help: str = ""
    flag: str = ""
    metavar: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    environment: str = ""
    planned: Planned = "kept"
    commands: tuple[Command, ...] = ("scan", "inspect")
    read: Callable[[str], object] = str


@dataclass(frozen=True)
class OptionField:
    """One option of a model, with its place in it.

    Attributes:
        group: name of the model's field that holds it.
        name: its own name, unique in the model.
        type: of its values.
        default: its value unless the user gives another.
        option: what is stated about it.
    """

    group: str
    name: str
    type: Any  # a type as `typing` writes it
    default: Any  # a value of that type
    option: Option

    @property
    def flag(self) -> str:
        """How it is written on the command line, without its negation."""
        return (self.option.flag or f"--{self.name.replace('_', '-')}").partition("/")[0]


def option(default: T, *, decides: bool, **stated: Any) -> T:  # Any: the attributes of Option
    """A field of an options class; the arguments are those of :class:`Option`."""
    metadata = {_KEY: Option(decides=decides, **stated)}
    made: T = dataclasses.field(default=default, metadata=metadata)
    return made


def groups_of(model: type) -> Iterator[tuple[str, type]]:
    """The groups of a model of options, each a dataclass, by the names of their fields."""
    types = typing.get_type_hints(model)
    return ((field.name, types[field.name]) for field in dataclasses.fields(model))


def options_of(model: type) -> tuple[OptionField, ...]:
    """All options of a model whose fields are groups of options.

    Raises:
        TypeError: a field does not say what it is, or two have the same name.
    """
    found: dict[str, OptionField] = {}
    for group, kind in groups_of(model):
        types = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            stated = field.metadata.get(_KEY)
            if stated is None:
                raise TypeError(f"{kind.__name__}.{field.name} is not made by option()")
            if field.name in found:
                raise TypeError(
                    f"{kind.__name__}.{field.name} is also in {found[field.name].group}"
                )
            found[field.name] = OptionField(
                group, field.name, types[field.name], field.default, stated
            )
    return tuple(found.values())


def from_wire(kind: type[T], values: Mapping[str, Any]) -> T:  # Any: JSON values
    """A group of options as the wire carries it, where tuples are lists.

    Raises:
        TypeError: it has no such option.
    """
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
