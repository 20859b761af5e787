"""Parsers of boot loaders' menus.

Sources: GNU GRUB manual 2.06 (menuentry, submenu, default, saved_entry) and 0.97 (menu.lst); the
UAPI Group's Boot Loader Specification (type 1 entries); SYSLINUX' wiki (Config).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r"""(?:\$\{[^}\s]*\}|'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\;{}])+|[{};]""")
_SAVED = re.compile(r"^saved_entry=(.+)$", re.MULTILINE)
_QUOTING = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)""")
_KERNEL_COMMANDS = frozenset(("linux", "linux16", "linuxefi", "kernel"))
_INITRD_COMMANDS = frozenset(("initrd", "initrd16", "initrdefi"))
_ID_OPTIONS = ("--id", "$menuentry_id_option", "${menuentry_id_option}")
_ENTRIES = 1000
_DEPTH = 16


@dataclass
class MenuEntry:
    """An entry of a menu; attributes as the table's columns.

    ``path`` is its number in each menu on the way to it, as GRUB writes it: ``1>2``.
    """

    title: str
    path: str
    entry_id: str | None = None
    kernel: str | None = None
    initrds: tuple[str, ...] = ()
    command_line: str | None = None


@dataclass
class _Menu:
    """A block of grub.cfg that is open: a menu, an entry, or one of the script language."""

    title: str = ""
    path: str = ""
    entry: MenuEntry | None = None
    entries: int = 0


def grub(text: str) -> tuple[list[MenuEntry], str | None]:
    """Entries of a grub.cfg, and the default that it sets.

    Braces are followed; the script language's conditions are not: of several defaults the last
    one counts that is not worked out at boot.
    """
    menus = [_Menu()]
    found: list[MenuEntry] = []
    default = None
    for words in _commands(text):
        if words[0] == "}":
            if len(menus) > 1:
                menus.pop()
            continue
        opens = words[-1] == "{"
        if words[0] in ("menuentry", "submenu") and opens and len(words) > 2:
            _open_menu(words, menus, found)
        elif opens:
            menus.append(_inner(menus[-1]))
        elif entry := menus[-1].entry:
            _command(entry, words)
        elif words[0] == "set" and len(words) > 1 and words[1].startswith("default="):
            value = _plain(words[1].partition("=")[2])
            if "$" not in value or default is None or "$" in default:
                default = value
        if len(found) >= _ENTRIES or len(menus) > _DEPTH:
            break
    return found, default


def _open_menu(words: list[str], menus: list[_Menu], found: list[MenuEntry]) -> None:
    parent = menus[-1]
    title = f"{parent.title}>{_plain(words[1])}" if parent.title else _plain(words[1])
    path = f"{parent.path}>{parent.entries}" if parent.path else str(parent.entries)
    parent.entries += 1
    if words[0] == "submenu":
        menus.append(_Menu(title, path))
        return
    names = [_plain(word) for word in words[2:-1]]
    pairs = itertools.pairwise(names)
    identifier = next((after for name, after in pairs if name in _ID_OPTIONS), None)
    entry = MenuEntry(title, path, identifier)
    found.append(entry)
    menus.append(_Menu(title, path, entry))


def _inner(menu: _Menu) -> _Menu:
    return _Menu(menu.title, menu.path, menu.entry)


def _commands(text: str) -> Iterator[list[str]]:
    """Words of each command of a grub.cfg; a brace that closes is a command of its own."""
    for line in text.replace("\\\n", " ").split("\n"):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        words: list[str] = []
        for match in _WORD.finditer(stripped):
            word = match[0]
            if word in ("}", ";"):
                if words:
                    yield words
                words = []
                if word == "}":
                    yield ["}"]
            elif word == "{":
                yield [*words, "{"]
                words = []
            else:
                words.append(word)
        if words:
            yield words


def _command(entry: MenuEntry, words: list[str]) -> None:
    values = [_plain(word) for word in words[1:]]
    if words[0] in _KERNEL_COMMANDS and values and entry.kernel is None:
        entry.kernel = values[0]
        entry.command_line = " ".join(values[1:])
    elif words[0] in _INITRD_COMMANDS:
        entry.initrds += tuple(values)


def _plain(word: str) -> str:
    return _QUOTING.sub(lambda match: match[1] or match[2] or match[3] or "", word)


def saved_entry(text: str) -> str | None:
    """The entry that a grubenv block names as saved."""
    match = _SAVED.search(text)
    return match[1].strip() if match else None


def legacy(text: str) -> tuple[list[MenuEntry], str | None]:
    """Entries and default of GRUB Legacy's menu.lst."""
    found: list[MenuEntry] = []
    default = None
    for line in text.split("\n"):
        words = line.replace("=", " ", 1).split() if line.startswith("default") else line.split()
        if not words or words[0][0] == "#" or len(found) >= _ENTRIES:
            continue
        if words[0] == "title":
            found.append(MenuEntry(" ".join(words[1:]), str(len(found))))
        elif words[0] == "default" and len(words) > 1:
            default = words[1]
        elif found:
            _command(found[-1], words)
    return found, default


def loader_entry(text: str, identifier: str) -> MenuEntry:
    """A type 1 entry of the Boot Loader Specification, whose file name is its identifier."""
    entry = MenuEntry("", "", identifier)
    options = []
    for line in text.split("\n"):
        key, _, value = line.strip().partition(" ")
        value = value.strip()
        if key == "title":
            entry.title = value
        elif key in ("linux", "efi"):
            entry.kernel = value
        elif key == "initrd":
            entry.initrds += tuple(value.split())
        elif key == "options":
            options.append(value)
    entry.title = entry.title or identifier
    entry.command_line = " ".join(options)
    return entry


def extlinux(text: str) -> tuple[list[MenuEntry], str | None]:
    """Entries and default label of an extlinux.conf or syslinux.cfg."""
    found: list[MenuEntry] = []
    default = None
    for line in text.split("\n"):
        key, _, value = line.strip().partition(" ")
        key, value = key.lower(), value.strip()
        if key == "default" and default is None:
            default = value
        elif key == "label" and len(found) < _ENTRIES:
            found.append(MenuEntry(value, str(len(found)), value))
        elif found and key == "menu" and value.lower().startswith("label "):
            found[-1].title = value[6:].strip().replace("^", "")
        elif found and key in ("kernel", "linux"):
            found[-1].kernel = value
        elif found and key in ("initrd", "append"):
            _extlinux_value(found[-1], key, value)
    return found, default


def _extlinux_value(entry: MenuEntry, key: str, value: str) -> None:
    if key == "initrd":
        entry.initrds += tuple(value.split(","))
        return
    words = value.split()
    for word in words:
        if word.startswith("initrd="):
            entry.initrds += tuple(word.removeprefix("initrd=").split(","))
    entry.command_line = " ".join(word for word in words if not word.startswith("initrd="))


def is_default(entry: MenuEntry, default: str | None) -> bool:
    """Whether a loader's default names an entry: by number, path, identifier or title."""
    if not default:
        return False
    last = default.rpartition(">")[2]
    by_name = entry.entry_id is not None and entry.entry_id in (default, last)
    return by_name or default in (entry.path, entry.title)
