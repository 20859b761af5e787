"""Encrypted containers (LUKS, BitLocker): opened read-only with the keys that the host gave."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.tools import ToolError, run
from fleetscan.appliance.guest.volume import Volume, VolumeKey, VolumeKind

_KINDS: Mapping[str, tuple[Literal["luks", "bitlocker"], str, str]] = {
    "crypto_LUKS": ("luks", "luks", "LUKS"),
    "BitLocker": ("bitlocker", "bitlk", "BitLocker"),
}
"""blkid's type, to the row's kind, cryptsetup's type, and the word for people."""

_NO_PERMISSION = 2  # cryptsetup(8), RETURN CODES: bad passphrase
_OUT_OF_MEMORY = 3


class Containers(VolumeKind):
    """The machine's encrypted containers."""

    members = _KINDS

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        """Open each with the first key that fits."""
        self.volumes += (open_container(device, self.keys) for device in fresh)


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


KIND = Containers
