"""File capabilities: what the ``security.capability`` attribute holds, as getcap(8) prints it.

Source of layout and names: Linux's uapi/linux/capability.h (struct vfs_cap_data and
vfs_ns_cap_data); of the text: cap_to_text(3).
"""

from __future__ import annotations

import struct

_REVISION_MASK = 0xFF000000
_FLAG_EFFECTIVE = 0x000001
# Revision -> number of 32-bit words in each set.
_WORDS = {0x01000000: 1, 0x02000000: 2, 0x03000000: 2}
_WITH_ROOT_ID = 0x03000000  # one more word: the uid that is root in the file's user namespace

# Bits that make up the state of one capability, as libcap numbers its sets.
_EFFECTIVE, _PERMITTED, _INHERITABLE = 1, 2, 4
_LETTERS = ((_EFFECTIVE, "e"), (_INHERITABLE, "i"), (_PERMITTED, "p"))

_NAMES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)


def decode(value: bytes) -> str:
    """The text for an attribute's value, such as ``cap_net_raw=ep``.

    Capabilities of a user namespace end in its root's uid, as with ``getcap -n``.

    Raises:
        ValueError: the value has a form that Linux would not accept either.
    """
    if len(value) < 4:
        raise ValueError("malformed file capabilities")
    (magic,) = struct.unpack_from("<I", value)
    revision = magic & _REVISION_MASK
    words = _WORDS.get(revision)
    has_root_id = revision == _WITH_ROOT_ID
    if words is None or len(value) != 4 + 8 * words + 4 * has_root_id:
        raise ValueError("malformed file capabilities")
    permitted = inheritable = 0
    for word in range(words):
        low, high = struct.unpack_from("<II", value, 4 + 8 * word)
        permitted |= low << 32 * word
        inheritable |= high << 32 * word
    text = to_text(permitted, inheritable, effective=bool(magic & _FLAG_EFFECTIVE))
    (root_id,) = struct.unpack_from("<I", value, len(value) - 4) if has_root_id else (0,)
    return f"{text} [rootid={root_id}]" if root_id else text


def to_text(permitted: int, inheritable: int, *, effective: bool) -> str:
    """Sets of capabilities as text: what most have first, then those that differ from it."""
    groups: dict[int, list[int]] = {}
    for number in range(max(len(_NAMES), (permitted | inheritable).bit_length())):
        state = _PERMITTED * (permitted >> number & 1) | _INHERITABLE * (inheritable >> number & 1)
        state |= _EFFECTIVE if state and effective else 0
        groups.setdefault(state, []).append(number)
    common = min(groups, key=lambda state: (-len(groups[state]), state))
    terms = [f"={_flags(common)}"] if common else []
    for state in sorted(groups, reverse=True):
        if state != common:
            more, less = _flags(state & ~common), _flags(common & ~state)
            sign = "+" if terms else "="
            change = (f"{sign}{more}" if more else "") + (f"-{less}" if less else "")
            terms.append(",".join(map(_name, groups[state])) + change)
    return " ".join(terms) or "="


def _flags(state: int) -> str:
    return "".join(letter for bit, letter in _LETTERS if state & bit)


def _name(number: int) -> str:
    return f"cap_{_NAMES[number]}" if number < len(_NAMES) else str(number)
