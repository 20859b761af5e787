"""All options of a scan, and what follows from them: a run's plan, and whether facts serve again.

Each is stated once, where its group is defined; see :mod:`fleetscan.appliance.ground.option`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

from fleetscan.appliance.confinement import WantedConfinement
from fleetscan.appliance.ground.option import OptionField, groups_of, option, options_of
from fleetscan.appliance.ground.options import FactOptions
from fleetscan.scanner.sources.base import SourceOptions
from fleetscan.scanner.sources.volume_keys import KeySource, parse_key

Plan: TypeAlias = dict[str, dict[str, Any]]  # by group and name, JSON values


def _key(text: str) -> KeySource:
    return parse_key(text, Path())


@dataclass(frozen=True)
class LimitOptions:
    """What one machine may use.

    Attributes:
        deadline: seconds that one machine may take in all, not counting those in which its host
            made the template, as the first machine on it finds.
    """

    # A machine whose time ran out was not read whole, and is scanned again anyway.
    deadline: float = option(
        900,
        decides=False,
        metavar="SECONDS",
        minimum=1,
        help="Time limit for one machine.",
    )


@dataclass(frozen=True)
class SecretOptions:
    """What must never be stored.

    Attributes:
        keys: where keys for encrypted volumes of every machine come from.
    """

    # A machine with a volume that stays closed was not read whole, and is scanned again anyway.
    keys: tuple[KeySource, ...] = option(
        (),
        decides=False,
        planned="counted",
        flag="--key",
        metavar="SELECTOR:file:PATH",
        read=_key,
        help="A key for encrypted volumes; env:NAME or command:WORDS may replace file:PATH; "
        "SELECTOR is all, a UUID or a device; may be repeated.",
    )


@dataclass(frozen=True)
class ApplianceOptions:
    """How the appliance runs. Facts are the same whatever is chosen here.

    Attributes:
        template: start from a clone of the host's template; else boot afresh.
        confinement: the layers that must hold before anything of an image is opened.
        memory_mib: memory of the appliance.
    """

    template: bool = option(
        default=True,
        decides=False,
        flag="--template/--no-template",
        help="Clone a booted appliance for each machine, or boot a new one each time (slower).",
    )
    confinement: WantedConfinement = option(
        WantedConfinement.LEAST,
        decides=False,
        planned="asked",
        environment="FLEETSCAN_CONFINEMENT",
        help="Layers of confinement that must hold for QEMU; see `fleetscan doctor`.",
    )
    memory_mib: int = option(512, decides=False, commands=())


@dataclass(frozen=True)
class ScanOptions:
    """How machines are found and inspected, in groups by concern."""

    facts: FactOptions = field(default_factory=FactOptions)
    limits: LimitOptions = field(default_factory=LimitOptions)
    sources: SourceOptions = field(default_factory=SourceOptions)
    secrets: SecretOptions = field(default_factory=SecretOptions)
    appliance: ApplianceOptions = field(default_factory=ApplianceOptions)

    @classmethod
    def of(cls, **values: Any) -> Self:  # Any: as the fields say
        """Options by their names, whatever groups they are in.

        Raises:
            TypeError: there is no such option.
        """
        made: dict[str, Any] = {}
        for group, kind in groups_of(cls):
            names = [one.name for one in options_of(cls) if one.group == group]
            made[group] = kind(**{name: values.pop(name) for name in names if name in values})
        if values:
            raise TypeError(f"no such scan option: {', '.join(values)}")
        return cls(**made)

    def value(self, one: OptionField) -> Any:  # Any: as the field says
        """The value of an option."""
        return getattr(getattr(self, one.group), one.name)


T = TypeVar("T", bound=ScanOptions)


def to_plan(options: ScanOptions) -> Plan:
    """What a run's plan keeps of its options: JSON values, and of secrets only their number."""
    plan: Plan = {}
    for one in options_of(type(options)):
        value = options.value(one)
        if _is_counted(one):
            plan.setdefault(one.group, {})[one.name] = len(value)
        elif one.option.planned != "asked":
            plan.setdefault(one.group, {})[one.name] = _as_json(value)
    return plan


def from_plan(plan: Any, given: T) -> T:  # Any: JSON, from a file that others may have written
    """The options of a run that is resumed.

    Args:
        plan: what :func:`to_plan` made when it was begun.
        given: the options of the command line, which has the word on all that the plan has not.

    Raises:
        ValueError: the plan is not one of this version's.
    """
    from pydantic import TypeAdapter  # it takes a fifth of a second to load

    values = {one.name: given.value(one) for one in options_of(type(given))}
    for one in options_of(type(given)):
        if one.option.planned in ("kept", "confirmed"):
            text = json.dumps(_planned(plan, one))
            values[one.name] = TypeAdapter(one.type).validate_json(text, strict=True)
    options = type(given).of(**values)
    counts = [_planned(plan, one) for one in options_of(type(given)) if _is_counted(one)]
    if _names(plan) != _names(to_plan(options)) or not all(type(n) is int for n in counts):
        raise ValueError("the plan has options that this version does not know")
    return options


def decisive(plan: Any, model: type[ScanOptions] = ScanOptions) -> dict[str, Any]:
    """What a plan says of the options that decide what is found; None for what it does not say.

    Facts of one scan serve another only when this is equal for both.
    """
    return {
        f"{one.group}.{one.name}": _planned(plan, one)
        for one in options_of(model)
        if one.option.decides
    }


def _is_counted(one: OptionField) -> bool:
    return one.option.planned == "counted"


def _planned(plan: Any, one: OptionField) -> Any:
    return planned(plan, one.group, one.name)


def planned(plan: Any, group: str, name: str) -> Any:
    """A plan's value of an option; None if it has none, as those of other versions may."""
    options = plan.get(group) if isinstance(plan, Mapping) else None
    return options.get(name) if isinstance(options, Mapping) else None


def _names(plan: Mapping[str, Any]) -> set[tuple[str, str]]:
    named = set()
    for group, options in plan.items():
        names = options if isinstance(options, Mapping) else ["?"]
        named |= {(group, name) for name in names}
    return named


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
