"""Builds the appliance: our own small Debian with its kernel."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fleetscan.appliance import built, initrd, placing
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import command
from fleetscan.appliance.host.command import Surroundings

_BUILD_SECONDS = 1800
_GRACE_SECONDS = 20.0  # mmdebstrap needs it to take its mounts and its directory away


def build(*, force: bool = False, log: Callable[[str], None] = lambda line: None) -> Appliance:
    """Build the appliance unless it is there already.

    Two processes that build at once wait for each other; a crash leaves no half appliance.

    Args:
        force: build anew although one is there.
        log: called with each line of the build's progress.

    Raises:
        ApplianceError: a tool is missing or the build failed.
    """
    with placing.locked():
        if not force:
            with contextlib.suppress(ApplianceError):
                return built.find()
        _require_tools()
        with placing.new_appliance() as work:
            _bootstrap(work, log)
            _write_initrd(work)
            _write_manifest(work)
    return built.find()


def _require_tools() -> None:
    wanted = {"mmdebstrap": "mmdebstrap", "mkfs.erofs": "erofs-utils", "xz": "xz-utils"}
    missing = [package for tool, package in wanted.items() if not shutil.which(tool)]
    if missing:
        raise ApplianceError(
            f"building the appliance needs {', '.join(missing)}",
            hint=f"on Debian: apt-get install {' '.join(missing)}; elsewhere import an appliance "
            "that was exported on a Debian host",
        )


def _bootstrap(work: Path, log: Callable[[str], None]) -> None:
    outputs = ("vmlinuz", "root.erofs", "busybox", "modules.tar", "versions", "release")
    argv = [
        "mmdebstrap",
        "--mode=auto",
        "--variant=essential",
        "--format=null",
        f"--include={','.join(built.packages())}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--aptopt=Acquire::Retries 5",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in built.EXCLUDED),
        # The distribution's own initrd is not used; making it takes half a minute.
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools" && '
        'echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"',
        "--dpkgopt=force-confold",
        '--customize-hook=mkdir -p "$1/appliance/native"',
        *_native_sources(),
        f"--customize-hook={built.HERE / 'customize.sh'}",
        *(f"--customize-hook=download /appliance/{name} {work / name}" for name in outputs),
        built.suite(),
        "/dev/null",
    ]
    if mirror := os.environ.get("FLEETSCAN_DEBIAN_MIRROR"):
        argv.append(mirror)
    _run("building the appliance's root", argv, log)


def _native_sources() -> Iterator[str]:
    """Hooks that bring the agent's C sources to where customize.sh compiles them."""
    for path in initrd.native_sources():
        folder = "/appliance" if path.name == built.LIBRARY else "/appliance/native"
        yield f"--customize-hook=copy-in {path} {folder}"


def _run(doing: str, argv: Sequence[str], log: Callable[[str], None]) -> None:
    command.run(
        doing,
        argv,
        seconds=_BUILD_SECONDS,
        surroundings=Surroundings(
            environment={"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"},
            umask=0o022,  # which the modes in the appliance's root follow
        ),
        on_line=log,
        grace=_GRACE_SECONDS,
    )


def _write_initrd(work: Path) -> None:
    files = {
        "init": (built.HERE / "init.sh").read_bytes(),
        "probe": (built.HERE / "probe.sh").read_bytes(),
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
    sums = built.checksums(work)
    versions = dict(line.split() for line in (work / "versions").read_text().splitlines())
    manifest = {
        "inputs": built.inputs_id(),
        "content": built.content_of(sums),
        "kernel_release": (work / "release").read_text().strip(),
        "suite": built.suite(),
        "versions": versions,
        "sha256": sums,
    }
    (work / "versions").unlink()
    (work / "release").unlink()
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
