"""State of Windows registry hives, from their base blocks.

Source of the layout: Maxim Suhanov, "Windows registry file format specification", base block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import hives
from fleetscan.appliance.guest.readers.hivelogs import Recovery
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.registry_hives.spec import RegistryHive

_CONFIG_HIVES = (
    *("SYSTEM", "SOFTWARE", "SAM", "SECURITY", "DEFAULT"),
    *("COMPONENTS", "DRIVERS", "BBI", "ELAM"),
)

_BASE_BLOCK = struct.Struct("<4sIIQII")  # mark, both sequence numbers, time, major and minor
_MARK = b"regf"


def collect(root: Root) -> Iterator[RegistryHive]:
    """One row a hive.

    Raises:
        NotApplicable: this is not Windows.
        IncompleteError: a file is not a hive, or cannot be read; raised after all rows.
    """
    if not root.windows:
        raise NotApplicable("no Windows registry")
    problems = Problems()
    paths = [hives.system_hive(root, name) for name in _CONFIG_HIVES]
    paths += [path for _, path in hives.user_hives(root)]
    for path in filter(root.exists, paths):
        try:
            with root.open(path) as stream:
                head = stream.read(_BASE_BLOCK.size)
                _, recovery = root.once(hives.Recoveries).find(path, stream.fileno())
            yield describe(path, root.stat(path).st_size, head, hives.logs(root, path), recovery)
        except OSError as error:
            problems.note(f"{path}: {reason(error)}")
        except ValueError as error:
            problems.note(f"{path}: {error}")
    problems.finish()


def describe(
    path: str, size: int, head: bytes, logs: tuple[str, ...], recovery: Recovery
) -> RegistryHive:
    """The row of a hive.

    Args:
        path: its file.
        size: the file's length in bytes.
        head: the file's beginning.
        logs: its transaction logs.
        recovery: what became of them.

    Raises:
        ValueError: it is not a hive.
    """
    if len(head) < _BASE_BLOCK.size or not head.startswith(_MARK):
        raise ValueError("is not a registry hive")
    _, primary, secondary, written, major, minor = _BASE_BLOCK.unpack_from(head)
    return RegistryHive(
        file=path,
        size=size,
        version=f"{major}.{minor}",
        written=hives.filetime(written),
        primary_sequence=primary,
        secondary_sequence=secondary,
        dirty=recovery.state != "not_needed",
        logs=logs,
        recovery=recovery.state,
        replayed=recovery.entries,
        recovery_note=recovery.note or None,
    )
