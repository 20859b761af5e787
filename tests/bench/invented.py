"""Facts of many machines that nobody had, written as a scan would have written them."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute

from fleetscan.appliance.ground.encoding import encode_rows
from fleetscan.appliance.ground.schema import MICROSECOND, Origin, Scope, Table
from fleetscan.scanner.store import files, layout, parts
from fleetscan.scanner.store.arrow import arrow_schema, decode_rows, rows_to_arrow
from fleetscan.scanner.store.batches import column_names
from fleetscan.scanner.store.run import BATCH_SIZE
from fleetscan.scanner.store.run_file import PartFile, RunInfo, TableInfo
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from fleetscan.scanner.tables.files.spec import File
from fleetscan.scanner.tables.filesystems.spec import FilesystemRow
from fleetscan.scanner.tables.machines.spec import MachineRow, Outcome
from fleetscan.scanner.tables.mountpoints.spec import Mountpoint
from fleetscan.scanner.tables.packages.spec import Package

_TABLES = Path(__file__).parents[2] / "scanner" / "tables"
_ROOT = "/dev/vg0/root"
_BEGUN = int(dt.datetime(2026, 1, 31, tzinfo=dt.UTC).timestamp())

# What every machine has in the tables that are small: the cases of the tables' own collectors.
_CASES = {
    "config": "debian-drop-ins",
    "groups": "debian12",
    "operating_systems": "debian12",
    "services": "debian12",
    "users": "debian12",
}

_Compute: TypeAlias = Any  # no stubs know which kernel fits which array
pc: _Compute = pyarrow.compute


@dataclass(frozen=True)
class Size:
    """How large the facts are.

    Attributes:
        machines: how many.
        packages: of each machine.
        least_files, most_files: of a machine; each has a number between them.
    """

    machines: int
    packages: int
    least_files: int
    most_files: int


def generate(facts: Path, run_id: str, size: Size) -> dict[str, int]:
    """Write a visible run of invented machines and give the number of rows by table."""
    chance = random.Random(1)  # noqa: S311 - the same facts every time
    base = base_rows(size)
    written: dict[str, list[PartFile]] = {name: [] for name in load_tables()}
    for batch in range(-(-size.machines // BATCH_SIZE)):
        numbers = range(batch * BATCH_SIZE, min((batch + 1) * BATCH_SIZE, size.machines))
        lengths = {n: chance.randint(size.least_files, size.most_files) for n in numbers}
        for name, table in load_tables().items():
            found = _of_machines(base[name], name, lengths)
            written[name] += write(facts, run_id, table, found, len(written[name]))
    publish(facts, run_id, size.machines, written)
    return {name: sum(file.rows or 0 for file in some) for name, some in written.items()}


def write(
    facts: Path, run_id: str, table: Table, batches: Iterable[pa.RecordBatch], first: int = 0
) -> list[PartFile]:
    """Write parts of a run, whose numbers go on after those that are there."""

    def place(number: int) -> Path:
        return layout.part(facts, table.name, run_id, first + number)

    return parts.write_parts(place, arrow_schema(table), batches)


def _of_machines(base: pa.Table, name: str, lengths: Mapping[int, int]) -> Iterator[pa.RecordBatch]:
    """The base rows, once a machine; of files as many as the machine has."""
    for number, length in lengths.items():
        rows = base.slice(0, length) if name == "files" else base
        column = pa.repeat(f"site/machine-{number:05d}.qcow2", len(rows))
        rows = rows.set_column(0, rows.schema.field(0), column)
        if name in _CHANGES:
            rows = _CHANGES[name](rows, number)
        yield from rows.combine_chunks().to_batches()


def _other_files(rows: pa.Table, number: int) -> pa.Table:
    """Inodes and times differ from machine to machine."""
    for name, unit in (("inode", 1), ("modified", MICROSECOND), ("changed", MICROSECOND)):
        index = rows.schema.get_field_index(name)
        field = rows.schema.field(index)
        moved = pc.add(rows.column(index).cast(pa.int64()), number * 7919 % 100_003 * unit)
        rows = rows.set_column(index, field, moved.cast(field.type))
    return rows


def _other_packages(rows: pa.Table, number: int) -> pa.Table:
    """A machine in three is a version behind."""
    if number % 3:
        return rows
    index = rows.schema.get_field_index("version")
    older = pc.binary_join_element_wise(rows.column(index), "behind", "~")
    return rows.set_column(index, rows.schema.field(index), older)


_CHANGES: dict[str, Callable[[pa.Table, int], pa.Table]] = {
    "files": _other_files,
    "packages": _other_packages,
}


def publish(
    facts: Path, run_id: str, machines: int, written: Mapping[str, Sequence[PartFile]]
) -> None:
    """Make what was written a visible run."""
    time_of = dt.datetime.fromtimestamp(_BEGUN, dt.UTC)
    info = RunInfo(
        run_id=run_id,
        started=time_of,
        finished=time_of,
        interrupted=False,
        version="bench",
        settings={},
        machines=machines,
        outcomes={"ok": machines},
        tables={
            name: TableInfo(
                sum(file.rows or 0 for file in written[name]),
                column_names(table),
                tuple(written[name]),
            )
            for name, table in load_tables().items()
        },
        facts_runs={},
    )
    files.write_json(layout.run_file(facts, run_id), info.to_json())


def _table_info(table: Table, written: Sequence[PartFile]) -> TableInfo:
    rows = sum(file.rows or 0 for file in written)
    return TableInfo(rows, column_names(table), tuple(written))


def payloads() -> dict[str, bytes]:
    """What the wire brings of the tables that are small, by table."""
    return {
        name: (_TABLES / name / "cases" / case / "expected.jsonl").read_bytes()
        for name, case in _CASES.items()
    } | {
        "filesystems": b"".join(encode_rows(_filesystems())),
        "mountpoints": b"".join(encode_rows(_mountpoints())),
    }


def base_rows(size: Size) -> dict[str, pa.Table]:
    """One machine's rows of every table, of which all machines are copies."""
    made: dict[str, list[object]] = {
        "files": list(files_of(size.most_files)),
        "packages": list(packages(size.packages)),
        "filesystems": list(_filesystems()),
        "mountpoints": list(_mountpoints()),
        "machines": [_MACHINE],
    }
    base, small = {}, payloads()
    for name, table in load_tables().items():
        root = _ROOT if table.scope is Scope.ROOT else None
        if name in _CASES:
            base[name] = decode_rows(table, small[name], machine_id="m", root=root)
        elif name != "coverage":
            base[name] = rows_to_arrow(table, made.get(name, ()), machine_id="m", root=root)
    counts = {name: len(rows) for name, rows in base.items()}
    covered = rows_to_arrow(load_tables()["coverage"], _coverage(counts), machine_id="m")
    return base | {"coverage": covered}


def files_of(count: int) -> Iterator[File]:
    """A tree of directories with some files each; here and there one that a rule minds."""
    for number in range(count):
        kind: Any = "directory" if number % 12 == 0 else "file"
        folder = f"/usr/share/collection-{number // 144}/part-{number // 12}"
        mode = 0o755 if kind == "directory" else 0o644
        path = folder if kind == "directory" else f"{folder}/entry-{number}.dat"
        if number < len(_NOTABLE):
            path, mode = _NOTABLE[number]
            kind = "file"
        yield File(
            path=path,
            type=kind,
            mode=mode,
            uid=0,
            gid=0,
            owner="root",
            group_name="root",
            size=number * 37 % 90_000,
            allocated=number * 37 % 90_000 // 4096 * 4096,
            links=1,
            inode=number + 12,
            device=_ROOT,
            accessed=(_BEGUN - number) * MICROSECOND,
            modified=(_BEGUN - 7 * number) * MICROSECOND,
            changed=(_BEGUN - 7 * number) * MICROSECOND,
            target=None,
            selinux=None,
            capabilities=None,
        )


_NOTABLE = (
    ("/etc/shadow", 0o644),
    ("/etc/passwd", 0o644),
    ("/etc/sudoers", 0o440),
    ("/etc/ssh/sshd_config", 0o644),
    ("/usr/bin/passwd", 0o4755),
    ("/usr/local/bin/rescue", 0o4755),
    ("/srv/share.txt", 0o666),
)


def packages(count: int) -> Iterator[Package]:
    for number in range(count):
        version = f"{number % 9}.{number % 31}-{number % 5 + 1}"
        yield Package(
            manager="dpkg",
            name=f"package-{number}",
            version=version,
            epoch=None,
            upstream_version=version.partition("-")[0],
            release=version.partition("-")[2],
            architecture="amd64",
            status="installed",
            held=False,
            purl=f"pkg:deb/debian/package-{number}@{version}?arch=amd64&distro=debian-12",
            source_name=f"source-{number // 3}",
            source_version=version,
            vendor="Debian maintainers",
            license=None,
            section="admin",
            summary=f"does what package {number} is for",
            installed_size=number * 4096,
            installed_at=_BEGUN * MICROSECOND,
            path=None,
            account=None,
        )


def _filesystems() -> Iterator[FilesystemRow]:
    for number, device in enumerate(("/dev/sda1", _ROOT)):
        yield FilesystemRow(
            device=device,
            type="ext4",
            usage="filesystem",
            version="1.0",
            uuid=f"00000000-0000-4000-8000-{number:012d}",
            label=None,
            mounted=True,
            journal="clean",
            block_size=4096,
            size=8 << 30,
            used=3 << 30,
            free=5 << 30,
            available=4 << 30,
            inodes=1 << 19,
            inodes_used=1 << 17,
            stack=("/dev/sda",),
            error=None,
        )


def _mountpoints() -> Iterator[Mountpoint]:
    for path, device in (("/", _ROOT), ("/boot", "/dev/sda1")):
        yield Mountpoint(
            path=path,
            device=device,
            source=device,
            type="ext4",
            options=("defaults",),
            subvolume=None,
            check_pass=1,
            mounted=True,
            error=None,
        )


def _coverage(counts: Mapping[str, int]) -> Iterator[Coverage]:
    for name, table in load_tables().items():
        if table.origin is Origin.GUEST:
            yield Coverage(
                root=_ROOT if table.scope is Scope.ROOT else None,
                table_name=name,
                status=CoverageStatus.OK if counts[name] else CoverageStatus.EMPTY,
                rows=counts[name],
                seconds=0.1,
                error=None,
                unread=None,
            )


_MACHINE = MachineRow(
    outcome=Outcome.OK,
    error=None,
    error_kind=None,
    stage=None,
    source="bench",
    disks=1,
    roots=1,
    started=_BEGUN * MICROSECOND,
    gathered=_BEGUN * MICROSECOND,
    seconds=1.0,
    seconds_preflight=0.01,
    seconds_appliance=0.1,
    seconds_discover=0.2,
    seconds_collect=0.6,
    attempts=1,
    torn=False,
    accelerator="kvm",
    appliance=None,
    confinement=("namespaces", "root", "seccomp", "landlock"),
    identity=None,
    facts_run="",
)
