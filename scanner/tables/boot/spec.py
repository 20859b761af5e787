"""One row an entry of a boot loader's menu."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_PATH, U32, column, table

Loader = Literal["grub", "grub-legacy", "bls", "extlinux"]


@table()
class BootEntry:
    """Boot loader menu entries: kernels and their command lines.

    Menus are read as they are on disk. What a loader's script computes at boot is included only
    where it follows from the text. Menu passwords are left out.
    """

    loader: Loader = column(
        "grub: GRUB 2's grub.cfg; grub-legacy: menu.lst; bls: an entry of the Boot Loader "
        "Specification, which systemd-boot and GRUB 2 read; extlinux: also SYSLINUX's."
    )
    file: str = column(
        "File that contains the entry.", example="/boot/grub/grub.cfg", unredacted=IS_PATH
    )
    position: U32 = column("Position in its menu, from 0; entries of submenus follow in order.")
    title: str = column(
        "Title, preceded by the titles of its submenus.", example="Debian GNU/Linux"
    )
    entry_id: str | None = column("The entry's own identifier, by which a default may name it.")
    kernel: str | None = column(
        "Kernel, as the entry names it; null for entries that load none.",
        example="/vmlinuz-6.1.0-18-amd64",
        unredacted=IS_PATH,
    )
    initrds: tuple[str, ...] = column("Initial RAM disks, likewise.", unredacted=IS_PATH)
    command_line: str | None = column(
        "The kernel's command line; variables of the loader are left as written.",
        example="root=/dev/mapper/vg-root ro quiet",
    )
    is_default: bool = column(
        "Whether it starts if nobody chooses; false for all entries where the file does not show "
        "that."
    )
