"""``fleetscan scan``: a fleet of machines becomes a run of facts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scanner.cli import exits, output
from scanner.cli.app import app
from scanner.cli.options import (
    AllowedDirectories,
    Deadline,
    Facts,
    Files,
    FilesMode,
    Keys,
    Live,
    OutputFormat,
    Packages,
    PackagesMode,
    RegistryKeys,
    Template,
    UsageDepth,
    Verbose,
    examples,
)
from scanner.errors import FleetscanError, UsageError
from scanner.tables.directory_usage.spec import DEPTH

if TYPE_CHECKING:
    from scanner.cluster import ClusterOptions
    from scanner.fleet import FleetSummary
    from scanner.store.run import Run


@dataclass(frozen=True)
class ScanSettings:
    """What a run was asked for, as its plan keeps it for whoever resumes it."""

    sources: list[str]
    include: list[str]
    exclude: list[str]
    files: str
    deadline: float
    live: bool
    allowed_directories: list[str]
    template: bool = True
    keys: list[str] = field(default_factory=list)
    packages: str = "known"
    registry: list[str] = field(default_factory=list)
    usage_depth: int = DEPTH


_EXAMPLES = examples(
    "fleetscan scan /srv/images --facts facts",
    "fleetscan scan fleet.yaml --facts facts -P 4 --files notable",
    "fleetscan scan /srv/images --facts facts --exclude 'templates/*'",
    "fleetscan scan --facts facts --resume 20260131T020304Z-3f9a1c",
    "",
    "An inventory is a list of machines, as YAML or JSON, or as CSV with id, path, format:",
    "  - id: web01",
    "    disks: [/srv/web01.qcow2, {path: data.img, format: raw}]",
)


@app.command(epilog=_EXAMPLES)
def scan(
    facts: Facts,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Folders, images or inventory files."),
    ] = None,
    slots: Annotated[
        int | None,
        typer.Option("-P", metavar="N", min=1, help="Machines at a time; by CPUs and memory."),
    ] = None,
    files: FilesMode = Files.ALL,
    packages: PackagesMode = Packages.KNOWN,
    registry: RegistryKeys = None,
    usage_depth: UsageDepth = DEPTH,
    deadline: Deadline = 900,
    live: Live = False,
    allow_dir: AllowedDirectories = None,
    key: Keys = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only machines whose id matches; may be repeated."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="No machines whose id matches; may be repeated."),
    ] = None,
    rescan: Annotated[
        bool,
        typer.Option("--rescan", help="Scan unchanged machines as well."),
    ] = False,
    template: Template = True,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run that was interrupted, as it was."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Use an existing Dask cluster: tcp://host:8786."),
    ] = None,
    dashboard: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Show Dask's dashboard, at 127.0.0.1:8787 perhaps."),
    ] = None,
    output_format: OutputFormat = output.Output.TEXT,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    verbose: Verbose = 0,
) -> int:
    """Scan machines, each in a VM of its own, into a directory of facts.

    A folder's machines are its image files, at any depth; a sub-folder with a machine.yaml that
    lists disks is one machine of several.
    """
    from scanner.cluster import ClusterOptions
    from scanner.sources.keys import parse_key

    cluster = ClusterOptions(slots, scheduler, dashboard)
    if resume:
        if sources:
            raise UsageError("a resumed run knows its sources", hint="leave out SOURCE")
        run, settings = _resumed(facts, resume)
    else:
        settings = ScanSettings(
            sources=[str(Path(source).absolute()) for source in sources or ()],
            include=include or [],
            exclude=exclude or [],
            files=files.value,
            packages=packages.value,
            registry=list(registry or ()),
            usage_depth=usage_depth,
            deadline=deadline,
            live=live,
            allowed_directories=[str(folder.absolute()) for folder in allow_dir or ()],
            template=template,
            keys=[str(parse_key(text, Path())) for text in key or ()],
        )
        run = None
    return _scan(facts, settings, run, cluster, output_format, quiet=quiet, rescan=rescan)


def _resumed(facts: Path, run_id: str) -> tuple[Run, ScanSettings]:
    from scanner.store.runs import Store

    run = Store(facts).resume(run_id)
    try:
        return run, ScanSettings(**run.settings)
    except TypeError as error:
        raise UsageError(
            f"run {run_id} was begun by another version of fleetscan",
            hint="resume it with that version, or scan anew",
        ) from error


def _scan(
    facts: Path,
    settings: ScanSettings,
    run: Run | None,
    cluster: ClusterOptions,
    output_format: output.Output,
    *,
    quiet: bool,
    rescan: bool,
) -> int:
    from scanner.fleet import FleetOptions, scan_fleet
    from scanner.inspect import InspectOptions
    from scanner.progress import FleetProgress
    from scanner.reuse import EarlierFacts
    from scanner.sources import find_machines
    from scanner.sources.keys import parse_key
    from scanner.store.runs import Store

    if not settings.sources:
        raise UsageError("there is nothing to scan", hint="name a folder, image or inventory file")
    machines = find_machines(settings.sources, include=settings.include, exclude=settings.exclude)
    appliance = _appliance(required=cluster.scheduler is None)
    earlier = None if rescan or not appliance else EarlierFacts(facts, asdict(settings), appliance)
    run = run or Store(facts).begin(
        [machine.machine_id for machine in machines], settings=asdict(settings)
    )
    options = FleetOptions(
        machine=InspectOptions(
            files=settings.files,  # type: ignore[arg-type] # one of the enum's, by the command line
            packages=settings.packages,  # type: ignore[arg-type] # likewise
            registry=tuple(settings.registry),
            usage_depth=settings.usage_depth,
            deadline=settings.deadline,
            live=settings.live,
            allowed_directories=tuple(settings.allowed_directories),
            run_id=run.run_id,
            template=settings.template,
            keys=tuple(parse_key(text, Path()) for text in settings.keys),
        ),
        earlier=earlier,
        cluster=cluster,
    )
    total = len(run.machine_ids) - len(run.finished())
    try:
        with FleetProgress(total, output.stderr(), quiet=quiet) as progress:
            summary = scan_fleet(machines, run, options, progress)
    except FleetscanError:
        _leave(run)
        raise
    if output_format is output.Output.JSON:
        output.json_object(_as_json(summary, facts))
    else:
        _print_summary(summary, facts)
    if summary.interrupted:
        _leave(run)
        return exits.INTERRUPTED
    return exits.NOT_SCANNED if summary.outcomes["failed"] else exits.FINE


def _appliance(*, required: bool) -> str | None:
    """Content address of this host's appliance; workers elsewhere have their own."""
    from appliance import build
    from scanner.inspect import appliance_address

    try:
        appliance = build.find()
        build.verify(appliance)
        return appliance_address(appliance)
    except FleetscanError:
        if required:
            raise  # without an appliance every machine would fail, one by one
        return None


def _leave(run: Run) -> None:
    """Say how an unfinished run goes on; one without any finished machine is not worth it."""
    finished = len(run.finished())
    if not finished:
        run.abandon()
        output.message("fleetscan: no machine was finished, so nothing was kept")
        return
    output.message(
        f"fleetscan: {finished} of {len(run.machine_ids)} machines are finished and kept; go on "
        f"with: fleetscan scan --facts {run.facts} --resume {run.run_id}"
    )


def _as_json(summary: FleetSummary, facts: Path) -> dict[str, object]:
    return asdict(summary) | {"facts": str(facts)}


def _print_summary(summary: FleetSummary, facts: Path) -> None:
    from scanner.progress import duration

    outcomes = ", ".join(f"{summary.outcomes[name]} {name}" for name in ("ok", "partial", "failed"))
    output.line(f"run {summary.run_id} in {facts}: {outcomes}")
    if summary.unchanged:
        output.line(f"{summary.unchanged} unchanged since an earlier run, whose facts serve again")
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
        ordered = sorted(summary.failures, key=lambda one: (one.outcome, one.machine_id))
        rows = [(one.outcome, one.machine_id, one.error) for one in ordered]
        output.table(("outcome", "machine", "error"), rows)
