"""Rows of the table, for readers whose databases record less than it has columns."""

from __future__ import annotations

from fleetscan.scanner.tables.packages.spec import Manager, Package, Status

LATEST = 1 << 37
"""Seconds since 1970 below which a recorded time counts; in the year 6325."""


def package(
    manager: Manager,
    name: str,
    version: str,
    purl: str,
    *,
    status: Status = "installed",
    epoch: int | None = None,
    upstream_version: str | None = None,
    release: str | None = None,
    architecture: str | None = None,
    held: bool = False,
    source_name: str | None = None,
    source_version: str | None = None,
    vendor: str | None = None,
    license_text: str | None = None,
    section: str | None = None,
    summary: str | None = None,
    installed_size: int | None = None,
    installed_at: int | None = None,
    path: str | None = None,
    account: str | None = None,
) -> Package:
    """A package, installed unless told; empty text counts as nothing recorded."""
    return Package(
        manager=manager,
        name=name,
        version=version,
        epoch=epoch,
        upstream_version=version if upstream_version is None else upstream_version,
        release=release or None,
        architecture=architecture or None,
        status=status,
        held=held,
        purl=purl,
        source_name=source_name or None,
        source_version=source_version or None,
        vendor=vendor or None,
        license=license_text or None,
        section=section or None,
        summary=summary or None,
        installed_size=installed_size,
        installed_at=installed_at,
        path=path,
        account=account,
    )


def number(text: str | None, largest: int = (1 << 63) - 1) -> int | None:
    """A non-negative decimal number; None for anything else or beyond ``largest``."""
    if not text or not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    value = int(text)
    return value if value <= largest else None
