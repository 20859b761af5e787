"""``fleetscan check`` and ``report``: rules over a run's facts, and what they found."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetscan.appliance.ground.errors import FleetscanError, UsageError
from fleetscan.appliance.host import writing
from fleetscan.reports.formats import load_formats
from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.options import (
    Facts,
    FailOver,
    OutputFormat,
    Packs,
    RunId,
    Verbose,
    examples,
)
from fleetscan.scanner.cli.parameters import parameter, standing_for
from fleetscan.scanner.tables.results.spec import ResultState, Severity

if TYPE_CHECKING:
    import pyarrow as pa

    from fleetscan.reports.report_process import WantedReport
    from fleetscan.rules.model import Pack
    from fleetscan.rules.results import Results

_NEVER = "none"

_BATCH_ROWS = 1000
_NAMED = 5  # machines or rules that a message names


def _fail_on(text: str) -> Severity | None:
    """What ``--fail-on`` says: the least severity of a failing rule that makes check exit with 2.

    Raises:
        typer.BadParameter: it is neither a severity nor none.
    """
    if text == _NEVER:
        return None
    try:
        return Severity(text)
    except ValueError as error:
        known = ", ".join(map(repr, (*map(str, Severity), _NEVER)))
        raise typer.BadParameter(f"{text!r} is not one of {known}.") from error


_CHECK_EXAMPLES = examples(
    "fleetscan check --facts facts",
    "fleetscan check --facts facts --pack linux-baseline --pack ./our-rules --fail-on medium",
    "fleetscan check --facts facts --waivers waivers.yaml --output json",
)


@app.command(epilog=_CHECK_EXAMPLES)
def check(
    facts: Facts,
    run: RunId = None,
    pack: Packs = None,
    waivers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Accepted risks; failures that match are reported as waived."
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Your site's settings: deselected rules, and parameters of rules."
        ),
    ] = None,
    fail_on: Annotated[
        Severity | None,
        typer.Option(
            parser=_fail_on,
            metavar="|".join((*Severity, _NEVER)),
            help="Exit with status 2 if a rule of this severity or above fails.",
        ),
    ] = Severity.HIGH,
    fail_over: FailOver = None,
    output_format: OutputFormat = output.Output.TEXT,
    verbose: Verbose = 0,
) -> int:
    """Evaluate rules over a run's facts and store the results.

    If no rule fails, but nothing could be looked at on some machine, or some rule gave nothing but
    errors, the exit status is 3.
    """
    from fleetscan.rules.evaluate import evaluate_run
    from fleetscan.rules.judging_process import JudgingProcess
    from fleetscan.rules.load import load_config, load_packs, load_waivers
    from fleetscan.rules.results import write_results
    from fleetscan.scanner.store import layout, mirror
    from fleetscan.scanner.store.files import check_writable

    with JudgingProcess() as process:
        packs = load_packs(pack or ())
        given = load_waivers(waivers) if waivers else ()
        site = load_config(config, packs) if config else None
        mirror.check_usable(facts)
        run_id = _run_id(facts, run)
        check_writable(layout.results_folder(facts, run_id))
        results = evaluate_run(process, facts, run_id, packs, waivers=given, config=site)
    write_results(results, facts, run_id)
    mirror.send_results(facts, run_id)
    if output_format is output.Output.JSON:
        _print_json(results, run_id)
    else:
        _print_text(results, run_id, packs)
    for waiver in results.unused_waivers:
        output.message(f"fleetscan: no failure matches the waiver {waiver.rule} {waiver.machine}")
    return _status(results, fail_on, fail_over)


def _status(results: Results, fail_on: Severity | None, fail_over: float | None) -> int:
    """How check ends; what had no verdict is reported on standard error."""
    machines = len(results.table.column("machine_id").unique())
    unjudged, broken = results.unjudged(), results.broken()
    if unjudged:
        output.message(
            f"fleetscan: no rule has a verdict on {len(unjudged)} of {machines} machines: "
            f"{_listed(unjudged)}"
        )
    if broken:
        output.message(f"fleetscan: rules that gave nothing but errors: {_listed(broken)}")
    if not results.says_anything:
        output.message("fleetscan: no rule has a verdict on any machine: nothing was checked")
    lost = exits.of_share(len(unjudged), machines, fail_over)
    if lost == exits.FAILED:
        return lost
    if fail_on is not None and results.findings(fail_on):
        return exits.FINDINGS
    return exits.NOT_SCANNED if lost or broken or not results.says_anything else exits.FINE


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _run_id(facts: Path, run: str | None) -> str:
    """The run that is asked for, once its facts are available."""
    from fleetscan.scanner.store import mirror
    from fleetscan.scanner.store.runs import Store

    mirror.fetch(facts, run)
    return (Store(facts).run(run) if run else Store(facts).latest()).run_id


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:  # Any: whatever values Arrow gives
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


def _print_json(results: Results, run_id: str) -> None:
    counts = [
        {"severity": severity, "state": state, "results": count}
        for (severity, state), count in sorted(results.counts().items())
    ]
    head = {"run_id": run_id, "counts": counts}
    sys.stdout.write(output.json_text(head).removesuffix("}") + ',\n"results": ')
    output.json_array(_rows(results.table))
    sys.stdout.write("}\n")


def _print_text(results: Results, run_id: str, packs: Sequence[Pack]) -> None:
    counts = results.counts()
    shown = [state for state in ResultState if any(found == state for _, found in counts)]
    output.line(f"run {run_id}")
    output.table(
        ("severity", *shown),
        [
            (severity, *(counts.get((severity, state), 0) for state in shown))
            for severity in Severity
            if any(found == severity for found, _ in counts)
        ],
    )
    failing = _failing_rules(results, packs)
    if failing:
        output.heading("failing rules")
        output.table(("severity", "rule", "problem", "failures", "one of them"), failing, "  ")


def _failing_rules(
    results: Results, packs: Sequence[Pack]
) -> list[tuple[Severity, str, str, int, str]]:
    """Severity, id, problem, number of failures and one machine of each failing rule."""
    problems = {rule.id: rule.failing for pack in packs for rule in pack.rules}
    found: dict[str, tuple[Severity, str, str, int, str]] = {}
    failures = results.table.select(["severity", "rule_id", "title", "state", "machine_id"])
    for row in _rows(failures):
        if row["state"] == ResultState.FAIL:
            before = found.get(row["rule_id"])
            found[row["rule_id"]] = (
                *(Severity(row["severity"]), row["rule_id"]),
                problems.get(row["rule_id"]) or row["title"],
                before[3] + 1 if before else 1,
                before[4] if before else row["machine_id"],
            )
    return sorted(found.values(), key=lambda rule: (rule[0].rank, -rule[3], rule[1]))


_FORMAT_PARAMETERS = [
    parameter(name, str | None, typer.Option(f"--{name}", metavar="FILE", help=one.help))
    for name, one in load_formats().items()
]

_REPORT_EXAMPLES = examples(
    "fleetscan report --facts facts --html report.html",
    "fleetscan report --facts facts --json - | jq .summary",
)


@app.command(epilog=_REPORT_EXAMPLES)
@standing_for("targets", _FORMAT_PARAMETERS, dict)
def report(
    *,
    facts: Facts,
    run: RunId = None,
    targets: Mapping[str, str | None],
    pack: Packs = None,
    title: Annotated[str, typer.Option(help="Heading of the report.")] = "Fleet report",
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="Permissions of the files, such as 644; if not given, the umask decides, and they "
            "are at most 640.",
        ),
    ] = None,
    verbose: Verbose = 0,
) -> int:
    """Write a report on a run, in one or several formats.

    It shows the machines, the results of check, and what went wrong.
    """
    from fleetscan.reports.report_process import WantedReport
    from fleetscan.rules.load import load_packs

    if not any(targets.values()):
        flags = " or ".join(f"--{name} FILE" for name in targets)
        raise UsageError("no report was requested", hint=f"give {flags}, or several of them")
    permissions = _permissions(mode)
    rules = [rule for one in load_packs(pack or ()) for rule in one.rules]
    run_id = _run_id(facts, run)
    _say_when_unchecked(facts, run_id)
    generated = dt.datetime.now(dt.UTC)
    for form, target in targets.items():
        if target:
            _write(target, WantedReport(facts, run_id, form, generated, rules, title), permissions)
    return exits.FINE


def _say_when_unchecked(facts: Path, run_id: str) -> None:
    from fleetscan.rules.results import has_results

    if not has_results(facts, run_id):
        output.message(
            f"fleetscan: the report shows facts alone: run {run_id} has no results yet "
            "(run fleetscan check to get them)"
        )


def _permissions(mode: str | None) -> int:
    """What a report's file may be done with, and by whom; it names weaknesses."""
    if mode is None:
        return 0o640 & ~writing.umask()
    if not re.fullmatch("0?[0-7]{3}", mode):
        raise UsageError(
            f"{mode!r} is not a file mode", hint="give three octal digits, such as 644"
        )
    return int(mode, 8)


def _write(target: str, wanted: WantedReport, mode: int) -> None:
    """Write a report under its name when it is complete; - is standard output."""
    if target == "-":
        with tempfile.NamedTemporaryFile() as printed:
            _render(wanted, Path(printed.name))
            sys.stdout.flush()
            shutil.copyfileobj(printed, sys.stdout.buffer)
        return
    try:
        with writing.replacing(Path(target), mode=mode) as stream:
            _render(wanted, Path(f"/proc/{os.getpid()}/fd/{stream.fileno()}"))
    except OSError as error:
        raise FleetscanError(
            f"{target} cannot be written: {error.strerror}",
            hint="give a file in an existing directory that you can write to; - prints the report",
        ) from error
    output.message(f"wrote {target}")


def _render(wanted: WantedReport, path: Path) -> None:
    from fleetscan.reports.report_process import write_report

    for section, reason in write_report(wanted, path).items():
        output.message(f"fleetscan: warning: could not be computed: {section} ({reason})")
