"""What virt-inspector and virt-filesystems say of a machine, and how to read it.

One takes 10 to 40 seconds under software emulation, so what they printed is kept in the cache,
by a digest of the machine's disks.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lxml import etree

from fleetscan.appliance import cache
from tests.bench.figures import chosen_accelerator
from tests.bench.findings import Findings, System, names_of, package
from tests.bench.guests import Guest

_SECONDS = 300
"""Most for one of the tools; they mount and unmount every partition there is."""

# Elements of virt-inspector with one text, by the field that they are compared as.
_SINGLE = {
    "name": "type",
    "distro": "distro",
    "product_name": "product",
    "major_version": "major version",
    "minor_version": "minor version",
    "arch": "architecture",
    "hostname": "hostname",
    "package_format": "package format",
    "package_management": "package management",
}
# What virt-inspector fails with on disks that it could read.
_NO_SYSTEM = "no operating system could be detected"

_NOT_FILESYSTEMS = ("unknown", "swap", "crypto_LUKS")
_FORMATS = {"deb": "dpkg", "ebuild": "portage"}  # ours, where we name one otherwise


@dataclass(frozen=True)
class Answer:
    """What the two tools printed.

    Attributes:
        xml: virt-inspector's output.
        table: virt-filesystems' output, CSV.
        error: why one failed; empty when both went well.
    """

    xml: str
    table: str
    error: str


def ask(guest: Guest, *, again: bool = False) -> Answer:
    """Run both tools on a machine, or take what they printed of the same disks before.

    Args:
        guest: the machine.
        again: run them whatever the cache has.
    """
    kept = cache.cache_directory() / "agreement" / f"{_digest(guest)}.json"
    if not again and kept.exists():
        return Answer(**json.loads(kept.read_text()))
    disks = [argument for disk in guest.disks for argument in ("-a", str(disk))]
    options = [f"--format={guest.format}", *disks]
    xml, failure = _run(["virt-inspector", "--no-icon", *options])
    listing = ["virt-filesystems", "--filesystems", "--long", "--uuid", "--csv"]
    table, other_failure = _run([*listing, *options])
    if _NO_SYSTEM in failure:
        xml, failure = "", ""
    answer = Answer(xml, table, "\n".join(filter(None, (failure, other_failure))))
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(asdict(answer)))
    partial.rename(kept)
    return answer


def _digest(guest: Guest) -> str:
    digest = hashlib.sha256()
    for path in [path for disk in guest.disks for path in (disk, *_backing(disk))]:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _backing(disk: Path) -> list[Path]:
    """The files below an image, as qemu-img names them."""
    command = ["qemu-img", "info", "--output=json", "--backing-chain", str(disk)]
    listed = subprocess.run(command, capture_output=True, check=True).stdout
    return [Path(image["filename"]) for image in json.loads(listed)[1:]]


def _run(argv: list[str]) -> tuple[str, str]:
    """What a tool printed, and what it said when it failed."""
    # Left to end by itself, libguestfs takes its VM with it.
    argv = ["timeout", "--signal=INT", "--kill-after=30", str(_SECONDS), *argv]
    done = subprocess.run(argv, capture_output=True, check=False, env=_environment())
    printed = done.stdout.decode("utf-8", "surrogateescape")
    said = done.stderr.decode("utf-8", "backslashreplace").strip()
    return printed, (said or f"exit status {done.returncode}") if done.returncode else ""


@functools.cache
def _environment() -> dict[str, str]:
    """libguestfs on the accelerator that is ours."""
    forced = {"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"} if chosen_accelerator() == "tcg" else {}
    return {**os.environ, "LIBGUESTFS_BACKEND": "direct", **forced}


def read(answer: Answer) -> Findings:
    """What the tools found, in the terms of the comparison."""
    return Findings(
        opened=not answer.error,
        systems=dict(systems(answer.xml)) if answer.xml.strip() else {},
        filesystems=filesystems(answer.table),
    )


def systems(xml: str) -> Iterator[tuple[str, System]]:
    """Each operating system of virt-inspector's output, by the name of its root.

    Raises:
        etree.XMLSyntaxError: it is not XML.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    for element in etree.fromstring(xml.encode("utf-8", "surrogateescape"), parser):
        yield device(_text(element, "root")), _system(element)


def _system(element: etree._Element) -> System:
    found: System = {}
    for name, field in _SINGLE.items():
        text = _text(element, name)
        found[field] = {"": _FORMATS.get(text, text)} if text and text != "unknown" else {}
    found["mountpoints"] = {
        item.text or "": device(item.get("dev", ""))
        for item in element.iterfind("mountpoints/mountpoint")
    }
    found["drive mappings"] = {
        f"{item.get('name')}:": device(item.text or "")
        for item in element.iterfind("drive_mappings/drive_mapping")
    }
    found["filesystems"] = {
        device(item.get("dev", "")): names_of(
            _text(item, "type"), _text(item, "label"), _text(item, "uuid")
        )
        for item in element.iterfind("filesystems/filesystem")
    }
    found["applications"] = {}
    for item in element.iterfind("applications/application"):
        names = ("epoch", "version", "release", "arch")
        name = _text(item, "display_name") or _text(item, "name")
        package(found["applications"], name, *(_text(item, part) for part in names))
    return found


def _text(element: etree._Element, name: str) -> str:
    return element.findtext(name) or ""


def filesystems(table: str) -> dict[str, str]:
    """Names of filesystems by device, of virt-filesystems' CSV."""
    return {
        device(row["Name"]): names_of(row["VFS"], row["Label"], row["UUID"])
        for row in csv.DictReader(io.StringIO(table))
        if row["VFS"] not in _NOT_FILESYSTEMS
    }


def device(mountable: str) -> str:
    """A device of libguestfs, a btrfs subvolume written as findmnt(8) does.

    ``btrfsvol:/dev/sda1/@rootfs`` is ``/dev/sda1[/@rootfs]``.
    """
    if not mountable.startswith("btrfsvol:"):
        return mountable
    _, top, name, volume = mountable.removeprefix("btrfsvol:").split("/", 3)
    return f"/{top}/{name}[/{volume.strip('/')}]"
