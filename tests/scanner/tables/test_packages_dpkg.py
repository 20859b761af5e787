"""dpkg: versions, records, times of installation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given

from fleetscan.appliance.ground.schema import IncompleteError
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.packages.collect import collect
from fleetscan.scanner.tables.packages.managers import dpkg
from fleetscan.scanner.tables.packages.purl import Distribution
from tests.strategies import guest_texts

RECORD = """\
Package: {name}
Status: install ok installed
Architecture: amd64
Version: 1.0-1

"""


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("1.0", (None, "1.0", None)),
        ("1.0-1", (None, "1.0", "1")),
        ("1:1.0-1", (1, "1.0", "1")),
        ("0:1.0", (0, "1.0", None)),
        ("2:1.0-rc1-3~bpo12+1", (2, "1.0-rc1", "3~bpo12+1")),
        ("1:2:3-4", (1, "2:3", "4")),
        ("a:1-2", (None, "a:1", "2")),
        ("99999999999:1", (None, "99999999999:1", None)),
        ("", (None, "", None)),
    ],
)
def test_version_is_split_by_debian_policy(
    version: str, parts: tuple[int | None, str, str | None]
) -> None:
    assert dpkg.split_version(version) == parts


@pytest.mark.parametrize(
    ("field", "name", "version"),
    [
        ("", "p", "1.0-1"),
        ("Source: glibc\n", "glibc", "1.0-1"),
        ("Source: glibc (2.36-9)\n", "glibc", "2.36-9"),
    ],
)
def test_source_package_defaults_to_the_package_itself(field: str, name: str, version: str) -> None:
    record = dpkg.parse(f"{field}{RECORD.format(name='p')}")
    package = dpkg.from_record(record, {}, Distribution("debian", "12"))
    assert package
    assert (package.source_name, package.source_version) == (name, version)


def test_installation_time_is_that_of_the_list_of_files(tmp_path: Path) -> None:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    names = ("plain", "multi", "unlisted")
    (tmp_path / "var/lib/dpkg/status").write_text("".join(RECORD.format(name=n) for n in names))
    for number, name in enumerate(("plain.list", "multi:amd64.list", "multi:i386.list"), start=1):
        (info / name).touch()
        os.utime(info / name, ns=(0, number * 1_000_999))
    with Root("r", str(tmp_path)) as root:
        times = {row.name: row.installed_at for row in collect(root)}
    assert times == {"plain": 1000, "multi": 2001, "unlisted": None}


def test_unreadable_status_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/status").mkdir(parents=True)
    with (
        Root("r", str(tmp_path)) as root,
        pytest.raises(IncompleteError, match="status: Is a dir"),
    ):
        list(collect(root))


@given(guest_texts(), guest_texts())
def test_any_text_gives_sound_records_or_none(one: str, other: str) -> None:
    text = f"Package: {one}\nStatus: {other}\nVersion: {one}\nSource: {other}\n\n{one}\n\n{other}"
    text += f"\n\nPackage: p\nStatus: install ok installed\nVersion: {one}\nInstalled-Size: {one}"
    for part in text.split("\n\n"):
        record = dpkg.parse(part)
        if dpkg.is_sound(record):
            dpkg.from_record(record, {}, Distribution("debian", "12"))
    dpkg.split_version(one)
