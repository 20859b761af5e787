"""Declarative checks: short forms of common rules, compiled to the SQL one would write.

Strings of a check never become SQL text: each is bound as a parameter of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fleetscan.appliance.ground.mounts import FLAGS, normal_path
from fleetscan.scanner.tables.packages.spec import LANGUAGES

Patterns = Annotated[tuple[str, ...], Field(min_length=1)]
"""Names or shell patterns: ``*`` matches slashes too, ``?`` and ``[...]`` as usual."""

PREFIX = "check_"
"""What the parameters of a compiled check begin with."""


@dataclass(frozen=True)
class CompiledCheck:
    """A check as SQL.

    Attributes:
        sql: the SELECT of the offending rows.
        parameters: the values it binds.
        complete: tables of which every row must be known before a violation counts.
        subject: a SELECT of what it is about; empty where it asks for presence or absence itself.
        reads: of tables that name files which were not read, patterns of those that matter.
    """

    sql: str
    parameters: dict[str, str | int]
    complete: frozenset[str] = frozenset()
    subject: str = ""
    reads: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass
class _Binder:
    values: dict[str, str | int] = field(default_factory=dict)

    def bind(self, value: str | int) -> str:
        name = f"{PREFIX}{len(self.values)}"
        self.values[name] = value
        return f"${name}"

    def one_of(self, column: str, values: Sequence[str]) -> str:
        return f"{column} IN ({', '.join(map(self.bind, values))})"

    def matches(self, column: str, patterns: Sequence[str]) -> str:
        terms = [
            f"{column} {'GLOB' if set(pattern) & set('*?[') else '='} {self.bind(pattern)}"
            for pattern in patterns
        ]
        return f"({' OR '.join(terms)})"


class _Check(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PackageCheck(_Check):
    """Packages of systems, not of languages, that must, or must not, be installed."""

    names: Patterns
    present: bool

    def compile(self) -> CompiledCheck:
        """The check as SQL."""
        bind = _Binder()
        found = (
            f"{bind.matches('t.name', self.names)} AND t.status <> 'config-files'"
            f" AND NOT {bind.one_of('t.manager', LANGUAGES)}"
        )
        reads: dict[str, Sequence[str]] = {"packages": ()}  # what is named is of languages
        if self.present:
            return replace(_missing("packages", found, self.names, bind), reads=reads)
        return CompiledCheck(
            f"SELECT machine_id, root, name, version, status FROM packages t WHERE {found}",  # noqa: S608 - values are bound
            bind.values,
            reads=reads,
        )


class FileCheck(_Check):
    """Properties of files, or their presence.

    Attributes:
        present: true: one of the paths must exist; false: none may; left out: those that exist
            must have the properties below.
        types: allowed types, as in files.type; links are always allowed beside other types.
        owners, groups: allowed names.
        mode: permission bits that may be set, octal in quotes.
    """

    paths: Patterns
    present: bool | None = None
    types: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    mode: Annotated[str, Field(pattern="^0[0-7]{3,4}$")] | None = None

    @model_validator(mode="after")
    def _checks_something(self) -> FileCheck:
        properties = bool(self.types or self.owners or self.groups or self.mode)
        if (self.present is None) != properties:
            raise ValueError("give either present, or some of types, owners, groups and mode")
        return self

    def compile(self) -> CompiledCheck:
        """The check as SQL."""
        bind = _Binder()
        found = bind.matches("t.path", self.paths)
        reads = {"files": self.paths}
        if self.present:
            return replace(_missing("files", found, self.paths, bind), reads=reads)
        wrong = "" if self.present is False else f" AND ({' OR '.join(self._wrong(bind))})"
        return CompiledCheck(
            "SELECT machine_id, root, path, type, format('{:04o}', mode) AS mode, owner, "  # noqa: S608 - values are bound
            f"group_name FROM files t WHERE {found}{wrong}",
            bind.values,
            subject="" if self.present is False else _subject("files", found),
            reads=reads,
        )

    def _wrong(self, bind: _Binder) -> list[str]:
        terms = []
        if self.types:
            terms.append(f"NOT {bind.one_of('t.type', (*self.types, 'symlink'))}")
        if self.owners:
            terms.append(f"NOT coalesce({bind.one_of('t.owner', self.owners)}, false)")
        if self.groups:
            terms.append(f"NOT coalesce({bind.one_of('t.group_name', self.groups)}, false)")
        if self.mode:
            # A link's own mode is always 0777 and means nothing.
            bits = bind.bind(0o7777 & ~int(self.mode, 8))
            terms.append(f"(t.type <> 'symlink' AND t.mode & {bits}::UINTEGER <> 0)")
        return terms


class ServiceCheck(_Check):
    """Services that must, or must not, start by themselves."""

    names: Patterns
    enabled: bool

    def compile(self) -> CompiledCheck:
        """The check as SQL."""
        bind = _Binder()
        found = f"{bind.matches('t.name', self.names)} AND t.state = 'enabled'"
        reads = {"services": [f"*/{name}" for name in self.names]}
        if self.enabled:
            return replace(_missing("services", found, self.names, bind), reads=reads)
        return CompiledCheck(
            f"SELECT machine_id, root, name, manager, state, path FROM services t WHERE {found}",  # noqa: S608 - values are bound
            bind.values,
            reads=reads,
        )


class UserCheck(_Check):
    """Properties of local accounts, or their presence.

    Attributes:
        present: as for files.
        passwords: allowed states, as in users.password.
        shells: allowed login shells.
    """

    names: Patterns
    present: bool | None = None
    passwords: tuple[Literal["set", "empty", "locked", "none", "unknown"], ...] = ()
    shells: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _checks_something(self) -> UserCheck:
        if (self.present is None) != bool(self.passwords or self.shells):
            raise ValueError("give either present, or some of passwords and shells")
        return self

    def compile(self) -> CompiledCheck:
        """The check as SQL."""
        bind = _Binder()
        found = bind.matches("t.name", self.names)
        if self.present:
            return _missing("users", found, self.names, bind)
        terms = []
        if self.passwords:
            terms.append(f"NOT {bind.one_of('t.password', self.passwords)}")
        if self.shells:
            terms.append(f"NOT {bind.one_of(_SHELL, self.shells)}")
        wrong = f" AND ({' OR '.join(terms)})" if terms else ""
        return CompiledCheck(
            "SELECT machine_id, root, name, uid, password, shell "  # noqa: S608 - values are bound
            f"FROM users t WHERE {found}{wrong}",
            bind.values,
            subject="" if self.present is False else _subject("users", found),
        )


_SHELL = "coalesce(nullif(t.shell, ''), '/bin/sh')"


class FilesystemCheck(_Check):
    """How a directory is mounted.

    Attributes:
        path: the mountpoint.
        separate: it must be a mountpoint of its own.
        options: mount options that it must have, if it is one.
    """

    path: str
    separate: bool = False
    options: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _checks_something(self) -> FilesystemCheck:
        if not self.separate and not self.options:
            raise ValueError("give separate: true, options, or both")
        return self

    def compile(self) -> CompiledCheck:
        """The check as SQL."""
        bind = _Binder()
        found = f"t.path = {bind.bind(normal_path(self.path))}"
        parts = []
        complete: frozenset[str] = frozenset()
        if self.separate:
            missing = _missing("mountpoints", found, (self.path,), bind)
            parts.append(f"SELECT *, NULL AS source, NULL AS lacks FROM ({missing.sql})")  # noqa: S608 - values are bound
            complete = missing.complete
        if self.options:
            wanted = ", ".join(
                f"({bind.bind(option)}, {str(option in FLAGS).lower()})" for option in self.options
            )
            parts.append(
                "SELECT t.machine_id, t.root, t.path AS missing, t.source, w.name AS lacks "  # noqa: S608 - values are bound
                f"FROM mountpoints t, (VALUES {wanted}) w(name, is_flag) "
                # Facts of older versions know the options as they were written alone.
                f"WHERE {found} AND NOT coalesce(list_contains(CASE WHEN w.is_flag "
                "THEN coalesce(t.effective_options, t.options) ELSE t.options END, w.name), false)"
            )
        subject = "" if self.separate else _subject("mountpoints", found)
        return CompiledCheck(" UNION ALL ".join(parts), bind.values, complete, subject)


def _subject(table: str, found: str) -> str:
    return f"SELECT machine_id, root FROM {table} t WHERE {found}"  # noqa: S608 - values are bound


def _missing(table: str, found: str, what: Sequence[str], bind: _Binder) -> CompiledCheck:
    """One violation for each root where a table has no such row."""
    return CompiledCheck(
        f"SELECT o.machine_id, o.root, {bind.bind(' or '.join(what))}::VARCHAR AS missing "  # noqa: S608 - values are bound
        f"FROM operating_systems o WHERE NOT EXISTS (SELECT 1 FROM {table} t "
        f"WHERE t.machine_id = o.machine_id AND t.root = o.root AND {found})",
        bind.values,
        frozenset({table}),
    )


class Check(_Check):
    """Exactly one declarative check."""

    package: PackageCheck | None = None
    file: FileCheck | None = None
    service: ServiceCheck | None = None
    user: UserCheck | None = None
    filesystem: FilesystemCheck | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Check:
        if len(self._given()) != 1:
            raise ValueError(f"give exactly one of {', '.join(type(self).model_fields)}")
        return self

    def _given(self) -> list[PackageCheck | FileCheck | ServiceCheck | UserCheck | FilesystemCheck]:
        options = (self.package, self.file, self.service, self.user, self.filesystem)
        return [option for option in options if option is not None]

    def compile(self) -> CompiledCheck:
        """The check as SQL."""
        return self._given()[0].compile()
