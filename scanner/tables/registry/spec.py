"""One row a value of the Windows registry."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import U32, U64, Timestamp, column, table

ValueType = Literal[
    "sz",
    "expand_sz",
    "multi_sz",
    "dword",
    "dword_big_endian",
    "qword",
    "binary",
    "none",
    "link",
    "other",
]


@table()
class RegistryValue:
    r"""Values of the Windows registry, from the keys that hold security settings.

    These are, by default: version, log-on, user account control, policies (Windows Update,
    firewall, event logs, remote desktop, WinRM, PowerShell), autoruns (Run, RunOnce, RunOnceEx
    and which of them are switched off, Active Setup, AppInit and AppCert libraries, netsh helpers,
    print monitors, those of the command processor, log-on scripts; per user as well), who logged
    on last, LSA, SChannel, secure channel, remote desktop, SMB server and client with shares,
    TCP/IP and DNS, firewall profiles, time, event logs, crash dumps, audit policy, and the tree
    of scheduled tasks. ``fleetscan scan --registry KEY`` adds a key and everything below it, such
    as ``HKLM\SOFTWARE\Vendor``; the option may be repeated.

    Values whose names suggest passwords or other secrets are redacted as a whole.
    """

    key: str = column(
        "Key, as regedit shows it; CurrentControlSet is the control set that starts, and HKU is "
        "followed by the name of the user's profile folder. Windows ignores the case of keys and "
        "names: compare them in lower case.",
        example="HKLM\\SYSTEM\\CurrentControlSet\\Control\\Lsa",
    )
    name: str = column(
        "Value's name; empty for a key's default value.", example="LmCompatibilityLevel"
    )
    type: ValueType = column("Its type, without REG_.")
    value: str | None = column(
        "The value as text: numbers in decimal, binary data as hex digits, strings of a multi_sz "
        "separated by line feeds.",
        example="3",
        named_by=("key", "name"),
    )
    number: U64 | None = column(
        "The value as a number, if it is a dword or qword; null if withheld.", example="3"
    )
    size: U32 | None = column("Length of its data; null if withheld.", unit="bytes")
    truncated: bool = column(
        "Whether only its beginning is stored, because it is longer than 4096 bytes."
    )
    withheld: bool = column("Whether it is redacted as a whole because its name suggests a secret.")
    key_modified: Timestamp | None = column("When its key was last written.")
