"""The appliance: our own small Debian with its kernel, built once and kept by content address.

An appliance is a directory of the cache with four files: ``vmlinuz``, ``initrd``,
``root.erofs`` and ``manifest.json``, which is written last and names the others' checksums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from appliance import initrd
from scanner.errors import ApplianceError, CommandError

HERE = Path(__file__).resolve().parent
SUITE = "trixie"
"""Debian release the appliance is made of, unless FLEETSCAN_SUITE names another."""

_NATIVE = initrd.PROJECT / "scanner" / "tables" / "files"
_FILES = ("vmlinuz", "initrd", "root.erofs")
_BUILD_SECONDS = 1800
_BUILD_AGAIN = "run: fleetscan appliance build --force"

# Data that no inspection needs.
_EXCLUDED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/share/bash-completion/*",
    "/boot/System.map*",
)


@dataclass(frozen=True)
class Appliance:
    """A built appliance.

    Attributes:
        directory: where its files are.
        inputs: content address of what it was built from.
        content: content address of its files: equal on every host that holds the same bytes.
        kernel_release: what uname -r says in it.
        suite: Debian release.
        versions: Debian package to version.
    """

    directory: Path
    inputs: str
    content: str
    kernel_release: str
    suite: str
    versions: dict[str, str] = field(hash=False)

    @property
    def kernel(self) -> Path:
        """The kernel image."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The first stage's RAM disk, without the agent."""
        return self.directory / "initrd"

    @property
    def root(self) -> Path:
        """The root filesystem image."""
        return self.directory / "root.erofs"


def cache_directory() -> Path:
    """Where appliances and templates are kept: FLEETSCAN_CACHE, else the user's cache."""
    if chosen := os.environ.get("FLEETSCAN_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fleetscan"


def suite() -> str:
    """The Debian release that appliances of this process are made of."""
    return os.environ.get("FLEETSCAN_SUITE", SUITE)


def packages() -> list[str]:
    """The Debian packages that the appliance is made of, besides the essential ones."""
    lines = (HERE / "packages.list").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _native_sources() -> list[Path]:
    """The C sources of the walk that the files table is gathered by."""
    return sorted(_NATIVE.glob("*.[ch]"))


def inputs_id() -> str:
    """Content address of everything that decides how the appliance is built: 12 hex digits."""
    digest = hashlib.sha256()
    recipe = [suite(), *packages(), *_EXCLUDED]
    digest.update("\n".join(recipe).encode())
    scripts = (HERE / name for name in ("customize.sh", "init.sh", "probe.sh"))
    for path in (*scripts, *_native_sources()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def directory() -> Path:
    """Where this version of fleetscan looks for its appliance, built or not."""
    return cache_directory() / "appliance" / f"{suite()}-{inputs_id()}"


def find() -> Appliance:
    """The appliance that is ready for use.

    Raises:
        ApplianceError: there is none yet, or it is damaged.
    """
    place = directory()
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        appliance = _from_manifest(place, manifest)
    except FileNotFoundError:
        raise ApplianceError(
            "the appliance has not been built on this host",
            hint="run: fleetscan appliance build (or import one that another host exported)",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ApplianceError(
            f"the appliance in {place} has no readable manifest: {error}", hint=_BUILD_AGAIN
        ) from error
    missing = [name for name in _FILES if not (place / name).is_file()]
    if missing:
        raise ApplianceError(
            f"the appliance in {place} lacks {', '.join(missing)}", hint=_BUILD_AGAIN
        )
    return appliance


def _from_manifest(place: Path, manifest: dict[str, object]) -> Appliance:
    known = {field.name for field in dataclasses.fields(Appliance)} - {"directory"}
    values = {name: manifest[name] for name in known}
    return Appliance(directory=place, **values)  # type: ignore[arg-type]


def build(*, force: bool = False, log: Callable[[str], None] = lambda line: None) -> Appliance:
    """Build the appliance unless it is there already.

    Two processes that build at once wait for each other; a crash leaves no half appliance.

    Args:
        force: build anew although one is there.
        log: called with each line of the build's progress.

    Raises:
        ApplianceError: a tool is missing or the build failed.
    """
    with _locked():
        if not force:
            with contextlib.suppress(ApplianceError):
                return find()
        _require_tools()
        with _new_directory() as work:
            _bootstrap(work, log)
            _write_initrd(work)
            _write_manifest(work)
            _replace(work, directory())
    return find()


def _require_tools() -> None:
    wanted = {"mmdebstrap": "mmdebstrap", "mkfs.erofs": "erofs-utils", "xz": "xz-utils"}
    missing = [package for tool, package in wanted.items() if not shutil.which(tool)]
    if missing:
        raise ApplianceError(
            f"building the appliance needs {', '.join(missing)}",
            hint=f"on Debian: apt-get install {' '.join(missing)}; elsewhere import an appliance "
            "that was exported on a Debian host",
        )


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    place = cache_directory() / "appliance"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _new_directory() -> Iterator[Path]:
    """A directory to build in; the caller holds the lock. What a crash left is swept away."""
    place = cache_directory() / "appliance"
    for leftover in place.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".new-") as name:
        work = Path(name) / "appliance"
        work.mkdir()
        yield work


def _replace(work: Path, place: Path) -> None:
    if place.exists():
        place.rename(work.parent / "old")
    work.rename(place)


def _bootstrap(work: Path, log: Callable[[str], None]) -> None:
    outputs = ("vmlinuz", "root.erofs", "busybox", "modules.tar", "versions", "release")
    command = [
        "mmdebstrap",
        "--mode=auto",
        "--variant=essential",
        "--format=null",
        f"--include={','.join(packages())}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--aptopt=Acquire::Retries 5",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
        # The distribution's own initrd is not used; making it takes half a minute.
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools" && '
        'echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"',
        "--dpkgopt=force-confold",
        '--customize-hook=mkdir -p "$1/appliance/native"',
        f"--customize-hook=copy-in {' '.join(map(str, _native_sources()))} /appliance/native",
        f"--customize-hook={HERE / 'customize.sh'}",
        *(f"--customize-hook=download /appliance/{name} {work / name}" for name in outputs),
        suite(),
        "/dev/null",
    ]
    if mirror := os.environ.get("FLEETSCAN_DEBIAN_MIRROR"):
        command.append(mirror)
    _run("building the appliance's root", command, log)


def _run(doing: str, command: Sequence[str], log: Callable[[str], None]) -> None:
    environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    tail: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        watchdog = threading.Timer(_BUILD_SECONDS, process.terminate)
        watchdog.start()
        try:
            for line in process.stdout:
                log(line.rstrip())
                tail = [*tail[-30:], line]
            returncode = process.wait()
        finally:
            watchdog.cancel()
    if returncode != 0:
        raise CommandError(
            doing, command, returncode, stdout="".join(tail), hint="run fleetscan doctor"
        )


def _write_initrd(work: Path) -> None:
    files = {
        "init": (HERE / "init.sh").read_bytes(),
        "probe": (HERE / "probe.sh").read_bytes(),
        "bin/busybox": (work / "busybox").read_bytes(),
    }
    with tarfile.open(work / "modules.tar") as modules:
        for member in modules.getmembers():
            content = modules.extractfile(member)
            if content is not None:
                files[f"modules/{Path(member.name).name}"] = content.read()
    executable = frozenset({"init", "probe", "bin/busybox"})
    mount_points = {"dev/.keep": b"", "newroot/.keep": b""}
    (work / "initrd").write_bytes(initrd.pack(files | mount_points, executable=executable))
    for name in ("busybox", "modules.tar"):
        (work / name).unlink()


def _write_manifest(work: Path) -> None:
    sums = {name: _sha256(work / name) for name in _FILES}
    versions = dict(line.split() for line in (work / "versions").read_text().splitlines())
    manifest = {
        "inputs": inputs_id(),
        "content": hashlib.sha256("".join(sums.values()).encode()).hexdigest()[:12],
        "kernel_release": (work / "release").read_text().strip(),
        "suite": suite(),
        "versions": versions,
        "sha256": sums,
    }
    (work / "versions").unlink()
    (work / "release").unlink()
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    for path in work.iterdir():
        path.chmod(0o644)  # the unprivileged VMM reads them
    work.chmod(0o755)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def export_to(target: Path) -> None:
    """Write the appliance as one file, for hosts that cannot build it.

    Raises:
        ApplianceError: there is no appliance.
    """
    appliance = find()
    partial = target.with_name(target.name + ".partial")
    with tarfile.open(partial, "w:gz", compresslevel=3) as archive:
        for name in (*_FILES, "manifest.json"):
            archive.add(appliance.directory / name, arcname=name)
    partial.rename(target)


def import_from(source: Path) -> Appliance:
    """Take over an appliance that another host exported.

    Raises:
        ApplianceError: the file is damaged, or made for another version of fleetscan.
    """
    with _locked(), _new_directory() as work:
        try:
            with tarfile.open(source) as archive:
                for name in (*_FILES, "manifest.json"):
                    _extract(archive, name, work)
            manifest = json.loads((work / "manifest.json").read_text())
            _from_manifest(work, manifest)
        except (OSError, ValueError, KeyError, TypeError, *_ARCHIVE_ERRORS) as error:
            raise ApplianceError(f"{source} is not an exported appliance: {error}") from error
        _check_import(source, work, manifest)
        work.chmod(0o755)
        _replace(work, directory())
    return find()


_ARCHIVE_ERRORS = (tarfile.TarError, EOFError, zlib.error)


def _extract(archive: tarfile.TarFile, name: str, work: Path) -> None:
    """Take one file out of an archive, under the name that was asked for and no other.

    Raises:
        KeyError: there is no such file, or it is a link or directory.
    """
    content = archive.extractfile(name)
    if content is None or not archive.getmember(name).isreg():
        raise KeyError(f"{name} is no regular file")
    with content, (work / name).open("wb") as target:
        shutil.copyfileobj(content, target)
    (work / name).chmod(0o644)  # the unprivileged VMM reads them


def _check_import(source: Path, work: Path, manifest: dict[str, object]) -> None:
    if manifest.get("sha256") != {name: _sha256(work / name) for name in _FILES}:
        raise ApplianceError(f"{source} is damaged: a checksum differs", hint="export it again")
    if manifest.get("inputs") != inputs_id():
        raise ApplianceError(
            f"{source} was made for another version of fleetscan or another Debian release",
            hint="export it from a host that runs the same version of fleetscan",
        )
