"""Makes the store's end_of_life.csv from two published sources, so that no date is from memory.

``python -m fleetscan.rules.refresh_end_of_life --endoflife products DATE --distro-info FOLDER
DATE``

endoflife.date keeps a file a product (YAML between two lines of dashes, key ``releases``);
distro-info-data, a Debian package, a CSV file each for Debian and Ubuntu. DATE is the day of
the copy that is read: its last commit, or the package's last change.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fleetscan.scanner.store.end_of_life import COLUMNS, release_end
from fleetscan.scanner.tables.end_of_life.spec import ReleaseEnd

Name = Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]
"""From a release as endoflife.date has it to the (distro, release) of operating_systems."""


@dataclass(frozen=True)
class Product:
    """One file of endoflife.date.

    Attributes:
        name: of the file.
        names: what its releases are called here.
    """

    name: str
    names: Name


def _same(*distros: str) -> Name:
    """Releases called as they are there."""
    return lambda item: [(distro, str(item["releaseCycle"])) for distro in distros]


def _without(prefix: str, distro: str) -> Name:
    return lambda item: [(distro, str(item["releaseCycle"]).removeprefix(prefix))]


def _point_releases(distro: str) -> Name:
    """Leaves out branches, such as 14 beside 14.1, which end with their last point release."""
    return lambda item: [
        (distro, release) for release in [str(item["releaseCycle"])] if "." in release
    ]


def _opensuse(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    release = str(item["releaseCycle"])
    leap = release.startswith("42.") or int(release.partition(".")[0]) >= 15
    yield "opensuse-leap" if leap else "opensuse", release


# How a cycle's name ends -> editions; one without an end is for all but those of long service.
_CLIENT_EDITIONS: dict[str, tuple[str, ...]] = {
    "iot-lts": ("windows-iot-ltsc",),
    "e-lts": ("windows-ltsc", "windows-iot-ltsc"),
    "e": ("windows-enterprise",),
    "w": ("windows",),
    "iot": (),  # IoT Core
}
_CYCLE = re.compile(r"1[01]-[0-9a-z]{4}(?:-(.+))?")


def _windows(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """By edition and build; before Windows 10 by version alone."""
    version = str(item["latest"])
    cycle = _CYCLE.fullmatch(str(item["releaseCycle"]))
    if cycle is None:
        yield "windows", ".".join(version.split(".")[:2])
        return
    everybody = ("windows", "windows-enterprise")
    for edition in _CLIENT_EDITIONS[cycle[1]] if cycle[1] else everybody:
        yield edition, version


def _windows_server(item: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The channel of a release every half year by its own name: it shares a build with 2019."""
    cycle, version = str(item["releaseCycle"]), str(item["latest"])
    if cycle.endswith(("-sac", "-ac")):
        yield "windows-server-sac", version
    elif cycle not in ("2003", "2003-sp1"):  # no version number distinguishes these from 2003 SP2
        yield "windows-server", version if version.startswith("10.") else version.rpartition(".")[0]


PRODUCTS = (
    Product("almalinux", _same("almalinux")),
    Product("alpine-linux", _same("alpine")),
    Product("amazon-linux", _same("amzn")),
    Product("centos", _same("centos")),
    Product("centos-stream", _same("centos")),
    Product("cos", _without("cos-", "cos")),
    Product("devuan", _same("devuan")),
    Product("eurolinux", _same("eurolinux")),
    Product("fedora", _same("fedora")),
    Product("freebsd", _point_releases("freebsd")),
    Product("linuxmint", _without("lmde", "linuxmint")),
    Product("mageia", _same("mageia")),
    Product("netbsd", _same("netbsd")),
    Product("nixos", _same("nixos")),
    Product("openbsd", _same("openbsd")),
    Product("opensuse", _opensuse),
    Product("openwrt", _same("openwrt")),
    Product("oracle-linux", _same("ol")),
    Product("pop-os", _same("pop")),
    Product("rhel", _same("rhel")),
    Product("rocky-linux", _same("rocky")),
    Product("slackware", _same("slackware")),
    Product("sles", _same("sles")),
    Product("suse-linux-micro", _same("sle-micro", "sl-micro")),
    Product("vmware-photon", _same("photon")),
    Product("windows", _windows),
    Product("windows-server", _windows_server),
)
"""Products of which somebody names the day that ends what needs no extra contract."""

ANNOUNCED = (
    release_end(
        "windows-server",
        "4.0",
        dt.date(2004, 12, 31),
        "rcpmag.com/Articles/2003/01/28/Microsoft-Extends-Windows-NT-4-Server-Support.aspx",
        dt.date(2026, 11, 21),
    ),
)
"""What is older than the sources."""


def from_product(product: Product, text: str, taken: dt.date) -> Iterator[ReleaseEnd]:
    """Releases of one file of endoflife.date that have a day of their end.

    Those that only say whether they have ended are left out. Of two with one name the first counts.
    """
    source = f"endoflife.date: {product.name}"
    found: dict[tuple[str, str], ReleaseEnd] = {}
    for item in yaml.safe_load(text.split("---")[1])["releases"]:
        if isinstance(item["eol"], dt.date):
            for distro, release in product.names(item):
                entry = release_end(distro, release, item["eol"], source, taken)
                found.setdefault((distro, release), entry)
    yield from found.values()


def from_distro_info(distro: str, text: str, taken: dt.date) -> Iterator[ReleaseEnd]:
    """Releases of distro-info-data: Debian's up to the end of LTS, Ubuntu's standard support."""
    for item in csv.DictReader(text.splitlines()):
        end = item.get("eol-lts") or item["eol"] if distro == "debian" else item["eol"]
        if item["version"] and end:
            release = item["version"].removesuffix(" LTS")
            source = f"distro-info-data: {distro}"
            yield release_end(distro, release, dt.date.fromisoformat(end), source, taken)


def merge(releases: Iterable[ReleaseEnd]) -> list[ReleaseEnd]:
    """The data, sorted; of releases that match one version the shorter, if they end on one day.

    Of those that two products of a source have, such as CentOS 8 and CentOS Stream 8, the first
    counts.

    Raises:
        ValueError: two releases of a product match one version, and end on different days.
    """
    kept: dict[tuple[str, str], ReleaseEnd] = {}
    for item in sorted(releases, key=_order):
        parts = item.release.split(".")
        shorter = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        other = next((kept[key] for name in shorter if (key := (item.distro, name)) in kept), None)
        if other is None:
            kept[item.distro, item.release] = item
        elif other.eol != item.eol and other.source == item.source:
            raise ValueError(f"{item.distro} {item.release} ends as {other.release} or on its own?")
    return list(kept.values())


def _order(item: ReleaseEnd) -> tuple[str, list[tuple[int, str]]]:
    parts = item.release.split(".")
    return item.distro, [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the data to standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--endoflife", nargs=2, required=True, metavar=("PRODUCTS", "DATE"))
    parser.add_argument("--distro-info", nargs=2, required=True, metavar=("FOLDER", "DATE"))
    options = parser.parse_args(arguments)
    releases = list(ANNOUNCED)
    folder, taken = Path(options.endoflife[0]), dt.date.fromisoformat(options.endoflife[1])
    for product in PRODUCTS:
        text = (folder / f"{product.name}.md").read_text(encoding="utf-8")
        releases += from_product(product, text, taken)
    folder, taken = Path(options.distro_info[0]), dt.date.fromisoformat(options.distro_info[1])
    for distro in ("debian", "ubuntu"):
        releases += from_distro_info(distro, (folder / f"{distro}.csv").read_text(), taken)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(item, name) for name in COLUMNS] for item in merge(releases))


if __name__ == "__main__":
    main()
