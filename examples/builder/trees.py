"""The systems that images are filled with, as tar files, made from packages on the host."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from examples.builder import commands

HERE = Path(__file__).resolve().parent
FLEET = HERE.parent / "fleet"
RPM = FLEET / "rpm"
WINDOWS = FLEET / "windows"

_SECONDS = 900
_SQLITE = "var/lib/rpm/rpmdb.sqlite"
_MODES = {"/etc/shadow": "0000", "/etc/sudoers": "0440"}
_QUERY = r"%{NAME}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\t%{ARCH}\tinstalled\n"

# Left out of Debian trees: bulk that makes images larger and no richer.
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/zoneinfo/right/*",
    "/usr/lib/modules/*/kernel/drivers/net/*",
    "/usr/lib/modules/*/kernel/net/*",
)


def debian(suite: str, packages: list[str], target: Path) -> None:
    """A Debian system with the packages and what they depend on.

    Args:
        suite: release name.
        packages: beside the essential ones.
        target: the tar file to write.

    Raises:
        CommandError: mmdebstrap failed.
    """
    command = debian_command(suite, packages, str(target))
    if mirror := os.environ.get("FLEETSCAN_DEBIAN_MIRROR"):
        command.append(mirror)
    commands.run(f"installing Debian {suite} into a tree", command, seconds=_SECONDS)


def debian_command(suite: str, packages: list[str], target: str) -> list[str]:
    """How mmdebstrap is called for :func:`debian`."""
    command = ["mmdebstrap", "--mode=auto", "--variant=minbase", "--format=tar"]
    command += [f"--include={','.join(packages)}"]
    command += ['--aptopt=Acquire::Languages "none"', "--aptopt=Acquire::Retries 5"]
    command += ['--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    return [*command, suite, target]


@dataclass(frozen=True)
class _Package:
    name: str
    evr: str
    arch: str
    license: str
    summary: str
    files: tuple[str, ...]

    @property
    def epoch(self) -> str:
        return self.evr.partition(":")[0] if ":" in self.evr else ""

    @property
    def version(self) -> str:
        return self.evr.rpartition(":")[2].partition("-")[0]

    @property
    def release(self) -> str:
        return self.evr.partition("-")[2]


def rpm(target: Path) -> None:
    """An rpm system in two states, ``base`` and ``now``, each with a database rpm itself wrote.

    The packages are made here from fleet/rpm/packages.csv with rpmbuild. The tar holds the two
    trees, ``packages`` with what ``rpm -qa`` says of the second, and ``Packages`` with its
    database as rpm kept it until 4.16.

    Raises:
        CommandError: rpmbuild, rpm, db5.3_load or tar failed.
    """
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-") as name:
        work = Path(name)
        for state in ("base", "now"):
            packages = list(_read_packages(state))
            for arch in ("x86_64", "i686"):
                _rpmbuild(work / state, packages, arch)
        _as_root(_INSTALL, str(work), str(RPM / "signing-key.asc"), _QUERY)
        _write_berkeley_db(work / "tree" / "now" / _SQLITE, work / "tree" / "Packages")
        _as_root(_PACK, str(work / "tree"), str(target))


def windows(target: Path) -> None:
    """A Windows system drive, its registry hives made from the text in fleet/windows.

    The tar holds the drive in ``root``, and in ``expected`` what reglookup and chntpw's tools,
    which share no code with hivex, read in the hives.

    Raises:
        CommandError: a hive could not be made or read.
    """
    with tempfile.TemporaryDirectory(prefix="fleetscan-builder-") as name:
        root, expected = Path(name) / "root", Path(name) / "expected"
        shutil.copytree(WINDOWS, root)
        expected.mkdir()
        for text in sorted(root.rglob("*.reg")):
            hive = text.with_suffix("")
            _tool("/usr/bin/python3", str(HERE / "hives.py"), str(text), str(hive))
            text.unlink()
            (expected / f"{hive.name}.csv").write_text(_tool("reglookup", str(hive)))
        config = root / "Windows" / "System32" / "config"
        (expected / "accounts").write_text(_tool("sampasswd", "-l", str(config / "SAM")))
        (expected / "members").write_text(_tool("samusrgrp", "-L", str(config / "SAM")))
        command = ["tar", "-C", name, "-cf", str(target), "--owner=0", "--group=0", "."]
        commands.run("packing a Windows tree", command, seconds=_SECONDS)


def _tool(*command: str) -> str:
    return commands.run("making a Windows tree", command, seconds=_SECONDS)


def _as_root(script: str, *arguments: str) -> None:
    """Run a shell script as root, if only of a namespace of its own."""
    prefix = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    command = [*prefix, "sh", "-euc", script, "sh", *arguments]
    commands.run("installing rpm packages into a tree", command, seconds=_SECONDS)


# rpm changes its root, which only root may.
_INSTALL = r"""
work=$1 key=$2 query=$3
mkdir "$work/tree"
for state in base now; do
    root=$work/tree/$state
    mkdir "$root"
    rpm_in_root() { rpm --root "$root" --dbpath /var/lib/rpm --define '_db_backend sqlite' "$@"; }
    rpm_in_root --initdb
    rpm_in_root --import "$key"
    rpm_in_root --install --nodeps --nosignature --ignorearch "$work/$state"/rpms/*/*.rpm
    ln -s ../usr/lib/os-release "$root/etc/os-release"
    ln -s usr/bin "$root/bin"
done
rpm_in_root -qa --queryformat "$query" | sort >"$work/tree/packages"
"""

# Only root reads /etc/shadow here.
_PACK = 'tar -C "$1" --format=pax --numeric-owner -cf "$2" .'


def _write_berkeley_db(source: Path, target: Path) -> None:
    """Turn rpm's SQLite database into the hash database that older rpm wrote.

    Both keep the same header of a package under its number; Berkeley DB's keys are in the host's
    byte order, and key 0 holds the highest number. Source: rpm 4.16, lib/backend/db3.c.
    """
    # Whoever may write takes the journal and its index away on closing, which rpm leaves there.
    connection = sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)
    with contextlib.closing(connection):
        headers = dict(connection.execute("SELECT hnum, blob FROM Packages"))
    records = {0: struct.pack("=I", max(headers)), **headers}
    lines = ["VERSION=3", "format=bytevalue", "type=hash", "HEADER=END"]
    for number, value in records.items():
        lines += [f" {struct.pack('=I', number).hex()}", f" {value.hex()}"]
    dump = target.with_suffix(".dump")
    dump.write_text("\n".join([*lines, "DATA=END", ""]))
    command = ["db5.3_load", "-f", str(dump), str(target)]
    commands.run("writing an older rpm database", command, seconds=_SECONDS)
    dump.unlink()


def _read_packages(state: str) -> Iterator[_Package]:
    with (RPM / "packages.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            if row[state]:
                files = tuple(row["files"].split())
                yield _Package(
                    row["name"], row[state], row["arch"], row["license"], row["summary"], files
                )


def _rpmbuild(work: Path, packages: list[_Package], arch: str) -> None:
    """Build the packages of one architecture; noarch ones along with x86_64."""
    with_arch = {"x86_64": ("x86_64", "noarch"), "i686": ("i686",)}[arch]
    chosen = [package for package in packages if package.arch in with_arch]
    work.mkdir(exist_ok=True)
    spec = work / f"{arch}.spec"
    spec.write_text(_spec(chosen))
    command = ["rpmbuild", "-bb", "--quiet", "--target", f"{arch}-linux"]
    command += ["--define", f"_topdir {work}", "--define", f"_rpmdir {work}/rpms"]
    # What no package of this state takes is left out; nothing here is compiled or stripped.
    command += ["--define", "_unpackaged_files_terminate_build 0"]
    command += ["--define", "debug_package %{nil}", "--define", "__os_install_post %{nil}"]
    command += ["--buildroot", str(work / f"root-{arch}"), str(spec)]
    commands.run("building example rpm packages", command, seconds=_SECONDS)
    shutil.rmtree(work / f"root-{arch}", ignore_errors=True)


def _spec(packages: list[_Package]) -> str:
    """One spec whose subpackages are the packages; the main package itself is not built."""
    head = [
        "Name: fleetscan-examples",
        "Version: 1",
        "Release: 1",
        "License: MIT",
        "Summary: Packages of the example fleet",
        "%description",
        "Not built.",
        "%install",
        f"mkdir -p %{{buildroot}} && cp -a {RPM / 'root'}/. %{{buildroot}}/",
        *(f"install -D /dev/null %{{buildroot}}{_marker(package)}" for package in packages),
    ]
    return "\n".join([*head, *(_subpackage(package) for package in packages), ""])


def _marker(package: _Package) -> str:
    return f"/usr/share/licenses/{package.name}-{package.arch}/LICENSE"


def _subpackage(package: _Package) -> str:
    lines = [f"%package -n {package.name}"]
    lines += [f"Epoch: {package.epoch}"] if package.epoch else []
    lines += [f"Version: {package.version}", f"Release: {package.release}"]
    lines += ["BuildArch: noarch"] if package.arch == "noarch" else []
    lines += [f"License: {package.license}", f"Summary: {package.summary}"]
    lines += ["Group: Unspecified", "Vendor: fleetscan examples", "AutoReqProv: no"]
    lines += [f"%description -n {package.name}", package.summary]
    lines += [f"%files -n {package.name}", "%defattr(0644, root, root, 0755)", _marker(package)]
    lines += [f"%attr({_MODES.get(path, '-')}, root, root) {path}" for path in package.files]
    return "\n".join(lines)
