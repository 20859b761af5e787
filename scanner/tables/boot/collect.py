"""Boot entries, from the menus that the boot loaders read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.boot import menus
from fleetscan.scanner.tables.boot.spec import BootEntry, Loader

_GRUB = ("/boot/grub/grub.cfg", "/boot/grub2/grub.cfg")
_LEGACY = ("/boot/grub/menu.lst", "/boot/grub/grub.conf")
_EXTLINUX = (
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/extlinux.conf",
)
_ENTRIES = ("/boot/loader/entries", "/boot/efi/loader/entries", "/efi/loader/entries")

Parse = Callable[[str], tuple[list[menus.MenuEntry], str | None]]


def collect(root: Root) -> Iterator[BootEntry]:
    """One row an entry, loader by loader.

    Raises:
        NotApplicable: there is no menu.
        IncompleteError: a menu cannot be read; raised after all rows.
    """
    reader = Reader(root)
    found = False
    for rows in (
        _grub(reader),
        _menus(reader, "grub-legacy", _LEGACY, menus.legacy),
        _loader_entries(reader),
        _menus(reader, "extlinux", _EXTLINUX, menus.extlinux),
    ):
        for row in rows:
            found = True
            yield row
    reader.finish()
    if not found:
        raise NotApplicable("no boot loader's menu")


def _grub(reader: Reader) -> Iterator[BootEntry]:
    for path in filter(reader.root.is_file, _GRUB):
        entries, default = menus.grub(reader.text(path) or "")
        if default and "saved_entry" in default:
            default = _saved(reader)
        yield from _rows("grub", path, entries, default or "0")


def _saved(reader: Reader) -> str | None:
    """The entry that GRUB's environment block names."""
    blocks = (reader.text(f"/boot/{folder}/grubenv") for folder in ("grub2", "grub"))
    return next(filter(None, (menus.saved_entry(block or "") for block in blocks)), None)


def _menus(
    reader: Reader, loader: Loader, paths: Iterable[str], parse: Parse
) -> Iterator[BootEntry]:
    path = next(filter(reader.root.is_file, paths), None)  # one is a link to the other
    if path is not None:
        entries, default = parse(reader.text(path) or "")
        yield from _rows(loader, path, entries, default)


def _loader_entries(reader: Reader) -> Iterator[BootEntry]:
    for folder in _ENTRIES:
        paths = reader.root.glob(folder, "*.conf")
        if not paths:
            continue
        default = _saved(reader)
        for position, path in enumerate(paths):
            identifier = path.rpartition("/")[2].removesuffix(".conf")
            entry = menus.loader_entry(reader.text(path) or "", identifier)
            yield from _rows("bls", path, [entry], default, position)


def _rows(
    loader: Loader, path: str, entries: list[menus.MenuEntry], default: str | None, first: int = 0
) -> Iterator[BootEntry]:
    for position, entry in enumerate(entries, start=first):
        yield BootEntry(
            loader=loader,
            file=path,
            position=position,
            title=entry.title,
            entry_id=entry.entry_id,
            kernel=entry.kernel,
            initrds=entry.initrds,
            command_line=entry.command_line,
            is_default=menus.is_default(entry, default),
        )
