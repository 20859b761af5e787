"""mdadm.conf(5): the names that a system gives its arrays, whatever their own metadata says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fleetscan.appliance.guest.disks import BlockDevice

MEMBER = "linux_raid_member"
"""What blkid calls a member of an array."""

PATHS = ("/etc/mdadm/mdadm.conf", "/etc/mdadm.conf")
"""Debian's place, and everybody else's."""

FOLDERS = ("/etc/mdadm/mdadm.conf.d", "/etc/mdadm.conf.d")

_DEVICE = re.compile(r"(?:/dev/)?(?:md/d(?=\d+$)|md/|md_d(?=\d+$)|md_|md(?=\d+$))?(.+)")
_WORD = re.compile(r'(?:[^\s"]|"[^"]*")+')


@dataclass(frozen=True)
class Array:
    """What an ARRAY line knows an array by.

    Attributes:
        uuid: its UUID as only hexadecimal digits; empty for none.
        name: its name in its metadata; empty for none.
    """

    uuid: str = ""
    name: str = ""

    def is_of(self, probe: Mapping[str, str]) -> bool:
        """Whether a member, by what blkid says of it, is one of the array's."""
        if self.uuid:
            return digits(probe.get("UUID", "")) == self.uuid
        label = probe.get("LABEL", "")
        return bool(self.name) and self.name in (label, label.rpartition(":")[2])


def digits(uuid: str) -> str:
    """A UUID without what stands between its digits: mdadm has colons, blkid hyphens."""
    return re.sub("[^0-9a-f]", "", uuid.lower())


def device_name(path: str) -> str:
    """What the paths of one array have in common: 0 for /dev/md0, /dev/md/0 and md0."""
    match = _DEVICE.fullmatch(path)
    return match[1] if match else path


def parse(text: str) -> Iterator[tuple[str, Array]]:
    """Name and identity of each array that the text gives a name.

    Keywords may be shortened to three letters, and stand in letters of any case; a line that
    begins with a blank continues the one before.
    """
    for line in re.sub(r"\n[ \t]+", " ", text).split("\n"):
        words = [word.replace('"', "") for word in _WORD.findall(line.partition("#")[0])]
        if len(words) < 2 or len(words[0]) < 3 or not "array".startswith(words[0].lower()):
            continue
        settings = dict(_setting(word) for word in words[1:] if "=" in word)
        array = Array(digits(settings.get("uuid", "")), settings.get("name", ""))
        named = "=" not in words[1] and not words[1].startswith("<")
        if named and (array.uuid or array.name):
            yield device_name(words[1]), array


def _setting(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lower(), value


def find(array: Array, devices: Sequence[BlockDevice]) -> BlockDevice | None:
    """The running array that is meant; None when there is no such."""
    probes = {device.path: device.probe for device in devices}
    for device in devices:
        if device.disk is None and device.partition is None:
            members = [probes.get(member, {}) for member in device.members]
            if any(member.get("TYPE") == MEMBER and array.is_of(member) for member in members):
                return device
    return None
