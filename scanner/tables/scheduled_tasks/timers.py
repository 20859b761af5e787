"""systemd's timers as scheduled tasks; units are found and read as the services table does."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.scheduled_tasks.spec import ScheduledTask
from fleetscan.scanner.tables.services import systemd, unitfile
from fleetscan.scanner.tables.services.collect import define, read_units

FOLDERS = systemd.SEARCH_PATH
"""Where timers are."""

_SCHEDULES = (
    "OnCalendar",
    "OnActiveSec",
    "OnBootSec",
    "OnStartupSec",
    "OnUnitActiveSec",
    "OnUnitInactiveSec",
)


def tasks(reader: Reader) -> Iterator[ScheduledTask]:
    """One row a timer that can be started, sorted by name; templates and aliases have none."""
    tree = reader.root.once(read_units)
    for name in tree.names():
        if not name.endswith(".timer") or unitfile.is_template(name):
            continue
        unit = define(reader.root, tree, name)
        if unit is not None and not unit.masked and unit.name == name:
            yield _task(reader, tree, name, unit)


def _task(
    reader: Reader, tree: systemd.UnitTree, name: str, unit: systemd.Definition
) -> ScheduledTask:
    settings: unitfile.Settings = {}
    for path in (unit.path, *tree.dropins(unit.name)):
        unitfile.parse(reader.text(path, path, unit.path) or "", settings)
    started = tree.state(name, unit, settings) == "enabled" or bool(tree.wanted_by(name))
    return ScheduledTask(
        kind="timer",
        file=unit.path,
        name=name,
        schedule="; ".join(
            f"{key}={value}" for key in _SCHEDULES for value in settings.get(("Timer", key), ())
        ),
        command=unitfile.last(settings, "Timer", "Unit")
        or f"{name.removesuffix('.timer')}.service",
        enabled=started,
    )
