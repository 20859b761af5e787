"""The appliance: our own small Debian with its kernel, built once and kept by content address.

An appliance is a directory of the cache with four files: ``vmlinuz``, ``initrd``,
``root.erofs`` and ``manifest.json``, which is written last and names the others' checksums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleetscan.appliance import initrd
from fleetscan.appliance.verified import open_verified
from fleetscan.scanner import trust, writing
from fleetscan.scanner.errors import ApplianceError, CommandError

HERE = Path(__file__).resolve().parent
SUITE = "trixie"
"""Debian release the appliance is made of, unless FLEETSCAN_SUITE names another."""

_NATIVE = initrd.PROJECT / "scanner" / "tables" / "files"
_CHECKSUM = initrd.PROJECT / "scanner" / "tables" / "marvin32.c"
_FILES = ("vmlinuz", "initrd", "root.erofs")
_BUILD_SECONDS = 1800
_BUILD_AGAIN = "run: fleetscan appliance build --force"
_OWN_CACHE = "set FLEETSCAN_CACHE to a directory of your own"

# Debian's own files, no secrets: a cache whose top directory lets others in is of use to them. What
# templates hold is for their owner alone.
_PUBLIC_FILE = 0o644
_PUBLIC_DIRECTORY = 0o755

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
        sha256: checksum of each of its files, in hexadecimal digits.
    """

    directory: Path
    inputs: str
    content: str
    kernel_release: str
    suite: str
    versions: dict[str, str] = field(hash=False)
    sha256: dict[str, str] = field(hash=False, default_factory=dict)

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

    def opened(self, stack: contextlib.ExitStack, path: Path, *, anew: bool = False) -> int:
        """A descriptor of one of its files, whose bytes are those that were built.

        Args:
            stack: closes it.
            path: the file.
            anew: read all of it although it has not changed since that was last done.

        Raises:
            ApplianceError: the file is damaged, gone, or others could have written it.
        """
        try:
            with trusted(self.directory):
                return open_verified(stack, path, self.sha256[path.name], anew=anew)
        except (OSError, KeyError) as error:
            raise ApplianceError(
                f"the appliance's {path.name} cannot be read: {error}", hint=_BUILD_AGAIN
            ) from error


def cache_directory() -> Path:
    """Where appliances and templates are kept: FLEETSCAN_CACHE, else the user's cache."""
    if chosen := os.environ.get("FLEETSCAN_CACHE"):
        return Path(chosen).absolute()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home.absolute() / "fleetscan"


@contextlib.contextmanager
def trusted(place: Path) -> Iterator[None]:
    """Use a directory of the cache only when it is ours alone.

    Raises:
        ApplianceError: other users could have changed it, or what the block finds in it.
    """
    try:
        trust.check_directory(place)
        yield
    except trust.UntrustedError as error:
        hint = f"{error.hint}; or {_OWN_CACHE}" if error.hint else _OWN_CACHE
        raise ApplianceError(f"the cache is not used: {error}", hint=hint) from error


def verify(appliance: Appliance) -> None:
    """Read all of an appliance's files and compare them with their checksums.

    Raises:
        ApplianceError: one is damaged, gone, or others could have written it.
    """
    with contextlib.ExitStack() as stack:
        for path in (appliance.kernel, appliance.initrd, appliance.root):
            appliance.opened(stack, path, anew=True)


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
    for path in (*scripts, *_native_sources(), _CHECKSUM):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def directory() -> Path:
    """Where this version of fleetscan looks for its appliance, built or not."""
    return cache_directory() / "appliance" / f"{suite()}-{inputs_id()}"


def find() -> Appliance:
    """The appliance that is ready for use.

    Raises:
        ApplianceError: there is none yet, it is damaged, or others could have written it.
    """
    place = directory()
    try:
        with trusted(place), (place / "manifest.json").open("rb") as stream:
            trust.check_file(place / "manifest.json", stream.fileno())
            appliance = _from_manifest(place, json.load(stream))
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
    appliance = Appliance(directory=place, **values)  # type: ignore[arg-type]
    if appliance.content != _content(appliance.sha256):
        raise ValueError("its content address is not that of its checksums")
    return appliance


def _content(sums: Mapping[str, str]) -> str:
    """Content address of files with these checksums: 12 hex digits."""
    return hashlib.sha256("".join(sums[name] for name in _FILES).encode()).hexdigest()[:12]


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
    with trusted(place):
        writing.make_directory(place)
    with writing.locked(place / "lock"):
        yield


@contextlib.contextmanager
def _new_directory() -> Iterator[Path]:
    """A directory to build in; the caller holds the lock. What a crash left is swept away."""
    place = cache_directory() / "appliance"
    for leftover in place.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".new-") as name:
        work = Path(name) / "appliance"
        work.mkdir(_PUBLIC_DIRECTORY)
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
        f"--customize-hook=copy-in {_CHECKSUM} /appliance",
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
        umask=0o022,  # which the modes in the appliance's root follow
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
        "content": _content(sums),
        "kernel_release": (work / "release").read_text().strip(),
        "suite": suite(),
        "versions": versions,
        "sha256": sums,
    }
    (work / "versions").unlink()
    (work / "release").unlink()
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    _publish(work)


def _publish(work: Path) -> None:
    """Give a finished appliance its modes: the unprivileged VMM reads the files."""
    for path in work.iterdir():
        path.chmod(_PUBLIC_FILE)
    work.chmod(_PUBLIC_DIRECTORY)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def export_to(target: Path) -> None:
    """Write the appliance as one file, for hosts that cannot build it.

    Raises:
        ApplianceError: there is no appliance, it is damaged, or the file cannot be written.
    """
    appliance = find()
    verify(appliance)
    try:
        with (
            writing.replacing(target) as stream,
            tarfile.open(fileobj=stream, mode="w:gz", compresslevel=3) as archive,
        ):
            for name in (*_FILES, "manifest.json"):
                archive.add(appliance.directory / name, arcname=name)
    except OSError as error:
        raise ApplianceError(
            f"{target} cannot be written: {error.strerror or error}",
            hint="give a file in an existing directory that you can write to",
        ) from error


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
        _publish(work)
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
        raise KeyError(f"{name} is not a regular file")
    with content, (work / name).open("wb") as target:
        shutil.copyfileobj(content, target)


def _check_import(source: Path, work: Path, manifest: dict[str, object]) -> None:
    if manifest.get("sha256") != {name: _sha256(work / name) for name in _FILES}:
        raise ApplianceError(f"{source} is damaged: a checksum differs", hint="export it again")
    if manifest.get("inputs") != inputs_id():
        raise ApplianceError(
            f"{source} was made for another version of fleetscan or another Debian release",
            hint="export it from a host that runs the same version of fleetscan",
        )
