"""The HTML report: one file that needs nothing else, for auditors and for print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

import duckdb
import jinja2
import pyarrow as pa
from markupsafe import Markup

from fleetscan.reports import states, text
from fleetscan.reports.charts import draw_charts
from fleetscan.reports.compose import DEFAULT_TITLE, build_report
from fleetscan.reports.contents import Report, ReportLimits
from fleetscan.reports.report_database import attached
from fleetscan.reports.sections import Sections
from fleetscan.reports.states import RuleText
from fleetscan.scanner.tables.machines.spec import Outcome
from fleetscan.scanner.tables.results.spec import DECIDED, UNDECIDED, ResultState, Severity

_ROW_CHARACTERS = 300  # of one offending row; with ReportLimits this bounds the file's size
_MACHINE_COLUMNS = ("run_id", "machine_id", "root")
_WEB = ("https://", "http://")

OUTCOME_WORDS = {Outcome.OK: "scanned", Outcome.PARTIAL: "in part", Outcome.FAILED: "failed"}
"""Outcomes as words in the list of machines."""

LEFT_OUT_WORDS = {
    "base": "base of {}",
    "extent": "part of a disk of {}",
    "alias": "another name of {}",
    "bundle": "part of a Parallels bundle",
    "unlisted": "not listed in its folder's machine.yaml",
}
"""What an image that is not a machine is instead; {} is replaced by the machines it belongs to."""


@dataclass(frozen=True)
class Field:
    """One value of an offending row, and how many of its characters are shown."""

    name: str
    value: str
    limit: int


def render_html(
    connection: duckdb.DuckDBPyConnection,
    results: pa.Table | None,
    *,
    rules: Iterable[RuleText] = (),
    title: str = DEFAULT_TITLE,
    generated: datetime,
    limits: ReportLimits | None = None,
    sections: Sections | None = None,
) -> Iterator[str]:
    """The report as pieces of HTML; encode them as UTF-8.

    All queries have run when this returns, so an error leaves no half document.

    Args:
        connection: one view for every fact table, holding the rows of one run.
        results: columns as in :data:`fleetscan.rules.results.SCHEMA`; None when no
            rule was evaluated, which the report then says.
        rules: texts of the rules.
        title: the report's heading.
        generated: when the report is made, with its time zone.
        limits: how many rows lists show; the defaults keep the file below 5 MB for 10,000
            machines.
        sections: computes what depends on guests' values, and says what it could not.

    Raises:
        SectionLostError: a section cannot be computed, and no other after it.
    """
    sections = sections or Sections()
    with attached(connection, results) as db:
        report = build_report(
            db,
            checked=results is not None,
            rules=rules,
            title=title,
            generated=generated,
            limits=limits,
            sections=sections,
        )
    return page(report, sections)


def page(report: Report, sections: Sections | None = None) -> Iterator[str]:
    """A report's values as pieces of HTML."""
    sections = sections or Sections()
    template = _environment().get_template("report.html.j2")
    context = {
        "report": report,
        "charts": draw_charts(report, sections),
        "problems": sections.problems,
        "severities": tuple(Severity),
        "undecided": UNDECIDED,
        "due_states": [state for state in ResultState if state in DECIDED + UNDECIDED],
        "state_words": states.WORDS,
        "outcome_words": OUTCOME_WORDS,
        "left_out_words": LEFT_OUT_WORDS,
    }
    return template.generate(context)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fleetscan.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "guest": guest,
        "fields": fields,
        "link": link,
        "bytes": text.human_bytes,
        "count": text.count,
        "duration": text.duration,
        "when": text.when,
        "iso": text.iso,
        "plural": plural,
    }
    environment.globals |= {"percent": text.percent}
    return environment


def guest(value: str | None, limit: int = text.GUEST_LIMIT) -> Markup:
    """A guest string as HTML that cannot affect the text around it.

    ``<bdi>`` keeps right-to-left text from reordering its surroundings.
    """
    if value is None:
        return Markup("")
    parts = (
        Markup("<i>{}</i>").format(piece) if spelt else Markup.escape(piece)
        for piece, spelt in text.pieces(value, limit)
    )
    return Markup("<bdi>{}</bdi>").format(Markup("").join(parts))


def fields(evidence: str) -> list[Field]:
    """An offending row's columns and values, without those that name the machine."""
    try:
        row = json.loads(evidence)
    except (ValueError, RecursionError):  # cut short by the limit, or not JSON at all
        row = None
    if not isinstance(row, dict):
        return [Field("", evidence, _ROW_CHARACTERS)]
    shown = []
    left = _ROW_CHARACTERS
    for name, value in row.items():
        if value is not None and name not in _MACHINE_COLUMNS and left > 0:
            text_of = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            shown.append(Field(name, text_of, min(text.GUEST_LIMIT, left)))
            left -= len(name) + len(text_of)
    return shown


def link(reference: str) -> Markup:
    """A rule's reference, as a link where it is a web address."""
    if reference.startswith(_WEB):
        return Markup('<a href="{0}" rel="noopener noreferrer">{0}</a>').format(reference)
    return Markup.escape(reference)


def plural(number: int, singular: str, several: str = "") -> str:
    """A number with its noun.

    >>> plural(1, "machine"), plural(2000, "entry", "entries")
    ('1 machine', '2,000 entries')
    """
    noun = singular if number == 1 else several or singular + "s"
    return f"{text.count(number)} {noun}"
