"""fleetscan and virt-inspector on every example image: where they agree, and who is right if not.

Run it by agreement.sh, which installs and builds what it needs. Each difference has to be told in
agreement.yaml, with who is right and why; the exit status is 1 where one is not, or where nothing
differs any more as it is told there. See README.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from examples.builder.images import EXTRA, FLEET
from fleetscan.scanner.cli import output
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.store.staging import MemorySink
from tests.bench import families, guests, inspector
from tests.bench.findings import FIELDS, Findings, System, names_of, package
from tests.bench.guests import Guest

EXPLANATIONS = Path(__file__).with_name("agreement.yaml")
README = Path(__file__).with_name("README.md")
MARKS = ("<!-- made by agreement.sh --markdown -->\n", "<!-- end -->\n")

# Names of ours whose libguestfs' twin is another.
_ARCHITECTURES = {"i686": "i386", "armv7l": "arm"}

_SLOW = "layouts"
"""Has 130 partitions; libguestfs is not done with it after five minutes a tool."""

Row = dict[str, Any]  # Any: values of any fact column


@dataclass(frozen=True)
class Difference:
    """One thing that the two tell differently.

    Attributes:
        machine: its name.
        root: the system, or empty for what is the machine's.
        field: what differs.
        key: which one of it, such as a mountpoint or a package.
        ours: fleetscan's value; None when it has none.
        theirs: virt-inspector's.
    """

    machine: str
    root: str
    field: str
    key: str
    ours: str | None
    theirs: str | None


class Explanation(BaseModel):
    """Why something may differ; its patterns are those of fnmatch, null matches "has none"."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    machine: str = "*"
    field: str
    key: str = "*"
    ours: str | None = "*"
    theirs: str | None = "*"
    right: Literal["fleetscan", "virt-inspector", "both", "neither"]
    why: str

    def covers(self, difference: Difference) -> bool:
        """Whether a difference is what this is about."""
        return (
            _matches(difference.machine, self.machine)
            and difference.field == self.field
            and _matches(difference.key, self.key)
            and _matches(difference.ours, self.ours)
            and _matches(difference.theirs, self.theirs)
        )


def _matches(value: str | None, pattern: str | None) -> bool:
    if value is None or pattern is None:
        return value is None and pattern in (None, "*")
    return any(fnmatch.fnmatchcase(value, part) for part in pattern.split(" | "))


def main() -> int:
    """Parse arguments, compare, print; the exit status."""
    images = [image.name for image in (*FLEET, *EXTRA) if image.name != _SLOW]
    names = [*images, families.NAME]
    parser = argparse.ArgumentParser(prog="agreement.sh", description=__doc__)
    parser.add_argument("machines", nargs="*", help=f"by default all: {', '.join(names)}")
    parser.add_argument("--again", action="store_true", help="run libguestfs anew")
    parser.add_argument("--markdown", action="store_true", help="write README.md's table, no more")
    options = parser.parse_args()
    if options.markdown:
        README.write_text(with_table(README.read_text()))
        return 0
    if unknown := set(options.machines) - {*names, _SLOW}:
        parser.error(f"no machine is called {', '.join(sorted(unknown))}")
    differences: list[Difference] = []
    rows = []
    for name in options.machines or names:
        print(f"looking at {name}", file=sys.stderr, flush=True)
        guest = families.guest() if name == families.NAME else guests.find(name)
        ours, theirs = look(guest), inspector.read(inspector.ask(guest, again=options.again))
        found = list(compare(name, ours, theirs))
        differences += found
        rows.append([name, *tally(ours, theirs, found)])
    return show(rows, differences, load(), whole=not options.machines)


def look(guest: Guest) -> Findings:
    """What fleetscan finds in a machine."""
    sink = MemorySink()
    summary = inspect_machine(guest.machine(), ScanOptions.of(files="none"), sink)
    # A machine without a system is a failure of a scan, and one that could be opened all the same.
    opened = summary.outcome != "failed" or bool(len(sink.table("filesystems")))
    return findings({name: sink.table(name).to_pylist() for name in _TABLES}, opened=opened)


_TABLES = ("operating_systems", "mountpoints", "filesystems", "volumes", "packages")


def findings(tables: dict[str, list[Row]], *, opened: bool) -> Findings:
    """Rows of fact tables in the terms of the comparison."""
    every = {
        row["device"]: names_of(row["type"], row["label"], row["uuid"])
        for row in tables["filesystems"]
    }
    listed = {
        row["device"]: every[row["device"]]
        for row in tables["filesystems"]
        if row["usage"] == "filesystem"
    }
    for row in tables["volumes"]:
        if row["kind"] == "btrfs_subvolume":
            top = row["members"][0]
            listed[f"{top}[/{row['name']}]"] = every[top]
    systems = {row["root"]: _system(row, tables, every) for row in tables["operating_systems"]}
    return Findings(opened, systems, listed)


def _system(row: Row, tables: dict[str, list[Row]], names: dict[str, str]) -> System:
    architecture = row["architecture"]
    single = {
        "type": row["family"],
        "distro": None if row["inspector_distro"] == "unknown" else row["inspector_distro"],
        "product": row["product"],
        "major version": row["version_major"],
        "minor version": row["version_minor"],
        "architecture": _ARCHITECTURES.get(architecture, architecture),
        "hostname": row["hostname"],
        "package format": row["package_format"],
        "package management": row["package_manager"],
    }
    found: System = {
        name: {} if value is None else {"": str(value)} for name, value in single.items()
    }
    mounts = [
        mount
        for mount in tables["mountpoints"]
        if mount["root"] == row["root"] and mount["device"] is not None
    ]
    letters = {mount["path"]: mount["device"] for mount in mounts if mount["path"].endswith(":")}
    paths = {
        mount["path"]: _source(mount)
        for mount in mounts
        if mount["path"] != "swap" and mount["path"] not in letters
    }
    found["mountpoints"] = paths
    found["drive mappings"] = letters
    found["filesystems"] = {
        _source(mount): names[mount["device"]]
        for mount in mounts
        if mount["device"] in names and mount["path"] not in letters
    }
    windows = row["family"] == "windows"
    kept = "windows" if windows else row["package_format"]
    found["applications"] = {}
    for item in tables["packages"]:
        if (item["root"], item["manager"], item["status"]) == (row["root"], kept, "installed"):
            epoch = "" if item["epoch"] is None else str(item["epoch"])
            # Theirs of Windows' programs is always empty.
            architecture = "" if windows else item["architecture"] or ""
            rest = (item["upstream_version"], item["release"] or "", architecture)
            package(found["applications"], item["name"], epoch, *rest)
    return found


def _source(mount: Row) -> str:
    return f"{mount['device']}[/{mount['subvolume']}]" if mount["subvolume"] else mount["device"]


def compare(machine: str, ours: Findings, theirs: Findings) -> Iterator[Difference]:
    """Everything that differs; devices that libguestfs alone has are matched by what they hold."""
    if ours.opened != theirs.opened:
        said = {True: "opened", False: "failed"}
        yield Difference(machine, "", "machine", "", said[ours.opened], said[theirs.opened])
    if not theirs.told:
        return
    theirs = renamed(theirs, ours.filesystems)
    roots = [dict.fromkeys(found.systems, "found") for found in (ours, theirs)]
    yield from _differences(machine, "", "systems", *roots)
    yield from _differences(machine, "", "all filesystems", ours.filesystems, theirs.filesystems)
    for root in ours.systems.keys() & theirs.systems.keys():
        for field in FIELDS:
            pair = ours.systems[root][field], theirs.systems[root][field]
            yield from _differences(machine, root, field, *pair)


def _differences(
    machine: str, root: str, field: str, ours: dict[str, str], theirs: dict[str, str]
) -> Iterator[Difference]:
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            yield Difference(machine, root, field, key, ours.get(key), theirs.get(key))


def renamed(theirs: Findings, filesystems: dict[str, str]) -> Findings:
    """Their findings with our names of devices.

    Arrays are numbered by who puts them together. Devices that we do not have are taken for those
    of ours that hold a filesystem of the same type, label and UUID, if there is just one.
    """
    holders: dict[str, list[str]] = {}
    for device, names in filesystems.items():
        if device not in theirs.filesystems:
            holders.setdefault(names, []).append(device)
    twins = {
        device: holders[names][0]
        for device, names in theirs.filesystems.items()
        if device not in filesystems and len(holders.get(names, ())) == 1
    }

    def rename(name: str) -> str:
        return twins.get(name, name)

    systems = {}
    for root, system in theirs.systems.items():
        changed = dict(system)
        for field in ("mountpoints", "drive mappings"):
            changed[field] = {path: rename(name) for path, name in system[field].items()}
        changed["filesystems"] = {rename(k): names for k, names in system["filesystems"].items()}
        systems[rename(root)] = changed
    every = {rename(name): names for name, names in theirs.filesystems.items()}
    return Findings(theirs.opened, systems, every)


def tally(ours: Findings, theirs: Findings, found: Sequence[Difference]) -> list[object]:
    """Systems, values compared, how many agree, and how many of which fields differ."""
    if not theirs.told:
        return [len(ours.systems), 0, 0, "libguestfs cannot open it"]
    sizes = [1, len(ours.filesystems.keys() | theirs.filesystems.keys())]
    named = renamed(theirs, ours.filesystems).systems
    for root in ours.systems.keys() & named.keys():
        pairs = [(ours.systems[root][field], named[root][field]) for field in FIELDS]
        sizes += [len(own.keys() | other.keys()) for own, other in pairs]
    sizes.append(len(ours.systems.keys() | named.keys()))
    counts = Counter(difference.field for difference in found)
    differing = ", ".join(f"{field} {count}" for field, count in counts.items())
    return [len(ours.systems), sum(sizes), sum(sizes) - len(found), differing]


def load() -> list[Explanation]:
    """The explanations that are kept.

    Raises:
        pydantic.ValidationError: one is not of their form.
    """
    text = EXPLANATIONS.read_text()
    return TypeAdapter(list[Explanation]).validate_python(yaml.safe_load(text) or [])


def show(
    rows: list[list[object]],
    differences: Sequence[Difference],
    explanations: Sequence[Explanation],
    *,
    whole: bool,
) -> int:
    """Print what was found; the exit status.

    Args:
        rows: a line of :func:`tally` a machine.
        differences: all of them.
        explanations: all of them.
        whole: every machine was looked at, so that each explanation must be of some difference.
    """
    header = ["machine", "systems", "compared", "agree", "differ"]
    output.table(header, rows)
    used: Counter[Explanation] = Counter()
    unexplained = []
    for difference in differences:
        reason = next((item for item in explanations if item.covers(difference)), None)
        if reason:
            used[reason] += 1
        else:
            unexplained.append(difference)
    output.heading(f"{used.total()} differences that are explained")
    for reason, count in used.items():
        output.paragraph(f"{count} x {reason.machine}, {reason.field} {reason.key}:", "  ")
        output.paragraph(f"{reason.right} right: {reason.why}", "      ")
    output.heading(f"{len(unexplained)} that are not")
    names = ["machine", "root", "field", "key", "fleetscan", "virt-inspector"]
    output.table(names, [list(vars(item).values()) for item in unexplained], indent="  ")
    stale = [item for item in explanations if whole and item not in used]
    for item in stale:
        output.paragraph(f"nothing differs any more as agreement.yaml tells of: {item!r}")
    return 1 if unexplained or stale else 0


def markdown(explanations: Sequence[Explanation]) -> str:
    """The explanations as a table."""
    lines = [
        "| image | what | fleetscan | virt-inspector | right | why |",
        "|---|---|---|---|---|---|",
    ]
    for item in explanations:
        key = item.key.replace("[[]", "[")
        what = item.field if key == "*" else f"{item.field}: `{key}`"
        values = [_cell(item.ours), _cell(item.theirs)]
        machine = "all" if item.machine == "*" else item.machine.replace(" | ", ", ")
        lines.append(f"| {machine} | {' | '.join([what, *values, item.right, item.why.strip()])} |")
    return "\n".join(lines) + "\n"


def _cell(pattern: str | None) -> str:
    if pattern is None:
        return "none"
    return "" if pattern == "*" else f"`{pattern}`".replace("|", "\\|")


def with_table(text: str) -> str:
    """README.md's text with the table of the explanations as they are."""
    head, _, rest = text.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    return f"{head}{MARKS[0]}{markdown(load())}{MARKS[1]}{tail}"


if __name__ == "__main__":
    sys.exit(main())
