"""Encrypted containers (LUKS, BitLocker): opened read-only with the keys that the host gave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.tools import ToolError, run
from fleetscan.appliance.guest.volume import Volume

Kind = Literal["luks", "bitlocker"]

_KINDS: Mapping[str, tuple[Kind, str, str]] = {
    "crypto_LUKS": ("luks", "luks", "LUKS"),
    "BitLocker": ("bitlocker", "bitlk", "BitLocker"),
}
"""blkid's type, to the row's kind, cryptsetup's type, and the word for people."""

_NO_PERMISSION = 2  # cryptsetup(8), RETURN CODES: bad passphrase
_OUT_OF_MEMORY = 3


@dataclass(frozen=True)
class VolumeKey:
    """A passphrase or the content of a key file.

    Attributes:
        selector: what it is for: ``all``, a container's UUID or its device's path.
        secret: the key itself; never shown.
    """

    selector: str
    secret: bytes = field(repr=False)

    def is_for(self, device: BlockDevice) -> bool:
        """Whether it is to be tried on a container."""
        uuid = device.probe.get("UUID", "")
        names = {"all", device.path, uuid.casefold()} - {""}
        return self.selector in names or self.selector.casefold() in names


def is_container(device: BlockDevice) -> bool:
    """Whether a device's content is encrypted in a way that can be opened here."""
    return device.probe.get("TYPE") in _KINDS


def open_container(device: BlockDevice, keys: Sequence[VolumeKey]) -> Volume:
    """Open a container with the first key that fits; with none, its row says so."""
    kind, tool_kind, word = _KINDS[device.probe["TYPE"]]
    name = f"{kind}-{os.path.basename(os.path.realpath(device.path))}"
    error = _open(device, name, tool_kind, [key for key in keys if key.is_for(device)])
    return Volume(
        kind=kind,
        device=None if error else f"/dev/mapper/{name}",
        name=device.path,
        uuid=device.probe.get("UUID"),
        size=device.size,
        layout=f"{kind}{device.probe.get('VERSION', '') if kind == 'luks' else ''}",
        members=(device.path,),
        active=not error,
        snapshot=False,
        error=f"encrypted ({word}), and {error}" if error else None,
    )


def _open(device: BlockDevice, name: str, kind: str, keys: Sequence[VolumeKey]) -> str:
    """Why none of the keys opens it; empty when one did."""
    if not keys:
        return "no key was given"
    command = ["cryptsetup", "open", "--readonly", "--type", kind, "--key-file=-", "--batch-mode"]
    if kind == "luks":
        command += ["--disable-keyring", "--disable-locks"]
    reason = ""
    for key in keys:
        try:
            run([*command, device.path, name], stdin=key.secret)
            return ""
        except ToolError as error:
            if error.status == _OUT_OF_MEMORY:
                reason = "its key derivation needs more memory than the appliance has"
            elif error.status != _NO_PERMISSION:
                reason = reason or f"it cannot be opened: {error}"
    return reason or ("the key given for it does not fit" if len(keys) == 1 else "no key fits")
