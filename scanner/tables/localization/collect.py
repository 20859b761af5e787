"""Time zone, hardware clock, locale and keyboard, from the files that the system reads them from.

Sources: localtime(5), locale.conf(5), vconsole.conf(5) and keyboard(5); adjtime_config(5) for the
hardware clock; Debian's /etc/timezone and /etc/default/locale, Red Hat 6's /etc/sysconfig.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers.os_release import parse_assignments
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.localization.spec import Localization

_LOCALTIME, _ZONES = "/etc/localtime", "zoneinfo/"
_TIMEZONE = "/etc/timezone"
_CLOCKS = (("/etc/sysconfig/clock", "ZONE"),)
_ADJTIME = "/etc/adjtime"
_LOCALES = (
    ("/etc/locale.conf", "LANG"),
    ("/etc/default/locale", "LANG"),
    ("/etc/sysconfig/i18n", "LANG"),
)
_KEYMAPS = (
    ("/etc/vconsole.conf", "KEYMAP"),
    ("/etc/default/keyboard", "XKBLAYOUT"),
    ("/etc/sysconfig/keyboard", "KEYTABLE"),
)


def collect(root: Root) -> Iterator[Localization]:
    """One row.

    Raises:
        NotApplicable: this is Windows, or the system sets none of it.
        UnreadError: a file could not be read; raised after the row.
    """
    if root.windows:
        raise NotApplicable("no Unix system")
    reader = Reader(root)
    row = Localization(
        timezone=_timezone(reader),
        hardware_clock=_hardware_clock(reader.text(_ADJTIME) or ""),
        locale=_first(reader, _LOCALES),
        keymap=_first(reader, _KEYMAPS),
    )
    if row != Localization(timezone=None, hardware_clock=None, locale=None, keymap=None):
        yield row
    elif not reader:
        raise NotApplicable("no time zone, locale or keyboard is set")
    reader.finish()


def _timezone(reader: Reader) -> str | None:
    if reader.root.is_link(_LOCALTIME):
        _, zones, name = reader.root.readlink(_LOCALTIME).partition(_ZONES)
        if zones and name:
            return name
    lines = (reader.text(_TIMEZONE) or "").split()
    zone = lines[0] if lines else _first(reader, _CLOCKS)
    return zone and zone.replace(" ", "_")  # Red Hat's tools wrote "America/New York" once


def _hardware_clock(text: str) -> Literal["utc", "local"] | None:
    """The third line of adjtime, which is UTC or LOCAL."""
    lines = text.splitlines()
    told = lines[2].strip() if len(lines) > 2 else ""
    return "local" if told == "LOCAL" else "utc" if told == "UTC" else None


def _first(reader: Reader, places: tuple[tuple[str, str], ...]) -> str | None:
    """The first value that is set, of a variable in each of some files."""
    for path, name in places:
        if value := parse_assignments(reader.text(path) or "").get(name):
            return value
    return None
