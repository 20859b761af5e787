"""Values of the Windows registry."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.redaction import MARKER, is_secret
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivereader import Want
from fleetscan.appliance.guest.readers.hives import HiveKey, Value
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.registry import default_keys
from fleetscan.scanner.tables.registry.spec import RegistryValue, ValueType

VALUE_LIMIT = 4096
"""Bytes of a value's data that are given."""

_TYPES: dict[int, ValueType] = {
    0: "none",
    1: "sz",
    2: "expand_sz",
    3: "binary",
    4: "dword",
    5: "dword_big_endian",
    6: "link",
    7: "multi_sz",
    11: "qword",
}
# Names of its values are the communities, and the values what each may do.
_COMMUNITIES = "\\validcommunities"


def collect(root: Root) -> Iterator[RegistryValue]:
    """One row a value: the machine's keys, then those of each user.

    Raises:
        NotApplicable: this is not Windows.
        IncompleteError: a hive cannot be read, or not to the end; raised after all rows.
    """
    if not root.windows:
        raise NotApplicable("no Windows registry")
    problems = Problems()
    for hive, wanted in default_keys.MACHINE.items():
        more = tuple(_asked(root.options.registry, f"HKLM\\{hive}"))
        top = hives.read_system(root, hive, (*wanted, *more), problems)
        yield from values(top, f"HKLM\\{hive}")
    wanted_of_users = (*default_keys.USER, *_asked(root.options.registry, "HKU"))
    for account, path in hives.user_hives(root):
        top = hives.read(root, path, wanted_of_users, problems) or HiveKey("")
        yield from values(top, f"HKU\\{account}")
    problems.finish()


def _asked(paths: tuple[str, ...], prefix: str) -> Iterator[Want]:
    """What else a scan asks for, in the hive with a prefix."""
    for path in paths:
        if path.upper().startswith(f"{prefix}\\"):
            yield Want(path[len(prefix) + 1 :], default_keys.DEPTH)


def values(top: HiveKey, prefix: str) -> Iterator[RegistryValue]:
    """Rows of a hive's values.

    Args:
        top: the hive's root key.
        prefix: how the root key is called.
    """
    for value in top.values.values():
        yield row(prefix, top, value)
    for lower, key in top.keys.items():
        name = "CurrentControlSet" if lower == "currentcontrolset" else key.name
        yield from values(key, f"{prefix}\\{name}")


def row(path: str, key: HiveKey, value: Value) -> RegistryValue:
    """The row of one value."""
    number = value.number()
    text = _text(value, number)
    withheld = is_secret(value.name or path, text)
    return RegistryValue(
        key=path,
        name=MARKER if path.lower().endswith(_COMMUNITIES) else value.name,
        type=_TYPES.get(value.type, "other"),
        value=text,  # redacted as a whole for its name: see the spec
        number=None if withheld else number,
        size=None if withheld else value.size,
        truncated=not withheld and value.size > VALUE_LIMIT,
        withheld=withheld,
        key_modified=key.modified,
    )


def _text(value: Value, number: int | None) -> str:
    if number is not None:
        return str(number)
    data = value.data[:VALUE_LIMIT]
    if value.type in hives.TEXT_TYPES:
        return "\n".join(Value(value.name, value.type, data, value.size).texts())
    return data.hex()
