"""Packages on record, from dpkg's and rpm's databases and Windows' registry."""

from __future__ import annotations

from collections.abc import Iterator

from appliance.guest.root import Root
from scanner.schema import NotApplicable
from scanner.tables.packages import dpkg, rpmdb, windows
from scanner.tables.packages.spec import Package


def collect(root: Root) -> Iterator[Package]:
    """One row a package, of every database that the root has.

    Raises:
        NotApplicable: the root has neither a dpkg nor an rpm database.
        ValueError: a database is damaged or cannot be read; raised after the rows it still gave.
    """
    problems: list[str] = []
    if root.windows:
        yield from windows.collect(root, problems)
        if problems:
            raise ValueError("; ".join(problems))
        return
    has_dpkg, rpm = dpkg.is_present(root), rpmdb.find(root)
    if not has_dpkg and rpm is None:
        raise NotApplicable("no dpkg or rpm database")
    if has_dpkg:
        yield from dpkg.collect(root, problems)
    if rpm is not None:
        yield from rpmdb.collect(root, rpm, problems)
    if problems:
        raise ValueError("; ".join(problems))
