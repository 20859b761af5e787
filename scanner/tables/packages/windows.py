"""Programs and updates of a Windows system, from its registry.

Programs are what "Add or remove programs" is made of: the Uninstall keys of the machine, in the
system's own view and that of 32-bit programs, and of each user. Updates are the packages of
component based servicing that an update brought and that are in force. Source: Microsoft's
"Uninstall Registry Key"; states as in CbsApi.h (CbsInstallStateInstalled is 7, times 16).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.purl import purl
from fleetscan.scanner.tables.packages.spec import Package

_UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
_UNINSTALL_32 = f"WOW6432Node\\{_UNINSTALL}"
_SERVICING = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages"
_OF_USER = "Software\\"

_PROGRAM_VALUES = (
    *("displayname", "displayversion", "publisher", "comments", "estimatedsize", "installdate"),
)
_UPDATE_VALUES = ("currentstate", "installtimehigh", "installtimelow")
_UPDATE = "Package_for_"
_INSTALLED = 0x70
_DAY = re.compile("([0-9]{4})([0-9]{2})([0-9]{2})")


def collect(root: Root, problems: Problems) -> Iterator[Package]:
    """One row a program, then one an update, then one a program of a user.

    Args:
        root: the tree.
        problems: gets a message for whatever could not be read.
    """
    wanted = [
        Want(_UNINSTALL, 1, _PROGRAM_VALUES),
        Want(_UNINSTALL_32, 1, _PROGRAM_VALUES),
        Want(_SERVICING, 1, _UPDATE_VALUES),
    ]
    software = hives.read_system(root, "SOFTWARE", wanted, problems)
    yield from programs(software.below(_UNINSTALL))
    yield from programs(software.below(_UNINSTALL_32), architecture="x86")
    yield from updates(software.below(_SERVICING))
    for account, path in hives.user_hives(root):
        yield from _of_user(root, account, path, problems)


def _of_user(root: Root, account: str, path: str, problems: Problems) -> Iterator[Package]:
    places: Sequence[tuple[str, str | None]] = ((_UNINSTALL, None), (_UNINSTALL_32, "x86"))
    wanted = [Want(_OF_USER + place, 1, _PROGRAM_VALUES) for place, _ in places]
    hive = hives.read(root, path, wanted, problems)
    if hive:
        for place, architecture in places:
            yield from programs(hive.below(_OF_USER + place), architecture, account)


def programs(
    keys: Iterator[HiveKey], architecture: str | None = None, account: str | None = None
) -> Iterator[Package]:
    """Rows of Uninstall keys; those without a name to show are parts of others, or remains."""
    for key in keys:
        name = key.text("DisplayName")
        if name:
            version = key.text("DisplayVersion") or ""
            kibibytes = key.number("EstimatedSize")
            yield Package(
                manager="windows",
                name=name,
                version=version,
                purl=purl("generic", name, version, "windows", arch=architecture),
                upstream_version=version,
                architecture=architecture or None,
                account=account,
                vendor=key.text("Publisher") or None,
                summary=key.text("Comments") or None,
                installed_size=None if kibibytes is None else kibibytes * 1024,
                installed_at=_day(key.text("InstallDate")),
            )


def updates(keys: Iterator[HiveKey]) -> Iterator[Package]:
    """Rows of servicing packages, whose keys are named NAME~TOKEN~ARCHITECTURE~LANGUAGE~VERSION."""
    for key in keys:
        fields = key.name.split("~")
        if (
            len(fields) == 5
            and fields[0].startswith(_UPDATE)
            and key.number("CurrentState") == _INSTALLED
        ):
            high, low = key.number("InstallTimeHigh"), key.number("InstallTimeLow")
            name, version = fields[0].removeprefix(_UPDATE), fields[4]
            yield Package(
                manager="windows-update",
                name=name,
                version=version,
                purl=purl("generic", name, version, "windows-update", arch=fields[2]),
                upstream_version=version,
                architecture=fields[2] or None,
                installed_at=hives.filetime((high or 0) << 32 | (low or 0)),
            )


def _day(text: str | None) -> int | None:
    """Microseconds since 1970 of a day such as 20240102; None for what is none."""
    parts = _DAY.fullmatch(text or "")
    try:
        year, month, day = map(int, parts.groups() if parts else ())
        return int(dt.datetime(year, month, day, tzinfo=dt.UTC).timestamp()) * MICROSECOND
    except ValueError:
        return None
