"""What a fact table is: a frozen row dataclass, and the columns read off it.

A row class is the single definition of a table. The Arrow schema, the check of guest rows, the
SQL view and the reference documentation all follow from it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import re
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform


class Kind(enum.Enum):
    """A column's type; the value is the name Arrow gives it where Arrow has one."""

    STRING = "string"
    BOOL = "bool"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT64 = "double"
    TIMESTAMP = "timestamp[us, UTC]"  # rows and wire carry whole microseconds since 1970, UTC
    DATE = "date32[day]"  # of tables that no guest fills
    ENUM = "dictionary<string>"
    STRING_LIST = "list<string>"


U8 = Annotated[int, Kind.UINT8]
U16 = Annotated[int, Kind.UINT16]
U32 = Annotated[int, Kind.UINT32]
U64 = Annotated[int, Kind.UINT64]
I64 = Annotated[int, Kind.INT64]
F64 = Annotated[float, Kind.FLOAT64]
Timestamp = Annotated[int, Kind.TIMESTAMP]
"""Whole microseconds since 1970-01-01 00:00 UTC; may be negative."""

MICROSECOND = 1_000_000
"""Microseconds in a second."""

TIMESTAMP_MIN = -62_135_596_800 * MICROSECOND
"""The year 1: as early as the tools that read the tables can print."""

TIMESTAMP_MAX = 253_402_300_800 * MICROSECOND - 1
"""The end of the year 9999."""


def microseconds(nanoseconds: int) -> int:
    """A file's time as a timestamp column has it: rounded down, within the years 1 to 9999.

    >>> microseconds(1_999), microseconds(-1)
    (1, -1)
    """
    return max(TIMESTAMP_MIN, min(nanoseconds // 1000, TIMESTAMP_MAX))


class Choice(enum.StrEnum):
    """The only values that a column may have, in an order that means something."""

    @property
    def rank(self) -> int:
        """The value's place in the order; the first one's is 0."""
        return list(type(self)).index(self)


class Scope(enum.Enum):
    """What one set of a table's rows belongs to."""

    MACHINE = "machine"  # columns: machine_id, then the row's own
    ROOT = "root"  # columns: machine_id, root, then the row's own
    FLEET = "fleet"  # columns: the row's own


class Origin(enum.Enum):
    """Who fills a table."""

    HOST = "host"  # written by the scanner itself
    RUN = "run"  # the same, in each run anew, also for machines whose facts an earlier run holds
    GUEST = "guest"  # gathered by a collector inside the appliance, checked by the host
    DERIVED = "derived"  # no facts of a scan: made from them, or shipped with fleetscan


class NotApplicable(Exception):  # noqa: N818 - an outcome, not an error
    """Raised by a collector: this root has nothing that the table could describe."""


class IncompleteError(Exception):
    """Raised by a collector after its rows: some are missing."""


class UnreadError(IncompleteError):
    """Raised by a collector after its rows: these files were not read, and no other rows lack.

    Attributes:
        unread: their paths; a file that another one's rows depend on counts as both. One that
            ends with a slash is a directory, and stands for all that may lie below it.
    """

    def __init__(self, message: str, unread: Iterable[str]) -> None:
        super().__init__(message)
        self.unread = tuple(unread)


UNREAD_FILES, UNREAD_LENGTH = 100, 1 << 16
"""Most files, and characters of their paths, that an UnreadError names."""


def incomplete(message: str, unread: Iterable[str] | None) -> IncompleteError:
    """The error for rows that lack.

    Args:
        message: what is wrong.
        unread: files whose rows are all that lacks; None when more may.
    """
    paths = tuple(dict.fromkeys(unread or ()))
    named = 0 < len(paths) <= UNREAD_FILES and sum(map(len, paths)) <= UNREAD_LENGTH
    return UnreadError(message, paths) if named else IncompleteError(message)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: the column's name; a unit is part of it or of ``unit``.
        kind: its type.
        nullable: whether rows may leave it out.
        description: what it says, one sentence.
        unit: the unit of a number, such as ``bytes`` or ``seconds``; empty for none.
        example: a value as it could stand in a row; empty for none.
        values: the only values allowed, for ``Kind.ENUM``.
        unredacted: why text in it is no secret and is left as it is; empty where it may be one.
        named_by: the columns that name what it says, the nearest last.
    """

    name: str
    kind: Kind
    nullable: bool
    description: str
    unit: str = ""
    example: str = ""
    values: tuple[str, ...] = ()
    unredacted: str = ""
    named_by: tuple[str, ...] = ()

    @property
    def may_be_secret(self) -> bool:
        """Whether its text passes the redactor."""
        return self.kind in (Kind.STRING, Kind.STRING_LIST) and not self.unredacted


@dataclass(frozen=True)
class Table:
    """One fact table.

    Attributes:
        name: the table's name, which is its folder's and its SQL view's.
        row: the row dataclass.
        scope: whether a set of rows belongs to a machine or to one root of it.
        origin: who fills it.
        summary: the first line of the row class's docstring.
        description: the docstring's rest.
        columns: the row's columns, without ``machine_id`` and ``root``.
        walks: it is gathered by a walk through all of a root. That takes long, so it is done after
            everything else; and it looks up no path that could be on a filesystem that is missing.
        derived_from: the table that the host makes its rows of as they arrive; empty for none.
    """

    name: str
    row: type
    scope: Scope
    origin: Origin
    summary: str
    description: str
    columns: tuple[Column, ...]
    walks: bool = False
    derived_from: str = ""


MACHINE_ID = Column(
    "machine_id",
    Kind.STRING,
    False,
    "The machine, stable from run to run: libvirt UUID, inventory id or path in its source.",
    example="web/debian12.qcow2",
)
ROOT = Column(
    "root",
    Kind.STRING,
    False,
    "Which operating system of the machine: the device (and btrfs subvolume) it starts from.",
    example="/dev/sda2",
)


IS_PATH = "a path says where a secret is, and rows are found by it"
IS_NAME = "a name that everybody on the system may see, and rows are found by it"
IS_DIGEST = "made from what it stands for, which cannot be worked out from it"
IS_PUBLISHED = "its vendor publishes it for everybody"
IS_DEVICE = "the appliance gives devices their names"
"""Reasons of ``unredacted``."""


def column(
    description: str,
    *,
    default: Any = dataclasses.MISSING,
    unit: str = "",
    example: str = "",
    unredacted: str = "",
    named_by: tuple[str, ...] = (),
) -> Any:
    """Declare a row's field as a documented column.

    Text passes the redactor (``fleetscan.appliance.ground.redaction``) unless it can be no secret.

    Args:
        description: what it says.
        default: what rows hold that do not state it; without one, each has to.
        unit: the unit of a number.
        example: a value as it could stand in a row.
        unredacted: why text in it can be no secret.
        named_by: the columns that name what it says, the nearest last: where they speak of a
            secret, all of the text is one.

    ``Any`` because type checkers read the field's own annotation.
    """
    told = {"unit": unit, "example": example, "unredacted": unredacted, "named_by": named_by}
    return dataclasses.field(default=default, metadata={"doc": description, **told})


T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(column,))
def table(
    *,
    scope: Scope = Scope.ROOT,
    origin: Origin = Origin.GUEST,
    walks: bool = False,
    derived_from: str = "",
) -> Callable[[type[T]], type[T]]:
    """Make a class the row type of the table whose folder it stands in; see :class:`Table`.

    Fields are keyword-only; those typed ``X | None`` may be null. The first line of the class
    docstring is the table's summary.
    """

    def decorate(cls: type[T]) -> type[T]:
        row = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        facts = {"scope": scope, "origin": origin, "walks": walks, "derived_from": derived_from}
        row.__fleetscan__ = facts  # type: ignore[attr-defined]
        return row

    return decorate


def describe(name: str, row: type) -> Table:
    """Read a table's definition off its row class.

    Raises:
        TypeError: the class has a field that is not a column, or of a type that no column has.
    """
    facts = row.__fleetscan__  # type: ignore[attr-defined]
    hints = typing.get_type_hints(row, include_extras=True)
    columns = tuple(_column(field, hints[field.name]) for field in dataclasses.fields(row))
    summary, _, rest = (row.__doc__ or "").strip().partition("\n")
    description = "\n".join(line.strip() for line in rest.strip().splitlines())
    return Table(
        name=name, row=row, summary=summary, description=description, columns=columns, **facts
    )


def _column(field: dataclasses.Field[Any], hint: object) -> Column:
    if "doc" not in field.metadata:
        raise TypeError(f"field {field.name} is not declared with column()")
    inner, nullable = _strip_optional(hint)
    kind, values = _kind(field.name, inner)
    meta = field.metadata
    told = {name: meta[name] for name in ("unit", "example", "unredacted", "named_by")}
    return Column(field.name, kind, nullable, meta["doc"], values=values, **told)


def _strip_optional(hint: object) -> tuple[object, bool]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        members = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(members) == 1:
            return members[0], True
    return hint, False


def _kind(name: str, hint: object) -> tuple[Kind, tuple[str, ...]]:
    if typing.get_origin(hint) is Annotated:
        return typing.get_args(hint)[1], ()
    if typing.get_origin(hint) is Literal:
        return Kind.ENUM, typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Choice):
        return Kind.ENUM, tuple(choice.value for choice in hint)
    if hint == tuple[str, ...]:
        return Kind.STRING_LIST, ()
    if hint is str:
        return Kind.STRING, ()
    if hint is bool:
        return Kind.BOOL, ()
    if hint is dt.date:
        return Kind.DATE, ()
    raise TypeError(f"field {name}: no column has the type {hint!r}")


# -- Text of unknown encoding --------------------------------------------------------------------
# Guest text is bytes. Collectors decode it as UTF-8 with "surrogateescape"; on the wire every
# byte that was not UTF-8 becomes \xNN (two lower-case hex digits, 80 to ff), and a literal
# backslash that could be mistaken for such an escape becomes \x5c. All other text, Windows paths
# included, stays as it is, and unescape() gives back the very bytes.

_NEEDS_ESCAPE = re.compile("[\udc80-\udcff]|\\\\(?=x[0-9a-f]{2})")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def escape(text: str) -> str:
    r"""Make text from a guest storable, reversibly.

    >>> escape("caf\udce9"), escape("C:\\x41")
    ('caf\\xe9', 'C:\\x5cx41')
    """
    if text.isascii() and "\\x" not in text:
        return text
    return _NEEDS_ESCAPE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)


def unescape(text: str) -> bytes:
    r"""The bytes a guest had for a stored text.

    >>> unescape("caf\\xe9")
    b'caf\xe9'
    """
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())


@functools.cache
def redacted_columns(row: type) -> tuple[Column, ...]:
    """The columns of a row class whose text passes the redactor, those with a name first."""
    columns = (column for column in describe("", row).columns if column.may_be_secret)
    return tuple(sorted(columns, key=lambda column: not column.named_by))
