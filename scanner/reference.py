"""The reference of the fact tables, made from their specs."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.schema import Column, Kind, Scope, Table
from scanner.tables import load_tables

HEAD = """\
# Fact tables

<!-- Made by `fleetscan tables --markdown`; its head and its making are in scanner/reference.py. -->

A table is a folder here: `spec.py` is its row class, from which everything below follows,
`collect.py` gathers its rows inside the appliance, `cases/` holds inputs and the rows they give.
To add one, add a folder with these three; to see it here, run
`fleetscan tables --markdown > scanner/tables/README.md`. Nothing else needs to be touched.

Every table begins with `machine_id`, which is stable from run to run, and those about an
operating system go on with `root`, which says which one of the machine. SQL views have `run_id`
before them. Text of a guest that is not UTF-8 has its bytes escaped as `\\xNN`. Times are UTC.
A column is never null unless it says so.

A secret is not stored: where a text holds one, `[redacted]` stands in its place and the rest of
the text is as it was, so that a rule still sees that a password is there. The appliance does that
to the text of every column, and to errors and logs, before the host gets them
(`scanner/redaction`). A secret is recognised by the name before it (`password=`, `"api_key": `,
`--token `), by its place (a URL's `user:PW@`, `mysql -pPW`, a mount's `user=NAME%PW`, what an
environment is set to), by its form (tokens, password hashes, private keys), and in `config`,
`registry` and `kernel_settings` by the setting's name. Numbers and switches of policies, such as
`PASS_MAX_DAYS 90`, paths of key files and references such as `$PASSWORD` are no secrets. A secret
that nothing tells from ordinary text stays. Columns that can
hold none, such as paths, say why in their spec (`unredacted`).
"""

_TYPE_NAMES = {
    Kind.STRING: "text",
    Kind.BOOL: "boolean",
    Kind.FLOAT64: "float64",
    Kind.TIMESTAMP: "timestamp, UTC, microseconds",
    Kind.STRING_LIST: "list of text",
}


def type_name(column: Column) -> str:
    """A column's type and unit, for people."""
    name = " or ".join(column.values) or _TYPE_NAMES.get(column.kind, column.kind.value)
    unit = f", {column.unit}" if column.unit else ""
    return f"{name}{unit}{', or null' if column.nullable else ''}"


def scope_name(table: Table) -> str:
    """What a table has rows for, for people."""
    return "each machine" if table.scope is Scope.MACHINE else "each operating system"


def markdown() -> str:
    """The whole reference, as scanner/tables/README.md holds it."""
    tables = load_tables().values()
    index = [f"* [`{table.name}`](#{table.name}): {_lower(table.summary)}" for table in tables]
    parts = [HEAD, "\n".join(index) + "\n", *("\n".join(_section(table)) for table in tables)]
    return "\n".join(parts)


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _section(table: Table) -> Iterator[str]:
    yield f"## {table.name}\n"
    yield f"{table.summary} Rows for {scope_name(table)}, from the {table.origin.value}.\n"
    if table.description:
        yield f"{table.description}\n"
    yield "| column | type | |\n|---|---|---|"
    for column in table.columns:
        example = f" Example: `{_cell(column.example)}`" if column.example else ""
        description = _cell(column.description) + example
        yield f"| `{column.name}` | {_cell(type_name(column))} | {description} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
