"""One row a package that a package manager has on record."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import (
    IS_NAME,
    IS_PATH,
    IS_PUBLISHED,
    U32,
    U64,
    Timestamp,
    column,
    table,
)

Status = Literal[
    "installed",
    "config-files",
    "half-installed",
    "unpacked",
    "half-configured",
    "triggers-awaited",
    "triggers-pending",
]

Manager = Literal[
    "dpkg",
    "rpm",
    "apk",
    "pacman",
    "portage",
    "xbps",
    "opkg",
    "slackware",
    "pkg",
    "pkgsrc",
    "nix",
    "snap",
    "flatpak",
    "python",
    "npm",
    "gem",
    "java",
    "go",
    "windows",
    "windows-update",
]

LANGUAGES: tuple[Manager, ...] = ("python", "npm", "gem", "java", "go")
"""Managers of programming languages' packages, which share names with systems' packages."""


@table()
class Package:
    """Installed packages, in the terms of their own ecosystem.

    Packages of programming languages are searched for where the system's own interpreters keep
    them; with ``--packages all`` everywhere, and in Java archives and Go programs as well.
    """

    manager: Manager = column(
        "What has recorded it: a package manager or a language's tools; windows: programs that "
        "can be uninstalled; windows-update: what component based servicing has installed."
    )
    name: str = column("Package name.", example="openssl", unredacted=IS_PUBLISHED)
    version: str = column(
        "Full version as the ecosystem's own tool prints it: epoch, upstream version, revision or "
        "release; empty if it is not recorded, as for snaps.",
        example="1:3.0.15-1~deb12u1",
        unredacted=IS_PUBLISHED,
    )
    epoch: U32 | None = column("Epoch; null if there is none.", default=None)
    upstream_version: str = column(
        "Version without epoch and release.", example="3.0.15", unredacted=IS_PUBLISHED
    )
    release: str | None = column(
        "Distribution's part of the version (dpkg and snap: revision; flatpak: branch).",
        example="1~deb12u1",
        unredacted=IS_PUBLISHED,
        default=None,
    )
    architecture: str | None = column(
        "Architecture, as the ecosystem names it.",
        example="amd64",
        unredacted=IS_PUBLISHED,
        default=None,
    )
    status: Status = column(
        "State of the package; only dpkg, opkg and xbps have states other than installed, and "
        "packages recorded as not-installed have no row.",
        default="installed",
    )
    held: bool = column(
        "Whether the package manager has it marked as held; false for those without such a mark.",
        default=False,
    )
    purl: str = column(
        "Package URL; its type is generic where none is registered for the ecosystem.",
        example="pkg:deb/debian/openssl@3.0.15-1~deb12u1?arch=amd64&distro=debian-12",
        unredacted="made of a package's name and version",
    )
    source_name: str | None = column(
        "Source package it was built from; a dpkg package that names none is its own.",
        unredacted=IS_PUBLISHED,
        default=None,
    )
    source_version: str | None = column(
        "Version of the source package.", unredacted=IS_PUBLISHED, default=None
    )
    vendor: str | None = column(
        "Vendor, or the maintainer or packager; for snap the channel.", default=None
    )
    license: str | None = column(
        "License, if the database records one.", unredacted=IS_PUBLISHED, default=None
    )
    section: str | None = column(
        "Section or group.", example="admin", unredacted=IS_PUBLISHED, default=None
    )
    summary: str | None = column("One-line description.", default=None)
    installed_size: U64 | None = column("Size on disk as recorded.", unit="bytes", default=None)
    installed_at: Timestamp | None = column(
        "When it was last installed or upgraded, as recorded; for dpkg and slackware the time of "
        "its file list.",
        default=None,
    )
    path: str | None = column(
        "Where a package that no database lists was found; null for packages of a system's "
        "database.",
        unredacted=IS_PATH,
        default=None,
    )
    account: str | None = column(
        "For programs that a Windows user installed for one account alone, the profile folder of "
        "that account.",
        unredacted=IS_NAME,
        default=None,
    )
