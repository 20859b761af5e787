"""Logical volumes: opened read-only; what stays closed is named with the reason."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from appliance.guest.tools import ToolError, run
from scanner.tables.volumes.spec import Volume

# No udev, no daemon, no device file of an earlier system: lvm makes its nodes itself and looks at
# every device. It could not write if it tried: the disks are read-only.
LVM_CONFIG = (
    "activation{udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0} "
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0 scan_lvs=1 "
    'hints="none" multipath_component_detection=0 md_component_detection=1} '
    "global{use_lvmpolld=0 use_lvmlockd=0 event_activation=0 "
    'thin_check_executable="" cache_check_executable=""} '
    "backup{backup=0 archive=0}"
)

_LV_FIELDS = (
    "vg_name,vg_uuid,vg_systemid,vg_exported,lv_name,lv_uuid,lv_size,lv_layout,lv_role,lv_path,"
    "lv_health_status,devices"
)


class LogicalVolumes:
    """The machine's volume groups.

    Attributes:
        volumes: every logical volume that was found.
    """

    def __init__(self) -> None:
        self.volumes: list[Volume] = []

    def open(self, names: Mapping[str, str]) -> list[Volume]:
        """Activate every logical volume there is, read-only, and return them all.

        Args:
            names: what devices are called in fact tables, by the kernel's own path.

        Raises:
            ToolError, ValueError, KeyError: lvm cannot say which there are.
        """
        report = ["-a", "--foreign", "--reportformat", "json", "--units", "b", "--nosuffix"]
        listed = run(["lvm", "lvs", *report, "-o", _LV_FIELDS, "--config", LVM_CONFIG])
        groups, systems = _owners(listed)
        config = read_only_config(groups, systems)
        error = ""
        try:
            run(["lvm", "vgchange", "-ay", "-K", "-qq", "--config", config])
        except ToolError as failure:
            error = str(failure)
        self.volumes = [
            dataclasses.replace(volume, members=_named(volume.members, names))
            for volume in parse_lvs(listed, error, os.path.exists)
        ]
        return self.volumes


def _named(members: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names.get(os.path.realpath(member), member) for member in members)


def _owners(listed: str) -> tuple[list[str], list[str]]:
    """Names of the volume groups, and system ids of hosts that hold some for themselves."""
    groups, systems = set(), set()
    for report in json.loads(listed)["report"]:
        for segment in report["lv"]:
            groups.add(segment["vg_name"])
            systems.add(segment["vg_systemid"])
    return sorted(groups), sorted(systems - {""})


def read_only_config(groups: Sequence[str], systems: Sequence[str] = ()) -> str:
    """Settings under which the volumes of these groups are mapped read-only, as the disks are.

    There is no way to name all groups at once.

    Args:
        groups: names of volume groups.
        systems: the hosts in whose stead groups may be opened that belong to them alone.
    """
    # Names and system ids hold letters, digits and +_.- only (lvm(8), lvmsystemid(7)): nothing
    # that would end the string.
    names = ",".join(f'"{group}"' for group in groups)
    config = f"{LVM_CONFIG} activation{{read_only_volume_list=[{names}]}}"
    if systems:
        hosts = ",".join(f'"{system}"' for system in systems)
        config += f" local{{extra_system_ids=[{hosts}]}}"
    return config


def parse_lvs(
    output: str, error: str = "", is_there: Callable[[str], bool] = lambda path: False
) -> Iterator[Volume]:
    """Volumes from ``lvs -a --reportformat json``.

    A volume of several segments stands there once a segment; their members are joined. Volumes
    that others are made of stand there in brackets; they are no rows of their own.

    Args:
        output: what lvs printed.
        error: why volumes could not be activated, of those that were not.
        is_there: tells whether a volume's device exists, so that it is active.
    """
    segments: dict[str, list[dict[str, str]]] = {}
    entries: dict[tuple[str, str], list[str]] = {}
    for report in json.loads(output)["report"]:
        for segment in report["lv"]:
            segments.setdefault(segment["lv_uuid"], []).append(segment)
            name = segment["vg_uuid"], segment["lv_name"].strip("[]")
            entries.setdefault(name, []).extend((segment.get("devices") or "").split(","))
    for parts in segments.values():
        first = parts[0]
        if first["lv_name"].startswith("["):
            continue
        active = is_there(first["lv_path"])
        health = first.get("lv_health_status", "")
        yield Volume(
            kind="lvm",
            name=first["lv_name"],
            device=first["lv_path"] if active else None,
            group_name=first["vg_name"],
            uuid=first["lv_uuid"],
            group_uuid=first["vg_uuid"],
            size=int(first["lv_size"]),
            layout=first["lv_layout"],
            members=_members(first["vg_uuid"], first["lv_name"], entries),
            active=active,
            snapshot="snapshot" in first["lv_role"],
            degraded=health == "partial" if "raid" in first["lv_layout"] else None,
            error=None if active else _reason(first, health, error),
        )


def _reason(segment: Mapping[str, str], health: str, error: str) -> str:
    if health == "partial":
        return "lies partly on a device that is missing"
    if segment.get("vg_exported"):
        return "its volume group is exported"
    return error or "could not be activated"


def _members(
    group: str, name: str, entries: Mapping[tuple[str, str], Sequence[str]]
) -> tuple[str, ...]:
    """Devices that a volume lies on in the end.

    Entries are such as ``/dev/sda2(0)``, or name another volume of the group:
    ``root_rimage_0(0)``.
    """
    found: dict[str, None] = {}
    seen = {name}
    waiting = [name]
    while waiting:
        for entry in entries.get((group, waiting.pop(0)), ()):
            member = entry.partition("(")[0]
            if member.startswith("/"):
                found[member] = None
            elif member and member not in seen:
                seen.add(member)
                waiting.append(member)
    return tuple(found)
