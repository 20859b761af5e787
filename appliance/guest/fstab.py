"""fstab: which filesystem a root mounts where, in terms of the devices found here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fleetscan.appliance.ground.mounts import TAGS, FstabEntry, normal_path
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volumes.arrays.mdadm_conf import Array, device_name, digits
from fleetscan.appliance.guest.volumes.arrays.mdadm_conf import find as find_array

_OCTAL = re.compile(rb"\\([0-7]{3})")
_BLANKS = re.compile(r"[ \t]+")
_PASS = re.compile(r"[0-9]{1,2}")
# Disk names of every bus that a guest may know its disks by; the letter counts disks.
_LETTERED = re.compile(r"^/dev/(?:sd|hd|vd|xvd)([a-z]{1,2})(\d*)$")
_BY_TAG = re.compile(r"^/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)$")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_MAPPED = re.compile(r"^/dev/mapper/(.+)$")
_LOGICAL = re.compile(r"((?:[^-]|--)+)-(?!-)(.+)")
_NUMBERED_ARRAY = re.compile(r"^/dev/md/(\d+)$")
_ARRAY_BY_ID = re.compile(r"^/dev/disk/by-id/md-(uuid|name)-(.+)$")
_NVME = re.compile(r"^/dev/(?:nvme(\d+)n1|mmcblk(\d+))(?:p(\d+))?$")


def parse(text: str) -> list[FstabEntry]:
    """The entries of an fstab; lines that are none are passed over, as mount(8) does."""
    entries = []
    for line in text.split("\n"):  # other separators that Python knows may stand in names
        fields = [_decode(field) for field in _BLANKS.split(line.strip(" \t\r"))]
        if len(fields) < 3 or fields[0].startswith("#"):
            continue
        options = tuple(fields[3].split(",")) if len(fields) > 3 else ("defaults",)
        last = fields[5] if len(fields) > 5 else "0"
        check_pass = int(last) if _PASS.fullmatch(last) else 0
        source, path = _unquote(fields[0]), normal_path(fields[1])
        entries.append(FstabEntry(source, path, fields[2], options, check_pass))
    return entries


def _decode(field: str) -> str:
    """A field with its octal escapes, which stand for bytes, put right."""
    encoded = field.encode("utf-8", "surrogateescape")
    plain = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), encoded)
    return plain.decode("utf-8", "surrogateescape")


def _unquote(source: str) -> str:
    tag, equals, value = source.partition("=")
    return f"{tag}={value.strip(chr(34))}" if equals else source


def parse_crypttab(text: str) -> dict[str, str]:
    """The name of each encrypted volume that is opened at boot, and its container's source."""
    lines = (_BLANKS.split(line.strip(" \t\r")) for line in text.split("\n"))
    return {
        fields[0]: _unquote(fields[1])
        for fields in lines
        if len(fields) > 1 and not fields[0].startswith("#")
    }


def resolve(
    source: str,
    devices: Sequence[BlockDevice],
    encrypted: Mapping[str, str] | None = None,
    arrays: Mapping[str, Array] | None = None,
) -> BlockDevice | None:
    """The device that an fstab source means on this machine.

    Args:
        source: first field of the entry.
        devices: every block device of the machine, probed.
        encrypted: name to container of the system's encrypted volumes, from its crypttab.
        arrays: name to identity of the system's arrays, from its mdadm.conf.
    """
    tag, equals, value = source.partition("=")
    if equals and tag in TAGS:
        return _by_probe(devices, TAGS[tag], value)
    if match := _BY_TAG.match(source):
        text = _ESCAPED.sub(lambda code: chr(int(code[1], 16)), match[2])
        return _by_probe(devices, TAGS[match[1].upper()], text)
    if match := _ARRAY_BY_ID.match(source):
        by_uuid = match[1] == "uuid"
        identity = Array(uuid=digits(match[2])) if by_uuid else Array(name=match[2])
        return find_array(identity, devices)
    if source.startswith("/dev/md") and (array := (arrays or {}).get(device_name(source))):
        return find_array(array, devices)
    by_path = {device.path: device for device in devices}
    if mapped := _MAPPED.match(source):
        found = by_path.get(source) or by_path.get(_logical_volume(mapped[1]))
        return found or _decrypted((encrypted or {}).get(mapped[1], ""), devices, arrays)
    if numbered := _NUMBERED_ARRAY.match(source):
        source = f"/dev/md{numbered[1]}"
    return by_path.get(source) if _is_volume(source, by_path) else _by_place(source, devices)


def _by_probe(devices: Sequence[BlockDevice], name: str, value: str) -> BlockDevice | None:
    # UUIDs are compared as libblkid does: letters' case makes no difference.
    fold = str.casefold if name.endswith("UUID") else str
    # A snapshot of a volume bears the same names as the volume itself.
    for device in sorted(devices, key=lambda device: device.snapshot):
        if name in device.probe and fold(device.probe[name]) == fold(value):
            return device
    return None


def _decrypted(
    source: str, devices: Sequence[BlockDevice], arrays: Mapping[str, Array] | None
) -> BlockDevice | None:
    """What an encrypted container holds, once it was opened."""
    container = resolve(source, devices, arrays=arrays)
    for device in devices if container else ():
        if device.partition is None and container and device.members == (container.path,):
            return device
    return None


def _logical_volume(mapped: str) -> str:
    """``/dev/vg/lv`` for the device-mapper name ``vg-lv``, in which a hyphen is doubled.

    A volume's name begins with no hyphen (lvm(8)), so ``a---b`` is ``/dev/a-/b``.
    """
    match = _LOGICAL.fullmatch(mapped)
    names = match.groups() if match else (mapped,)
    return "/".join(["/dev", *(name.replace("--", "-") for name in names)])


def _is_volume(source: str, by_path: Mapping[str, BlockDevice]) -> bool:
    device = by_path.get(source)
    return device is not None and device.disk is None


def _by_place(source: str, devices: Sequence[BlockDevice]) -> BlockDevice | None:
    """The device at the same place, for a disk's name on whatever bus the guest has."""
    if match := _LETTERED.match(source):
        disk, number = _letters(match[1]), match[2]
    elif match := _NVME.match(source):
        disk, number = int(match[1] or match[2]), match[3]
    else:
        return None
    wanted = int(number) if number else None
    for device in devices:
        if device.disk == disk and device.partition == wanted:
            return device
    return None


def _letters(letters: str) -> int:
    """0 for a, 25 for z, 26 for aa."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1
