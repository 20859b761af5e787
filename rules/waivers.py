"""Waivers over results: live ones turn fail into waived, expired ones say so."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import duckdb

from fleetscan.rules.model import Waiver

# Of several waivers that match, a live one counts before an expired one, then the one that
# lasts longest, then the one that comes first in its file.
_MATCHES = """
CREATE TEMP TABLE _matches AS
SELECT r.machine_id, r.root, r.rule_id, list(w.number) AS numbers,
    arg_min(w.number, (w.expires < $today, $today - w.expires, w.number)) AS best
FROM _results r
JOIN _waivers w ON r.rule_id GLOB w.rule AND r.machine_id GLOB w.machine
WHERE r.state = 'fail'
GROUP BY ALL
"""

_WAIVED = """
CREATE TEMP TABLE _waived AS
SELECT r.* REPLACE (
        CASE WHEN w.expires >= $today THEN 'waived' ELSE r.state END AS state,
        CASE WHEN w.expires < $today
            THEN concat_ws('; ', 'the waiver expired on ' || w.expires, r.message)
            ELSE r.message
        END AS message
    ),
    w.justification AS waiver_justification,
    w.expires AS waiver_expires
FROM _results r
LEFT JOIN _matches m
    ON m.machine_id = r.machine_id AND m.root IS NOT DISTINCT FROM r.root
    AND m.rule_id = r.rule_id
LEFT JOIN _waivers w ON w.number = m.best
"""


def apply(
    connection: duckdb.DuckDBPyConnection, waivers: Sequence[Waiver], today: dt.date
) -> tuple[Waiver, ...]:
    """Make the table ``_waived`` from ``_results``; returns the waivers that matched nothing."""
    connection.execute(
        "CREATE TEMP TABLE _waivers(number INTEGER, rule VARCHAR, machine VARCHAR, "
        "justification VARCHAR, expires DATE)"
    )
    try:
        for number, waiver in enumerate(waivers):
            values = [number, waiver.rule, waiver.machine, waiver.justification, waiver.expires]
            connection.execute("INSERT INTO _waivers VALUES (?, ?, ?, ?, ?)", values)
        connection.execute(_MATCHES, {"today": today})
        connection.execute(_WAIVED, {"today": today})
        rows = connection.execute("SELECT DISTINCT unnest(numbers) FROM _matches").fetchall()
        used = {row[0] for row in rows}
        return tuple(waiver for number, waiver in enumerate(waivers) if number not in used)
    finally:
        connection.execute("DROP TABLE IF EXISTS temp._matches")
        connection.execute("DROP TABLE IF EXISTS temp._waivers")
