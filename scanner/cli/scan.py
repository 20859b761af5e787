"""``fleetscan scan``: a fleet of machines becomes a run of facts."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleetscan.appliance.ground.errors import FleetscanError, UsageError
from fleetscan.scanner.cli import exits, output
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.options import Facts, FailOver, OutputFormat, Verbose, examples
from fleetscan.scanner.cli.parameters import parameter, standing_for
from fleetscan.scanner.cli.resume import Given, leave, resumed, settings_of
from fleetscan.scanner.cli.scan_options import takes_options
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources import absolute
from fleetscan.scanner.sources.kinds import load_kinds
from fleetscan.scanner.tables.machines.spec import Outcome

if TYPE_CHECKING:
    from fleetscan.scanner.cluster import ClusterOptions
    from fleetscan.scanner.cluster_tls import Certificates
    from fleetscan.scanner.fleet_events import FleetSummary
    from fleetscan.scanner.fleet_tasks import FleetOptions
    from fleetscan.scanner.sources import Machine
    from fleetscan.scanner.store.run import Run


_KINDS = {kind.flag.lstrip("-").replace("-", "_"): kind for kind in load_kinds() if kind.flag}

_SOURCE_PARAMETERS = [
    parameter(name, list[str] | None, typer.Option(kind.flag, metavar=kind.metavar, help=kind.help))
    for name, kind in _KINDS.items()
]


def _named_sources(values: Mapping[str, Sequence[str] | None]) -> list[str]:
    return [kind.named(value) for name, kind in _KINDS.items() for value in values[name] or ()]


_EXAMPLES = examples(
    "fleetscan scan /srv/images --facts facts",
    "fleetscan scan fleet.yaml --facts facts -P 4 --files notable",
    "fleetscan scan /srv/images --facts facts --exclude 'templates/*'",
    "fleetscan scan --facts facts --resume 20260131T020304Z-3f9a1c",
    "",
    "An inventory lists machines, as YAML or JSON, or as CSV with id, path, format:",
    "  - id: web01",
    "    disks: [/srv/web01.qcow2, {path: data.img, format: raw}]",
)


@app.command(epilog=_EXAMPLES)
@standing_for("more_sources", _SOURCE_PARAMETERS, _named_sources)
@takes_options("scan")
def scan(
    *,
    facts: Facts,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Folders, images or inventory files."),
    ] = None,
    more_sources: Sequence[str],
    slots: Annotated[
        int | None,
        typer.Option(
            "-P",
            metavar="N",
            min=1,
            help="Machines to scan at a time; depends on CPUs and memory if not given.",
        ),
    ] = None,
    options: ScanOptions,
    rescan: Annotated[
        bool,
        typer.Option("--rescan", help="Also scan unchanged machines."),
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Resume an interrupted run."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use an existing Dask cluster: tls://host:8786."),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Certificate of the authority that signed that cluster's certificates, as PEM.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The client's certificate for that cluster, as PEM."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The private key of the client's certificate, as PEM."),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Use a cluster on other hosts without TLS (tcp://)."),
    ] = False,
    dashboard: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Serve Dask's dashboard at this address, such as 127.0.0.1:8787.",
        ),
    ] = None,
    fail_over: FailOver = None,
    output_format: OutputFormat = output.Output.TEXT,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
    verbose: Verbose = 0,
) -> int:
    """Scan machines, each in its own VM, and store their facts.

    In a folder, each image file at any depth is a machine; a sub-folder with a machine.yaml that
    lists disks is one machine with several disks.
    """
    from fleetscan.scanner.cluster import ClusterOptions, check_options

    named = [absolute(source) for source in (*(sources or ()), *more_sources)]
    given = Given(named, options)
    cluster = ClusterOptions(
        slots,
        scheduler,
        dashboard,
        certificates=_certificates(tls_ca, tls_cert, tls_key),
        insecure=insecure,
    )
    check_options(cluster)
    _check_place(facts, cluster)
    run, asked = resumed(facts, resume, given) if resume else (None, given)
    return _scan(
        facts,
        asked,
        given,
        run,
        cluster,
        output_format,
        quiet=quiet,
        rescan=rescan,
        fail_over=fail_over,
    )


def _certificates(
    ca: Path | None, certificate: Path | None, key: Path | None
) -> Certificates | None:
    from fleetscan.scanner.cluster_tls import Certificates

    if ca and certificate and key:
        return Certificates(ca.absolute(), certificate.absolute(), key.absolute())
    if ca or certificate or key:
        raise UsageError(
            "--tls-ca, --tls-cert and --tls-key must be given together",
            hint="give all three, or none of them to use Dask's own configuration",
        )
    return None


def _scan(
    facts: Path,
    asked: Given,
    given: Given,
    run: Run | None,
    cluster: ClusterOptions,
    output_format: output.Output,
    *,
    quiet: bool,
    rescan: bool,
    fail_over: float | None,
) -> int:
    from fleetscan.scanner.fleet_tasks import FleetOptions
    from fleetscan.scanner.reuse import EarlierFacts
    from fleetscan.scanner.store import mirror
    from fleetscan.scanner.store.runs import Store

    machines = _machines(asked, given)
    own = cluster.scheduler is None  # workers elsewhere see to it themselves
    if own:
        _require_programs(asked)
    with ThreadPoolExecutor(1) as beside:
        finding = beside.submit(_appliance, required=own)
        importlib.import_module("fleetscan.scanner.fleet")  # takes as long as the checksums
        appliance = finding.result()
    if own:
        _require_start(machines, asked)
    settings = settings_of(asked)
    earlier = None
    if appliance and not rescan:
        mirror.fetch_known(facts)
        earlier = EarlierFacts(facts, settings, appliance)
    run = run or Store(facts).begin([machine.machine_id for machine in machines], settings=settings)
    options = FleetOptions(machine=asked.options, earlier=earlier, cluster=cluster)
    summary = _scanned(run, machines, given, options, quiet=quiet)
    if output_format is output.Output.JSON:
        output.json_object(_as_json(summary, facts))
    else:
        _print_summary(summary, facts)
        _print_left_out(machines)
    if summary.interrupted:
        return exits.INTERRUPTED
    return exits.of_share(summary.outcomes["failed"], summary.machines, fail_over)


def _check_place(facts: Path, cluster: ClusterOptions) -> None:
    """Refuse a place for facts before anything is scanned that could not be published there."""
    from fleetscan.scanner.store import mirror

    if facts.exists() and not facts.is_dir():
        raise UsageError(
            f"{str(facts)!r} is not a directory",
            hint="--facts takes a directory, which is made if it is not there",
        )
    if cluster.scheduler is not None and not mirror.has_all(facts):
        raise UsageError(
            "--scheduler needs a facts directory that its workers can write to, and not a URL",
            hint="scan into a directory that all hosts share",
        )
    mirror.check_usable(facts)
    mirror.fetch_runs(facts)


def _require_programs(asked: Given) -> None:
    from fleetscan.appliance.confinement import layers
    from fleetscan.appliance.doctor import require_programs_and_memory

    layers.require(asked.options.appliance.confinement)
    require_programs_and_memory()


def _require_start(machines: Sequence[Machine], asked: Given) -> None:
    """Find out before the first machine what would make all of them fail."""
    from fleetscan.scanner.isolation import require_start

    options = asked.options
    keys = bool(options.secrets.keys) or any(machine.keys for machine in machines)
    require_start(options.appliance, keys=keys)


def _scanned(
    run: Run,
    machines: Sequence[Machine],
    given: Given,
    options: FleetOptions,
    *,
    quiet: bool,
) -> FleetSummary:
    """Scan a run's machines; if it is not finished then, print how to resume it."""
    from fleetscan.scanner.fleet import scan_fleet
    from fleetscan.scanner.progress import FleetProgress

    with run.owned():
        total = len(run.machine_ids) - len(run.finished())
        try:
            with FleetProgress(total, output.stderr(), quiet=quiet) as progress:
                summary = scan_fleet(machines, run, options, progress)
        except FleetscanError:
            leave(run, machines, given)
            raise
        if summary.interrupted:
            leave(run, machines, given)
    return summary


def _machines(asked: Given, given: Given) -> list[Machine]:
    """The machines of the sources.

    Raises:
        UsageError: there are none, or keys of an inventory that only a plan names.
    """
    from fleetscan.scanner.sources import find_machines

    if not asked.sources:
        raise UsageError("no source was given", hint="give a folder, image or inventory file")
    machines = find_machines(asked.sources, asked.options.sources)
    if not machines:
        raise UsageError(
            "there are no machines to scan",
            hint="check the sources, --include and --exclude; -vv names files that are not images",
        )
    if not given.sources and any(machine.keys for machine in machines):
        raise UsageError(
            "machines of this run have keys, and a resumed run does not take keys from its plan",
            hint=f"give the sources again: {shlex.join(asked.sources)}",
        )
    return machines


def _appliance(*, required: bool) -> str | None:
    """Content address of this host's appliance, once its files were compared with their checksums.

    Workers elsewhere have their own.
    """
    from fleetscan.appliance import built
    from fleetscan.scanner.isolation import appliance_address

    try:
        appliance = built.find()
        built.verify(appliance)
        return appliance_address(appliance)
    except FleetscanError:
        if required:
            raise  # without an appliance every machine would fail, one by one
        return None


def _as_json(summary: FleetSummary, facts: Path) -> dict[str, object]:
    from fleetscan.scanner.store.remote import shown

    return asdict(summary) | {"facts": shown(facts)}


def _print_left_out(machines: Sequence[Machine]) -> None:
    paths = {file.path for machine in machines for file in machine.left_out}
    if paths:
        number = f"{len(paths)} image{'s belong' if len(paths) > 1 else ' belongs'}"
        output.line(f"{number} to other machines: see the table left_out")


def _print_summary(summary: FleetSummary, facts: Path) -> None:
    from fleetscan.scanner.progress import duration
    from fleetscan.scanner.store.remote import shown

    outcomes = ", ".join(f"{summary.outcomes[name]} {name}" for name in Outcome)
    output.line(f"run {summary.run_id} in {shown(facts)}: {outcomes}")
    if summary.unchanged:
        output.line(
            f"{summary.unchanged} unchanged since an earlier run, whose facts are used again"
        )
    if summary.scanned:
        rate = summary.scanned / max(summary.seconds, 0.001) * 60
        output.line(
            f"{summary.scanned} machine{'s' * (summary.scanned > 1)} "
            f"in {duration(summary.seconds)}, "
            f"{summary.slots} at a time: {rate:.1f} a minute"
        )
    if summary.scanned > 1:
        slowest = summary.slowest[0]
        output.line(f"slowest: {slowest.machine_id}, {duration(slowest.seconds)}")
    if summary.failures:
        output.line()
        ordered = sorted(summary.failures, key=lambda one: (-one.outcome.rank, one.machine_id))
        rows = [(one.outcome, one.machine_id, one.error) for one in ordered]
        output.table(("outcome", "machine", "error"), rows)
