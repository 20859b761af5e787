"""Boot loaders' menus: hostile text, and what is a default."""

from __future__ import annotations

import pytest
from hypothesis import given

from fleetscan.scanner.tables.boot import menus
from tests.strategies import guest_texts


@given(guest_texts(), guest_texts())
def test_any_text_gives_entries_with_numbers(one: str, other: str) -> None:
    text = f"submenu {one} {{\nmenuentry '{other}' {{\nlinux {one} {other}\n}}\n{other}\n{one}"
    assert all(entry.path for entry in menus.grub(text)[0])
    menus.legacy(f"title {one}\nkernel {other}\n{text}")
    menus.extlinux(f"label {one}\nappend {other} initrd={one}\n{text}")
    menus.loader_entry(text, one)
    menus.saved_entry(text)


def test_menus_without_end_are_bounded() -> None:
    assert len(menus.grub("menuentry 'a' {\n}\n" * 5000)[0]) == 1000
    assert len(menus.grub("submenu 'a' {\n" * 5000)[0]) == 0


@pytest.mark.parametrize("default", ["1>0", "Other>Old", "other>old", "old"])
def test_default_is_named_in_any_of_grub_s_ways(default: str) -> None:
    text = (
        "menuentry 'New' {\n}\nsubmenu 'Other' --id other {\nmenuentry 'Old' --id 'old' {\n}\n}\n"
    )
    entries, _ = menus.grub(text)
    assert [entry.title for entry in entries if menus.is_default(entry, default)] == ["Other>Old"]
