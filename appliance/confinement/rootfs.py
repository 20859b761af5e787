"""The root that a confined program sees: what it needs, each read-only, and nothing else.

A program needs itself, its libraries and, if it is QEMU, its modules, firmware and option ROMs.
Where they are differs between distributions, so the loader and QEMU are asked, by ``ldd`` and
``-L help``. Libraries are given by the directory that holds them: a mount for each of fifty files
takes 10 ms a start, and modules that are loaded later need libraries that ldd does not know of.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fleetscan.appliance.ground.errors import ApplianceError, CommandError
from fleetscan.appliance.host import command

QEMU, QEMU_IMG = "qemu-system-x86_64", "qemu-img"
_SECONDS = 20
_LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # to /usr, where it is merged
_LOADER_CACHE = "/etc/ld.so.cache"
_EVERYTHING = ("/usr", "/lib", "/lib64", "/bin", _LOADER_CACHE)


@dataclass(frozen=True)
class SandboxRoot:
    """What a program finds in its root.

    Attributes:
        program: its path there.
        mounts: files and directories of the host, under the same path.
        links: symbolic links and where they lead to.
    """

    program: str
    mounts: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    def arguments(self) -> list[str]:
        """bubblewrap's, that make it."""
        above = {str(up) for path in self.mounts for up in Path(path).parents} - {"/"}
        # bubblewrap would make them only for its own user.
        folders = (("--dir", path) for path in sorted(above))
        mounts = (("--ro-bind", path, path) for path in self.mounts)
        links = (("--symlink", target, path) for path, target in self.links)
        return [word for words in (*folders, *mounts, *links) for word in words]


def needed(program: str) -> SandboxRoot:
    """A root with what a program needs and nothing else.

    Raises:
        ApplianceError: it is not installed, or the loader does not say what it needs.
    """
    if program not in known:
        known[program] = _asked(program)
    return known[program]


known: dict[str, SandboxRoot] = {}
"""What programs need, found by this process or remembered: asking takes a tenth of a second."""


def _asked(program: str) -> SandboxRoot:
    path = _found(program)
    libraries = {str(Path(library).parent.resolve()) for library in _libraries(path)}
    data = _data(path) if Path(path).name == QEMU else []
    return _root(path, [path, *libraries, *data, _LOADER_CACHE])


@functools.cache
def whole_usr(program: str) -> SandboxRoot:
    """A root with all that packages installed, for when what is needed is not known.

    Raises:
        ApplianceError: the program is not installed.
    """
    path = _found(program)
    return _root(path, [path, *_EVERYTHING])


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise ApplianceError(f"{program} is not installed", hint="run fleetscan doctor")
    return str(Path(path).resolve())


def _root(program: str, wanted: Iterable[str]) -> SandboxRoot:
    real = {os.path.realpath(path) for path in wanted if Path(path).exists()}
    mounts = sorted(path for path in real if not any(str(up) in real for up in Path(path).parents))
    links = ((path, str(Path(path).readlink())) for path in _LINKED if Path(path).is_symlink())
    return SandboxRoot(program, tuple(mounts), tuple(links))


def _libraries(path: str) -> list[str]:
    """Files that the loader maps for a program; its lines are ``name => path (address)``."""
    words = (line.split() for line in _output(["ldd", path]).splitlines())
    return [word for line in words for word in line if word.startswith("/")]


def _data(path: str) -> list[str]:
    """Where QEMU looks for firmware, and for modules outside of its libraries' directories."""
    prefix = Path(path).parent.parent
    folders = (prefix / "lib" / "qemu", prefix / "lib64" / "qemu")
    modules = [str(folder) for folder in folders if any(folder.glob("*.so"))]
    return [*_output([path, "-L", "help"]).splitlines(), *modules]


def _output(argv: list[str]) -> str:
    doing = f"finding out what {argv[-1]} needs"
    try:
        return command.run(doing, argv, seconds=_SECONDS)
    except CommandError as error:
        raise ApplianceError(f"{doing} failed: {error.in_short}", hint=error.hint) from error
