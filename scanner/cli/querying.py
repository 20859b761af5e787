"""``fleetscan query``, ``tables`` and ``runs``: looking at facts and what they mean."""

from __future__ import annotations

import contextlib
import enum
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetscan.appliance.ground.errors import StoreError, UsageError
from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.options import Facts, OutputFormat, RunId, Verbose, examples
from fleetscan.scanner.cli.verification import verify_runs

if TYPE_CHECKING:
    import pyarrow as pa

    from fleetscan.appliance.ground.schema import Table
    from fleetscan.scanner.store.run_file import RunInfo
    from fleetscan.scanner.store.runs import Store


class QueryOutput(enum.StrEnum):
    """How ``query`` prints rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


_QUERY_EXAMPLES = examples(
    "fleetscan query 'select distro, count(*) from operating_systems group by 1' --facts facts",
    "fleetscan query \"select machine_id, version from packages where name = 'openssl'\" "
    "--facts facts --output csv",
    "fleetscan query 'select run_id, count(*) from history.machines group by 1' --facts facts",
)


@app.command(epilog=_QUERY_EXAMPLES)
def query(
    sql: Annotated[
        str,
        typer.Argument(metavar="SQL", help="One SELECT statement; - reads it from standard input."),
    ],
    facts: Facts,
    run: RunId = None,
    output_format: Annotated[
        QueryOutput, typer.Option("--output", help="How to print rows.")
    ] = QueryOutput.TABLE,
    verbose: Verbose = 0,
) -> int:
    """Query the facts with SQL.

    Every table is a view, as `fleetscan tables` describes it. The views show one run; those in
    the schema `history` show all runs.
    """
    from fleetscan.appliance.host.child import limited_memory, sql_memory
    from fleetscan.scanner.store import mirror
    from fleetscan.scanner.store.views import connect, stream

    text = sys.stdin.read() if sql == "-" else sql
    past = mirror.has_all(facts) or "history" in text.lower()
    mirror.fetch(facts, run, past=past)
    with (
        limited_memory("the query"),
        contextlib.closing(
            connect(facts, run, history=True, past=past, memory_limit=sql_memory())
        ) as connection,
    ):
        reader = stream(connection, text)
        names = reader.schema.names
        if output_format is QueryOutput.CSV:
            output.csv_rows(names, _rows(reader))
        elif output_format is QueryOutput.JSON:
            # Not as dictionaries by themselves: a query may give two columns one name.
            output.json_array(dict(zip(names, row, strict=True)) for row in _rows(reader))
        else:
            output.table(names, _rows(reader))
    return exits.FINE


def _rows(reader: pa.RecordBatchReader) -> Iterator[tuple[Any, ...]]:  # Any: Arrow's values
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@app.command(epilog=examples("fleetscan tables", "fleetscan tables packages"))
def tables(
    name: Annotated[str | None, typer.Argument(help="A fact table.")] = None,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the reference of all tables, as Markdown."),
    ] = False,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """List the tables, or describe one with its columns."""
    from fleetscan.scanner.table_reference import markdown as reference
    from fleetscan.scanner.tables import load_all_tables

    known = load_all_tables()
    if markdown:
        sys.stdout.write(reference())
        return exits.FINE
    if name is not None and name not in known:
        raise UsageError(f"there is no table {name!r}", hint=f"the tables are {', '.join(known)}")
    if output_format is output.Output.JSON:
        output.json_object([_described(known[one]) for one in ([name] if name else known)])
    elif name is None:
        output.table(("table", ""), [(one.name, one.summary) for one in known.values()])
    else:
        _print_table(known[name])
    return exits.FINE


def _described(table: Table) -> dict[str, object]:
    from fleetscan.scanner.store.arrow import all_columns

    return {
        "name": table.name,
        "summary": table.summary,
        "description": table.description,
        "columns": [
            {
                "name": column.name,
                "type": column.kind.value,
                "unit": column.unit,
                "nullable": column.nullable,
                "values": list(column.values),
                "description": column.description,
            }
            for column in all_columns(table)
        ],
    }


def _print_table(table: Table) -> None:
    from fleetscan.scanner.store.arrow import all_columns
    from fleetscan.scanner.table_reference import scope_name, type_name

    output.paragraph(f"{table.name}: {table.summary} Rows for {scope_name(table)}.")
    for part in table.description.split("\n\n"):
        output.line()
        output.paragraph(part)
    for column in all_columns(table):
        output.heading(f"{column.name} ({type_name(column)})")
        example = f" Example: {column.example}" if column.example else ""
        output.paragraph(column.description + example, "    ")


_RUNS_EXAMPLES = examples(
    "fleetscan runs --facts facts",
    "fleetscan runs --facts facts --keep 30",
    "fleetscan runs verify --facts facts",
    "fleetscan runs --facts facts --publish 20260131T020304Z-3f9a1c",
)


class RunsAction(enum.StrEnum):
    """What ``runs`` does other than listing them."""

    VERIFY = "verify"


@app.command(epilog=_RUNS_EXAMPLES)
def runs(
    facts: Facts,
    action: Annotated[
        RunsAction | None,
        typer.Argument(
            metavar="[verify]",
            help="verify: read every file of the runs and compare it with its recorded checksum; "
            "status 1 if a run is damaged.",
        ),
    ] = None,
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Verify this run only.")] = None,
    publish: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Publish an unfinished run with its finished machines."),
    ] = None,
    abandon: Annotated[
        str | None, typer.Option(metavar="RUN", help="Remove an unfinished run.")
    ] = None,
    delete: Annotated[str | None, typer.Option(metavar="RUN", help="Delete a run.")] = None,
    keep: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Delete all but the newest N runs.")
    ] = None,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """List the runs in a facts directory.

    Options that publish, abandon or delete runs take effect before the list is printed. Facts of a
    deleted run that other runs need are copied into the newest of them.
    """
    from fleetscan.scanner.store import mirror
    from fleetscan.scanner.store.runs import Store

    mirror.fetch_runs(facts)
    store = Store(facts)
    if action is RunsAction.VERIFY:
        return verify_runs(store, run, output_format)
    if run:
        raise UsageError("--run is for verify", hint=f"fleetscan runs verify --run {run}")
    if publish:
        store.resume(publish).finish(interrupted=True)
    if abandon:
        store.resume(abandon).abandon()
    if delete:
        with mirror.deleting(facts, [delete]):
            store.delete(delete)
    if keep:
        with mirror.deleting(facts, store.run_ids()[:-keep]):
            deleted = store.prune(keep=keep)
        for run_id in deleted:
            output.message(f"deleted {run_id}")
    _print_runs(store, output_format)
    return exits.FINE


def _readable_runs(store: Store) -> tuple[list[RunInfo], dict[str, str]]:
    """The visible runs, and what is wrong with those whose run file cannot be read."""
    listed, damaged = [], {}
    for run_id in store.run_ids():
        try:
            listed.append(store.run(run_id))
        except StoreError as error:
            damaged[run_id] = error.told
    return listed, damaged


def _print_runs(store: Store, output_format: output.Output) -> None:
    from fleetscan.scanner.store.remote import shown
    from fleetscan.scanner.tables.machines.spec import Outcome

    listed, damaged = _readable_runs(store)
    unfinished = store.unfinished()
    running = store.running()
    resumable = [run_id for run_id in unfinished if run_id not in running]
    if output_format is output.Output.JSON:
        output.json_object(
            {
                "runs": [info.to_json() for info in listed],
                "running": [
                    {"run_id": run_id, "host": owner.host, "pid": owner.pid, "since": owner.since}
                    for run_id, owner in running.items()
                ],
                "unfinished": resumable,
                "damaged": [
                    {"run_id": run_id, "error": error} for run_id, error in damaged.items()
                ],
            }
        )
        return
    rows = [
        (
            *(info.run_id, info.started, info.machines),
            *(info.outcomes.get(name, 0) for name in Outcome),
            "interrupted" if info.interrupted else "",
        )
        for info in listed
    ]
    output.table(("run", "started", "machines", *Outcome, ""), rows)
    for run_id, error in damaged.items():
        output.line(f"{run_id} is damaged: {error}")
    for run_id, owner in running.items():
        output.line(f"{run_id} is running {owner}")
    for run_id in resumable:
        output.line(
            f"{run_id} is unfinished: "
            f"fleetscan scan --facts {shlex.quote(shown(store.path))} --resume {run_id}"
        )
