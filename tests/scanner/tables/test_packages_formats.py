"""Readers of package databases: versions, package URLs, hostile input."""

from __future__ import annotations

import pytest
from hypothesis import given

from scanner.tables.packages import apk, pacman
from scanner.tables.packages.purl import Distribution, purl
from scanner.tables.packages.row import number
from tests.strategies import guest_texts

HERE = Distribution("arch")


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (
            purl("deb", "curl", "7.50.3-1", "debian", arch="i386", distro="jessie"),
            "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie",
        ),
        (purl("npm", "animation", "12.3.1", "@angular"), "pkg:npm/%40angular/animation@12.3.1"),
        (
            purl("golang", "context", "v1", "github.com/gorilla"),
            "pkg:golang/github.com/gorilla/context@v1",
        ),
        (purl("generic", "a b/c"), "pkg:generic/a%20b%2Fc"),
        (purl("rpm", "x", "1", "", epoch=None, arch=""), "pkg:rpm/x@1"),
        (purl("generic", "caf\udce9"), "pkg:generic/caf%E9"),
    ],
)
def test_package_urls_are_written_as_their_specification_says(found: str, written: str) -> None:
    assert found == written


@pytest.mark.parametrize(
    ("version", "parts"),
    [
        ("1.0-1", (None, "1.0", "1")),
        ("1:1.3.1-2", (1, "1.3.1", "2")),
        ("1.0", (None, "1.0", None)),
        ("r12.abc-1.1", (None, "r12.abc", "1.1")),
        ("9999999999:1-1", (None, "9999999999:1", "1")),
    ],
)
def test_pacman_versions_are_split(version: str, parts: tuple[int | None, str, str | None]) -> None:
    assert pacman.split_version(version) == parts


@pytest.mark.parametrize(
    ("text", "value"), [("12", 12), ("", None), ("-1", None), ("9" * 30, None), ("²", None)]
)
def test_numbers_are_plain_and_fit_their_columns(text: str, value: int | None) -> None:
    assert number(text) == value


@given(guest_texts(), guest_texts())
def test_any_text_gives_rows_or_none(one: str, other: str) -> None:
    for fields in apk.parse_records(f"P:{one}\nV:{other}\nI:{one}\n\n{other}"):
        if fields.get("P") and fields.get("V"):
            apk.from_fields(fields, HERE)
    desc = pacman.parse_desc(f"%NAME%\n{one}\n\n%VERSION%\n{other}\n\n%SIZE%\n{other}\n{one}")
    if desc.get("NAME") and desc.get("VERSION"):
        pacman.from_fields(desc, HERE)
