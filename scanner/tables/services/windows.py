"""Services and drivers of a Windows system, from the Services key of its SYSTEM hive.

Source of the numbers: Microsoft's CreateService and ENUM_SERVICE_STATUS documentation.
"""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.services.spec import Service, State

_SERVICES = "CurrentControlSet\\Services"
_VALUES = ("type", "start", "imagepath", "objectname", "displayname", "description")

_DRIVER_TYPES = 0x0F  # kernel, file system, adapter and recogniser drivers
_SERVICE_TYPES = 0xF0  # in a process of its own or a shared one, of the system or of each user
_STATES: dict[int | None, State] = {
    0: "enabled",
    1: "enabled",
    2: "enabled",
    3: "manual",
    4: "disabled",
}
_SYSTEM_ACCOUNT = "localsystem"


def collect(root: Root) -> Iterator[Service]:
    """One row a service or driver.

    Raises:
        IncompleteError: the hive cannot be read, or not to the end; raised after all rows.
    """
    problems = Problems()
    system = hives.read_system(root, "SYSTEM", [Want(_SERVICES, 1, _VALUES)], problems)
    yield from services(system.below(_SERVICES))
    problems.finish()


def services(keys: Iterator[HiveKey]) -> Iterator[Service]:
    """Rows of keys below Services; those of another kind, such as performance data, have none."""
    for key in keys:
        kind = key.number("Type") or 0
        if not kind & (_DRIVER_TYPES | _SERVICE_TYPES):
            continue
        account = key.text("ObjectName")
        driver = not kind & _SERVICE_TYPES
        yield Service(
            name=key.name,
            manager="windows",
            kind="driver" if driver else "service",
            state=_STATES.get(key.number("Start"), "bad"),
            path=f"HKLM\\SYSTEM\\{_SERVICES}\\{key.name}",
            description=key.text("DisplayName") or key.text("Description"),
            command=key.text("ImagePath"),
            run_as=None if driver or (account or "").lower() == _SYSTEM_ACCOUNT else account,
            wanted_by=(),
            aliases=(),
        )
