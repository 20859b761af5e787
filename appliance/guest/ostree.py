"""ostree deployments: systems that are directories of a repository's filesystem.

Layout: ostree's manual, "Deployments". ``/ostree/deploy/NAME/deploy/CHECKSUM.SERIAL`` is a tree,
``/ostree/deploy/NAME/var`` the /var of all trees of that name; boot loader entries name a tree by
the link ``/ostree/boot.N/NAME/BOOTCHECKSUM/INDEX``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fleetscan.appliance.guest.root import Root

_TOP = "ostree/deploy"
_ENTRIES = "boot/loader/entries"
_ENTRY_LIMIT = 1 << 16
_TREE = re.compile(r"[0-9a-f]{64}\.[0-9]+")
_BOOTED = re.compile(r"(?m)^options\s(?:.*\s)?ostree=/?(\S+)")
_LINKED = re.compile(rf"(?:.*/)?deploy/([^/]+)/deploy/({_TREE.pattern})/?")
_NAMES = 8  # most that are looked at; machines have one


@dataclass(frozen=True)
class Deployment:
    """A deployment, by paths from the top of its filesystem.

    Attributes:
        directory: its tree.
        var: what is mounted on its /var.
    """

    directory: str
    var: str


def deployments(root: Root) -> Iterator[Deployment]:
    """For each system name the deployment that would be started.

    Args:
        root: the filesystem, or the subvolume, that may hold deployments.
    """
    default = _default(root) if root.is_dir(_TOP) else None
    for name in root.listdir(_TOP)[:_NAMES]:
        folder = f"{_TOP}/{name}/deploy"
        trees = [tree for tree in root.listdir(folder) if _TREE.fullmatch(tree)]
        trees = [tree for tree in trees if root.is_dir(f"{folder}/{tree}/usr")]
        if trees:
            chosen = [tree for tree in trees if default == (name, tree)]
            tree = (chosen or [max(trees, key=lambda tree: _age(root, f"{folder}/{tree}"))])[0]
            yield Deployment(f"{folder}/{tree}", f"{_TOP}/{name}/var")


def _default(root: Root) -> tuple[str, str] | None:
    """Name and tree that the boot loader's first entry starts, where /boot is no other disk's."""
    for name in reversed(root.listdir(_ENTRIES)):
        with contextlib.suppress(OSError):
            text = root.read_text(f"{_ENTRIES}/{name}", _ENTRY_LIMIT)
            if booted := _BOOTED.search(text):
                linked = _LINKED.fullmatch(root.readlink(booted[1]))
                return (linked[1], linked[2]) if linked else None
    return None


def _age(root: Root, tree: str) -> int:
    # Files of a tree have no times of their own; its origin file is written with it.
    try:
        return root.stat(f"{tree}.origin").st_mtime_ns
    except OSError:
        return 0
