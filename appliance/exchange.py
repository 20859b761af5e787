"""Appliances as one file, for hosts that cannot build one."""

from __future__ import annotations

import json
import shutil
import tarfile
import zlib
from pathlib import Path

from fleetscan.appliance import built, placing
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.host import writing


def export_to(target: Path) -> None:
    """Write the appliance as one file, for hosts that cannot build it.

    Raises:
        ApplianceError: there is no appliance, it is damaged, or the file cannot be written.
    """
    appliance = built.find()
    built.verify(appliance)
    try:
        with (
            writing.replacing(target) as stream,
            tarfile.open(fileobj=stream, mode="w:gz", compresslevel=3) as archive,
        ):
            for name in (*built.FILES, "manifest.json"):
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
    with placing.locked(), placing.new_appliance() as work:
        try:
            with tarfile.open(source) as archive:
                for name in (*built.FILES, "manifest.json"):
                    _extract(archive, name, work)
            manifest = json.loads((work / "manifest.json").read_text())
            built.from_manifest(work, manifest)
        except (OSError, ValueError, KeyError, TypeError, *_ARCHIVE_ERRORS) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ApplianceError(
                f"{source} is not an exported appliance: {reason or first}",
                hint="give a file that `fleetscan appliance export` wrote",
            ) from error
        _check_import(source, work, manifest)
    return built.find()


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
    if manifest.get("sha256") != built.checksums(work):
        raise ApplianceError(f"{source} is damaged: a checksum differs", hint="export it again")
    if manifest.get("inputs") != built.inputs_id():
        raise ApplianceError(
            f"{source} was made for another version of fleetscan or another Debian release",
            hint="export it from a host that runs the same version of fleetscan",
        )
