"""One row a package that a package manager has on record."""

from __future__ import annotations

from typing import Literal

from scanner.schema import U32, U64, Timestamp, column, table

Manager = Literal["dpkg", "rpm", "windows", "windows-update"]
Status = Literal[
    "installed",
    "config-files",
    "half-installed",
    "unpacked",
    "half-configured",
    "triggers-awaited",
    "triggers-pending",
]


@table()
class Package:
    """Packages on record, in the terms of their own ecosystem."""

    manager: Manager = column(
        "Package database it is recorded in; windows: programs that can be uninstalled; "
        "windows-update: what component based servicing has installed."
    )
    name: str = column("Package name.", example="openssl")
    version: str = column(
        "Whole version as the ecosystem's own tool prints it: epoch, upstream version, "
        "revision or release; empty when dpkg failed before it knew.",
        example="1:3.0.15-1~deb12u1",
    )
    epoch: U32 | None = column("Epoch; null when there is none.")
    upstream_version: str = column("Version without epoch and release.", example="3.0.15")
    release: str | None = column(
        "Distribution's part of the version (dpkg: revision).", example="1~deb12u1"
    )
    architecture: str | None = column("Architecture, as the ecosystem names it.", example="amd64")
    status: Status = column(
        "State of the package; only dpkg knows others than installed, and packages it has on "
        "record as not-installed have no row."
    )
    held: bool = column("Held back by the package manager's own mark; rpm has none.")
    source_name: str | None = column(
        "Source package it was built from; a dpkg package that names none is its own."
    )
    source_version: str | None = column("Version of the source package.")
    vendor: str | None = column("Vendor, or for dpkg the maintainer.")
    license: str | None = column("License, where the database records one.")
    section: str | None = column("Section or group.", example="admin")
    summary: str | None = column("One-line description.")
    installed_size: U64 | None = column("Size on disk as recorded.", unit="bytes")
    installed_at: Timestamp | None = column(
        "When it was last installed or upgraded: rpm's record, or the age of dpkg's list of files."
    )
    account: str | None = column(
        "Profile folder of the only account that has it, for programs installed by a Windows user."
    )
