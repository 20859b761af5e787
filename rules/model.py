"""What a rule, a waiver and a configuration file are, as the people who write them see it."""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    StringConstraints,
    field_validator,
    model_validator,
)

from fleetscan.rules.checks import PREFIX, Check
from fleetscan.rules.sql import Select, SqlError, parse_predicate, parse_select
from fleetscan.rules.unmounted import WALKED
from fleetscan.scanner.tables.results.spec import ResultState, Severity

Scalar = bool | int | float | str | dt.date
Parameter = Scalar | list[str] | list[int]

BUILT_IN_PARAMETERS = frozenset({"now", "today"})
"""Bound for every rule: the time of evaluation (TIMESTAMPTZ), and its UTC day (DATE)."""

ABSENT = (ResultState.PASS, ResultState.FAIL, ResultState.NOTAPPLICABLE, ResultState.UNKNOWN)
"""What it can mean for a rule that what it is about is not there at all."""

Id = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=80)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
ParameterName = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]*$")]


class Strict(BaseModel):
    """A model that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class CompiledRule:
    """A rule's SQL, after it was found harmless.

    Attributes:
        violations: the offending rows.
        applies_to: the roots that the rule is about; None for all.
        unknown: the roots about which nothing can be said; None when there is no such query.
        subject: what the rule is about; None where its absence passes.
        parameters: values of every parameter of the four, the built-in ones left out.
        complete: tables of which every row must be known before a violation counts.
        reads: tables of which the rule looks at some files alone, and patterns of these.
    """

    violations: Select
    applies_to: Select | None
    unknown: Select | None
    subject: Select | None
    parameters: Mapping[str, Parameter]
    complete: frozenset[str]
    reads: Mapping[str, Sequence[str]]

    @property
    def tables(self) -> frozenset[str]:
        """Every table that the rule reads."""
        return frozenset().union(*(select.tables for select in self.selects))

    @property
    def selects(self) -> tuple[Select, ...]:
        """Every SELECT of the rule."""
        selects = (self.violations, self.applies_to, self.unknown, self.subject)
        return tuple(select for select in selects if select)


class Rule(Strict):
    """One rule: what must hold, why, and how its violations are found."""

    id: Id
    title: Text
    failing: Text | None = None
    severity: Severity
    rationale: Text
    remediation: Text
    references: dict[str, list[Text]] = {}
    tags: list[Text] = []
    applies_to: Text | None = None
    violations: Text | None = None
    check: Check | None = None
    unknown: Text | None = None
    absent: ResultState | None = None
    subject: Text | None = None
    empty_ok: list[str] = []
    complete: list[str] = []
    reads: dict[str, list[Text]] = {}
    own_disks: list[str] = []
    parameters: dict[ParameterName, Parameter] = {}
    fleet: bool = False
    informational: bool = False

    @field_validator("parameters")
    @classmethod
    def _names_are_free(cls, parameters: dict[str, Parameter]) -> dict[str, Parameter]:
        for name in parameters:
            if name in BUILT_IN_PARAMETERS or name.startswith(PREFIX):
                raise ValueError(f"the name {name} is taken")
        return parameters

    @field_validator("violations", "unknown", "subject")
    @classmethod
    def _is_a_select(cls, sql: str | None) -> str | None:
        if sql is not None:
            parse_select(sql)
        return sql

    @field_validator("applies_to")
    @classmethod
    def _is_a_predicate(cls, predicate: str | None) -> str | None:
        if predicate is not None:
            parse_predicate(predicate, "operating_systems")
        return predicate

    @model_validator(mode="after")
    def _holds_together(self) -> Rule:
        if (self.violations is None) == (self.check is None):
            raise ValueError("a rule has either violations or check")
        self._check_absence()
        compiled = self.compile()
        used = _used_parameters(compiled)
        if missing := sorted(used - set(compiled.parameters) - BUILT_IN_PARAMETERS):
            raise ValueError(f"parameters lack a default: {', '.join(missing)}")
        if unused := sorted(set(compiled.parameters) - used):
            raise ValueError(f"parameters are not used: {', '.join(unused)}")
        named = {*self.empty_ok, *self.complete, *self.reads, *self.own_disks}
        if unread := sorted(named - compiled.tables):
            raise ValueError(
                "tables in empty_ok, complete, reads or own_disks are not read: "
                f"{', '.join(unread)}"
            )
        if others := sorted(set(self.own_disks) - WALKED):
            raise ValueError(
                f"own_disks is for {', '.join(sorted(WALKED))}, not {', '.join(others)}"
            )
        return self

    def _check_absence(self) -> None:
        if self.absent not in (None, *ABSENT):
            raise ValueError(f"absent is one of {', '.join(ABSENT)}")
        query = self.subject or (self.check and self.check.compile().subject)
        if self.absent is ResultState.NOTAPPLICABLE and not query:
            raise ValueError(
                "absent: notapplicable needs a subject, a SELECT of what may be absent"
            )
        if self.subject and self.absent in (None, ResultState.PASS):
            raise ValueError("a subject needs absent: fail, notapplicable or unknown")

    def compile(self) -> CompiledRule:
        """The rule's SQL, parsed and with its parameters.

        Raises:
            SqlError: a rule must not contain this SQL.
        """
        parameters: dict[str, Parameter] = dict(self.parameters)
        complete = frozenset(self.complete)
        reads: dict[str, Sequence[str]] = {}
        if self.check:
            check = self.check.compile()
            sql = check.sql
            parameters.update(check.parameters)
            complete |= check.complete
            reads.update(check.reads)
        elif self.violations:
            sql = self.violations
        else:
            raise SqlError("a rule has either violations or check")
        applies_to = (
            parse_predicate(self.applies_to, "operating_systems") if self.applies_to else None
        )
        unknown = parse_select(self.unknown) if self.unknown else None
        about = self.subject or (self.check and self.check.compile().subject)
        subject = (
            parse_select(about) if about and self.absent not in (None, ResultState.PASS) else None
        )
        for select in (applies_to, unknown):
            for table in select.tables if select else ():
                reads.pop(table, None)  # which may look there for what the check does not
        if not any("kernels" in text for text in (sql, self.applies_to, self.unknown) if text):
            reads.setdefault("operating_systems", ())  # of which kernels alone name files
        return CompiledRule(
            violations=parse_select(sql),
            applies_to=applies_to,
            unknown=unknown,
            subject=subject,
            parameters=parameters,
            complete=complete,
            reads={**reads, **self.reads},
        )


def _used_parameters(compiled: CompiledRule) -> frozenset[str]:
    return frozenset().union(*(select.parameters for select in compiled.selects))


class PackInfo(Strict):
    """A pack's own file, pack.yaml."""

    title: Text
    description: Text
    version: Text | None = None
    applies_to: Text | None = None

    @field_validator("applies_to")
    @classmethod
    def _is_a_predicate(cls, predicate: str | None) -> str | None:
        if predicate is not None:
            columns = parse_predicate(predicate, "operating_systems")
            if columns.parameters or columns.tables != {"operating_systems"}:
                raise ValueError("a pack may use only the columns of operating_systems")
        return predicate

    def outside(self) -> Select | None:
        """The roots that are known to be none of the pack's; None when it is for all."""
        if self.applies_to is None:
            return None
        return parse_predicate(f"NOT (\n{self.applies_to}\n)", "operating_systems")


@dataclass(frozen=True)
class Pack:
    """A folder of rules.

    Attributes:
        name: the folder's name.
        folder: where it lies.
        info: its title and description.
        rules: its rules, by id.
    """

    name: str
    folder: Path
    info: PackInfo
    rules: tuple[Rule, ...]


class Waiver(Strict):
    """An accepted risk, until a day.

    Attributes:
        rule: a rule's id, or a shell pattern of ids.
        machine: shell pattern over machine_id.
        justification: why the failure is accepted; shown with every result it covers.
        expires: the last day on which it counts.
        contact: who accepted it.
    """

    rule: Text
    machine: Text
    justification: Text
    expires: dt.date
    contact: Text | None = None


class Config(Strict):
    """What a site changes about packs.

    Attributes:
        deselect: ids, or shell patterns of ids, of rules that are not evaluated.
        parameters: values by rule id and parameter name.
    """

    deselect: list[Text] = []
    parameters: dict[str, dict[str, Parameter]] = {}

    def selects(self, rule: Rule) -> bool:
        """Whether the rule is to be evaluated."""
        return not any(fnmatch.fnmatchcase(rule.id, pattern) for pattern in self.deselect)

    def values(self, rule: Rule, defaults: Mapping[str, Parameter]) -> dict[str, Any]:
        """The rule's parameters as DuckDB binds them, the site's values in place of defaults."""
        return {**defaults, **self.parameters.get(rule.id, {})}
