"""The reference of the fact tables, made from their specs."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.schema import Column, Kind, Origin, Scope, Table
from fleetscan.scanner.tables import load_all_tables

HEAD = """\
# Fact tables

<!-- Made by `python -m tests.regenerate` from the specs and scanner/table_reference.py. -->

Each folder here is a table: `spec.py` defines its rows, and everything below is generated from it;
`collect.py` gathers the rows inside the appliance; `cases/` holds inputs and the rows they give.
To add a table, add a folder with these three, and run `python -m tests.regenerate` to update this
page. Nothing else needs to change.

The derived tables `results`, `failures`, `runs` and `end_of_life` have a spec alone. They are no
facts of a scan: `fleetscan query` and `fleetscan.facts` show them beside the facts. Of these, rules
read `end_of_life` alone.

Every table about machines begins with `machine_id`, which is stable from run to run. Tables about
an operating system continue with `root`, which identifies the system on its machine. SQL views put
`run_id` before these columns. Bytes of a guest's text that are not UTF-8 are escaped as `\\xNN`.
Times are UTC. A column is never null unless its type says so.

Secrets are not stored. `[redacted]` replaces a secret and the rest of the text stays, so that a
rule still sees that a password is there. The appliance does this to the text of every column, and
to errors and logs, before the host gets them (`appliance/ground/redaction`). It recognises a secret

* by the name before it (`password=`, `"api_key": `, `--token `),
* by its place (`user:PW@` in a URL, `mysql -pPW`, `user=NAME%PW` in a mount, values of environment
  variables),
* by its form (tokens, password hashes, private keys),
* and in `config`, `registry` and `kernel_settings` by the name of the setting.

Numbers and switches of policies, such as `PASS_MAX_DAYS 90`, paths of key files, and references
such as `$PASSWORD` are not secrets. A secret that looks like ordinary text stays. Columns that
cannot contain secrets, such as paths, say why in their spec (`unredacted`).
"""

_TYPE_NAMES = {
    Kind.STRING: "text",
    Kind.BOOL: "boolean",
    Kind.FLOAT64: "float64",
    Kind.TIMESTAMP: "timestamp, UTC, microseconds",
    Kind.DATE: "date",
    Kind.STRING_LIST: "list of text",
}


def type_name(column: Column) -> str:
    """A column's type and unit, for people."""
    name = " or ".join(column.values) or _TYPE_NAMES.get(column.kind, column.kind.value)
    unit = f", {column.unit}" if column.unit else ""
    return f"{name}{unit}{', or null' if column.nullable else ''}"


def scope_name(table: Table) -> str:
    """What a table has rows for, for people."""
    scopes = {Scope.MACHINE: "each machine", Scope.ROOT: "each operating system"}
    return scopes.get(table.scope, "the whole fleet")


def markdown() -> str:
    """The whole reference, as scanner/tables/README.md holds it."""
    tables = load_all_tables().values()
    index = [f"* [`{table.name}`](#{table.name}): {table.summary}" for table in tables]
    parts = [HEAD, "\n".join(index) + "\n", *("\n".join(_section(table)) for table in tables)]
    return "\n".join(parts)


def _section(table: Table) -> Iterator[str]:
    yield f"## {table.name}\n"
    derived = table.origin is Origin.DERIVED
    origin = ", derived" if derived else f", from the {table.origin.value}"
    yield f"{table.summary} Rows for {scope_name(table)}{origin}.\n"
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
