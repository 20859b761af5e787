"""Identity of a Windows system, from its SOFTWARE and SYSTEM hives."""

from __future__ import annotations

import dataclasses

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.operating_systems.spec import OperatingSystem

_VERSION = "Microsoft\\Windows NT\\CurrentVersion"
_CONTROL = "CurrentControlSet\\Control"
_ENVIRONMENT = f"{_CONTROL}\\Session Manager\\Environment"
_NAME = f"{_CONTROL}\\ComputerName\\ComputerName"
_TIME_ZONE = f"{_CONTROL}\\TimeZoneInformation"
_TCPIP = "CurrentControlSet\\Services\\Tcpip\\Parameters"
_PRODUCT = f"{_CONTROL}\\ProductOptions"

_SLEEP_FILE = "/hiberfil.sys"
_SLEEPING = b"hibr"  # in capitals since Windows 8

# PROCESSOR_ARCHITECTURE, as uname -m would say it.
_ARCHITECTURES = {
    "amd64": "x86_64",
    "x86": "i686",
    "arm64": "aarch64",
    "arm": "armv7l",
    "ia64": "ia64",
}
_NT_KINDS = {"winnt": "Workstation", "servernt": "Server", "lanmannt": "Server"}
_WINDOWS_11 = 22000  # its first build; ProductName still says Windows 10


def read(root: Root, problems: Problems) -> OperatingSystem:
    """The row of a Windows root.

    Args:
        root: the tree.
        problems: gets a message for what could not be read.
    """
    software = hives.read_system(root, "SOFTWARE", [Want(_VERSION)], problems)
    wanted = [Want(path) for path in (_ENVIRONMENT, _NAME, _TIME_ZONE, _TCPIP, _PRODUCT)]
    system = hives.read_system(root, "SYSTEM", wanted, problems)
    return dataclasses.replace(describe(software, system), hibernated=is_hibernated(root, problems))


def is_hibernated(root: Root, problems: Problems) -> bool | None:
    """Whether the file that memory is saved to says that it is to be resumed; None if unreadable.

    Source of the mark: ntfs-3g, ntfs_volume_check_hiberfile(); once resumed, the file begins with
    zeros or another one.
    """
    try:
        with root.open(_SLEEP_FILE) as stream:
            return stream.read(len(_SLEEPING)).lower() == _SLEEPING
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        problems.note(f"{_SLEEP_FILE}: {reason(error)}")
        return None


def describe(software: HiveKey, system: HiveKey) -> OperatingSystem:
    """The row that the two hives give."""
    version = software.find(_VERSION) or HiveKey("")
    major, minor = _numbers(version)
    build = version.text("CurrentBuildNumber") or version.text("CurrentBuild")
    revision = version.number("UBR")
    whole = [major, minor, build, revision]
    known = whole[: whole.index(None)] if None in whole else whole
    return OperatingSystem(
        family="windows",
        form="installed",
        distro="windows",
        inspector_distro="windows",
        like=(),
        product=_product(version.text("ProductName"), build)
        or _nt_product(version.text("CurrentVersion"), _text(system, _PRODUCT, "ProductType")),
        version=".".join(map(str, known)) or None,
        version_major=major,
        version_minor=minor,
        codename=version.text("DisplayVersion")
        or version.text("ReleaseId")
        or version.text("CSDVersion"),
        variant=version.text("EditionID"),
        architecture=_architecture(system),
        hostname=_text(system, _TCPIP, "Hostname") or _text(system, _NAME, "ComputerName"),
        timezone=_text(system, _TIME_ZONE, "TimeZoneKeyName")
        or _text(system, _TIME_ZONE, "StandardName"),
        kernels=(),
        build=build,
        installed_at=_installed(version),
        system_root=version.text("SystemRoot"),
    )


def _numbers(version: HiveKey) -> tuple[int | None, int | None]:
    """Major and minor version; before Windows 10 they stand in a text such as 6.1."""
    major, minor = (
        version.number("CurrentMajorVersionNumber"),
        version.number("CurrentMinorVersionNumber"),
    )
    if major is not None:
        return major, minor
    parts = (version.text("CurrentVersion") or "").split(".")[:2]
    if len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts):
        return int(parts[0][:9]), int(parts[1][:9])
    return None, None


def _product(name: str | None, build: str | None) -> str | None:
    if name and build and build.isascii() and build.isdigit() and int(build[:9]) >= _WINDOWS_11:
        return name.replace("Windows 10", "Windows 11", 1)
    return name


def _nt_product(version: str | None, kind: str | None) -> str | None:
    """Windows NT, which does not name itself; its kinds are those of the key ProductOptions."""
    if not version:
        return None
    return " ".join(filter(None, ("Windows NT", version, _NT_KINDS.get((kind or "").lower()))))


def _architecture(system: HiveKey) -> str | None:
    stated = _text(system, _ENVIRONMENT, "PROCESSOR_ARCHITECTURE") or ""
    return _ARCHITECTURES.get(stated.lower())


def _installed(version: HiveKey) -> int | None:
    if seconds := version.number("InstallDate"):
        return seconds * MICROSECOND
    return hives.filetime(version.number("InstallTime"))


def _text(hive: HiveKey, path: str, name: str) -> str | None:
    key = hive.find(path)
    return key.text(name) if key else None
