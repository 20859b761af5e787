"""Volumes: logical volumes are opened read-only; what stays closed is named with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence

from appliance.guest.disks import BlockDevice
from appliance.guest.tools import ToolError, run
from scanner.tables.volumes.spec import Volume

# No udev, no daemon, no device file of an earlier system: lvm makes its nodes itself and looks at
# every device. It could not write if it tried: the disks are read-only.
LVM_CONFIG = (
    "activation{udev_sync=0 udev_rules=0 monitoring=0 verify_udev_operations=0} "
    "devices{obtain_device_list_from_udev=0 use_devicesfile=0 scan_lvs=1 "
    'hints="none" multipath_component_detection=0 md_component_detection=1} '
    "global{use_lvmpolld=0 use_lvmlockd=0 event_activation=0} "
    "backup{backup=0 archive=0}"
)

_LV_FIELDS = "vg_name,vg_uuid,lv_name,lv_uuid,lv_size,lv_layout,lv_role,lv_path,devices"


def open_lvm() -> tuple[list[Volume], str]:
    """Activate every logical volume there is, read-only.

    Returns:
        The volumes, and why some could not be activated (empty when all could).
    """
    report = ["--reportformat", "json", "--units", "b", "--nosuffix", "-o", _LV_FIELDS]
    listed = run(["lvm", "lvs", *report, "--config", LVM_CONFIG])
    groups = sorted({volume.group_name or "" for volume in parse_lvs(listed)})
    error = ""
    try:
        run(["lvm", "vgchange", "-ay", "-qq", "--config", read_only_config(groups)])
    except ToolError as failure:
        error = str(failure)
    return list(parse_lvs(listed, error, os.path.exists)), error


def read_only_config(groups: Sequence[str]) -> str:
    """Settings under which the volumes of these groups are mapped read-only, as the disks are.

    There is no way to name all groups at once.
    """
    # A name holds letters, digits and +_.- only (lvm(8)): nothing that would end the string.
    names = ",".join(f'"{group}"' for group in groups)
    return f"{LVM_CONFIG} activation{{read_only_volume_list=[{names}]}}"


def parse_lvs(
    output: str, error: str = "", is_there: Callable[[str], bool] = lambda path: False
) -> Iterator[Volume]:
    """Volumes from ``lvs --reportformat json``.

    A volume of several segments stands there once a segment; their members are joined.

    Args:
        output: what lvs printed.
        error: why volumes could not be activated, of those that were not.
        is_there: tells whether a volume's device exists, so that it is active.
    """
    segments: dict[str, list[dict[str, str]]] = {}
    for report in json.loads(output)["report"]:
        for segment in report["lv"]:
            segments.setdefault(segment["lv_uuid"], []).append(segment)
    for parts in segments.values():
        first = parts[0]
        active = is_there(first["lv_path"])
        yield Volume(
            kind="lvm",
            name=first["lv_name"],
            device=first["lv_path"] if active else None,
            group_name=first["vg_name"],
            uuid=first["lv_uuid"],
            group_uuid=first["vg_uuid"],
            size=int(first["lv_size"]),
            layout=first["lv_layout"],
            members=_members(parts),
            active=active,
            snapshot="snapshot" in first["lv_role"],
            error=None if active else (error or "could not be activated"),
        )


def _members(parts: Sequence[dict[str, str]]) -> tuple[str, ...]:
    """Devices of a volume, from entries such as ``/dev/sda2(0),/dev/sdb1(0)``."""
    names = [
        entry.partition("(")[0]
        for part in parts
        for entry in (part.get("devices") or "").split(",")
        if entry
    ]
    return tuple(dict.fromkeys(names))


def closed_luks(devices: Sequence[BlockDevice]) -> Iterator[Volume]:
    """LUKS containers, which no key was given for."""
    for device in devices:
        if device.probe.get("TYPE") == "crypto_LUKS":
            yield Volume(
                kind="luks",
                device=None,
                name=device.path,
                group_name=None,
                uuid=device.probe.get("UUID"),
                group_uuid=None,
                size=device.size,
                layout=f"luks{device.probe.get('VERSION', '')}",
                members=(device.path,),
                active=False,
                snapshot=False,
                error="encrypted (LUKS), and no key was given",
            )
