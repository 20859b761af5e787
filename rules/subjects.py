"""The machines and roots that rules are about, and what could not be inspected on them.

Both are worked out once for all rules, as temporary tables of the connection:

* ``_subjects``: every machine and root of the run. A machine that failed, or on which no
  operating system was found, is one subject without root, with the reason in ``failure``.
* ``_problems``: for every subject and every table that some rule reads, why the table is not
  ``ok``: the state that this gives a rule, and its message. ``rank`` orders them, gravest first;
  ``lenient`` are those that a rule's ``empty_ok`` forgives, and ``unread`` the files, and the
  directories with all below them, that are all that lacks, so that rules which look at other files
  are spared. Had such a table no rows at all, it is for them an empty one. ``part`` and ``key``
  tell what coverage says of the table from what was not mounted (see rules.unmounted).
* ``_unread``: a row for each of the files in ``unread``, and for what links lead there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple

import duckdb

from fleetscan.appliance.ground.schema import Scope
from fleetscan.rules import unmounted
from fleetscan.rules.query import MESSAGE_TEXT
from fleetscan.scanner.store.end_of_life import load_end_of_life
from fleetscan.scanner.tables import load_tables

OWN_BOOKS = frozenset({"machines", "coverage", "left_out"})
"""Tables that the run itself keeps for every machine, and that are therefore always there."""

REFERENCE = frozenset({"end_of_life"})
"""Views that the engine adds to the fact tables."""

NOT_ASKED = "not asked for"
"""How coverage.error begins when the user left a table out."""

_SUBJECTS = """
CREATE TEMP TABLE _subjects AS
WITH roots AS (
    SELECT machine_id, root FROM operating_systems
    UNION
    SELECT machine_id, root FROM coverage WHERE root IS NOT NULL
)
SELECT
    m.run_id,
    m.machine_id,
    r.root,
    CASE
        WHEN m.outcome = 'failed'
            THEN coalesce(left(m.error, $text), 'the machine could not be scanned')
        WHEN r.root IS NULL THEN coalesce(left(m.error, $text), 'no operating system was found')
    END AS failure
FROM machines m
LEFT JOIN roots r ON r.machine_id = m.machine_id AND m.outcome <> 'failed'
"""

_PROBLEMS = """
CREATE TEMP TABLE _problems AS
WITH looked_for AS (
    SELECT s.machine_id, s.root, t.table_name, CASE WHEN t.per_root THEN s.root END AS place
    FROM _subjects s, _tables t
    WHERE s.failure IS NULL
), found AS (
    SELECT
        l.machine_id,
        l.root,
        l.table_name,
        left(c.error, $text) AS error,
        c.unread,
        c.rows,
        CASE
            WHEN c.status IS NULL THEN 'missing'
            WHEN c.status = 'not_applicable' AND starts_with(c.error, $not_asked) THEN 'not_asked'
            ELSE c.status
        END AS kind
    FROM looked_for l
    LEFT JOIN coverage c
        ON c.machine_id = l.machine_id
        AND c.table_name = l.table_name
        AND c.root IS NOT DISTINCT FROM l.place
), kinds AS (
    SELECT * REPLACE (CASE WHEN kind = 'failed' AND len(unread) > 0 THEN unread END AS unread)
    FROM found
    UNION ALL
    SELECT * REPLACE ('empty' AS kind, NULL AS unread)
    FROM found WHERE kind = 'failed' AND len(unread) > 0 AND rows = 0
)
SELECT
    machine_id,
    root,
    table_name,
    CASE kind
        WHEN 'failed' THEN 0 WHEN 'missing' THEN 0 WHEN 'not_asked' THEN 1
        WHEN 'not_applicable' THEN 2 ELSE 3
    END AS rank,
    CASE kind
        WHEN 'not_asked' THEN 'notchecked' WHEN 'not_applicable' THEN 'notapplicable'
        ELSE 'unknown'
    END AS state,
    table_name || ': ' || CASE kind
        WHEN 'failed' THEN coalesce(error, 'could not be gathered')
        WHEN 'missing' THEN 'was not gathered'
        WHEN 'not_asked' THEN error
        WHEN 'not_applicable' THEN coalesce(error, 'does not apply')
        ELSE 'nothing was found, so nothing was checked'
    END AS message,
    kind IN ('empty', 'not_applicable') AS lenient,
    unread,
    'table' AS part,
    '' AS key
FROM kinds
WHERE kind <> 'ok'
"""

TEMPORARY = ("_subjects", "_tables", "_problems", "_unread", "_frontier", *REFERENCE)


def prepare(connection: duckdb.DuckDBPyConnection, read: Collection[str]) -> None:
    """Make the temporary tables.

    Args:
        connection: with the fact views.
        read: tables that some rule reads; those that do not exist are left to the rules.
    """
    tables = load_tables()
    connection.execute(_SUBJECTS, {"text": MESSAGE_TEXT})
    connection.execute("CREATE TEMP TABLE _tables(table_name VARCHAR, per_root BOOLEAN)")
    for name in sorted((set(read) & set(tables)) - OWN_BOOKS):
        per_root = tables[name].scope is Scope.ROOT
        connection.execute("INSERT INTO _tables VALUES (?, ?)", [name, per_root])
    connection.execute(_PROBLEMS, {"not_asked": NOT_ASKED, "text": MESSAGE_TEXT})
    if unmounted.WALKED & set(read):
        unmounted.add_problems(connection)
    unmounted.follow_links(connection)
    if REFERENCE & set(read):
        _add_end_of_life(connection)


def _add_end_of_life(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "CREATE TEMP TABLE end_of_life"
        "(distro VARCHAR, release VARCHAR, eol DATE, source VARCHAR, taken DATE)"
    )
    rows = load_end_of_life()
    values = [value for row in rows for value in astuple(row)]
    places = ", ".join(["(?, ?, ?, ?, ?)"] * len(rows))
    connection.execute(f"INSERT INTO end_of_life VALUES {places}", values)  # noqa: S608 - only ?


def clean_up(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop the tables that prepare made, even if it did not finish."""
    for name in TEMPORARY:
        connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
