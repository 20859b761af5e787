"""Mount units of systemd that no fstab states, such as Debian's tmp.mount.

A unit counts if something pulls it in. systemd makes units of fstab's entries, too: these come
after the administrator's own (/etc) and before those of packages (/usr).

Source: systemd.mount(5), systemd.unit(5) (order of directories), systemd-fstab-generator(8).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fleetscan.appliance.ground.mounts import FstabEntry, Kind, effective, normal_path
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.mountpoints.spec import Mountpoint
from fleetscan.scanner.tables.services import systemd, unitfile
from fleetscan.scanner.tables.services.collect import define, read_units

_BEFORE_FSTAB = "/etc/"
_OWN_FILES: tuple[Kind, ...] = ("bind", "device", "network")
_NOT_MOUNTED = "a unit of systemd mounts it, which fleetscan does not"


def mountpoints(reader: Reader, stated: Collection[str]) -> Iterator[Mountpoint]:
    """What units mount.

    Args:
        reader: notes what cannot be read.
        stated: paths that fstab mounts.
    """
    try:
        tree = reader.root.once(read_units)
    except OSError as error:
        reader.note(f"mount units: {reason(error)}")
        return
    for name in tree.names():
        if name.endswith(".mount") and tree.wanted_by(name):
            row = _row(reader, tree, name)
            if row and (row.path not in stated or (row.unit or "").startswith(_BEFORE_FSTAB)):
                yield row


def _row(reader: Reader, tree: systemd.UnitTree, name: str) -> Mountpoint | None:
    unit = define(reader.root, tree, name)
    if unit is None or unit.masked:
        return None
    settings: unitfile.Settings = {}
    for path in (unit.path, *tree.dropins(unit.name)):
        unitfile.parse(reader.text(path) or "", settings)
    where = unitfile.last(settings, "Mount", "Where")
    if not where:
        return None
    entry = FstabEntry(
        source=unitfile.last(settings, "Mount", "What") or "",
        path=normal_path(where),
        type=unitfile.last(settings, "Mount", "Type") or "",
        options=tuple((unitfile.last(settings, "Mount", "Options") or "defaults").split(",")),
        check_pass=0,
    )
    return Mountpoint(
        path=entry.path,
        device=None,
        source=entry.source or None,
        type=entry.type or None,
        options=entry.options,
        subvolume=None,
        check_pass=None,
        mounted=False,
        error=_NOT_MOUNTED if entry.kind in _OWN_FILES else None,
        effective_options=effective(entry.options),
        unit=unit.path,
    )
