"""Mount options in force, compared with those of mount(8)'s own library."""

from __future__ import annotations

import ctypes
import ctypes.util
import random

import pytest

from fleetscan.appliance.ground.mounts import effective, normal_path

STRINGS = 2000
# Source: linux/fs.h and libmount.h (MNT_LINUX_MAP).
_BITS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_LINUX_MAP = 1
_WORDS = (
    *("noexec", "exec", "nosuid", "suid", "nodev", "dev", "ro", "rw", "defaults", "user", "users"),
    *("owner", "group", "nouser", "user=ann", "noauto", "nofail", "size=10%", "noexec=1", "NOEXEC"),
    *('context="a,noexec"', "x-systemd.device-timeout=0", "", "uid=0", "_netdev", "bind", "exec=0"),
    *("nouser", "noowner", "comment=exec", "mode=1777"),
)


def _of_mount(library: ctypes.CDLL, text: str) -> set[str]:
    library.mnt_get_builtin_optmap.restype = ctypes.c_void_p
    table = ctypes.c_void_p(library.mnt_get_builtin_optmap(_LINUX_MAP))
    flags = ctypes.c_ulong(0)
    assert library.mnt_optstr_get_flags(text.encode(), ctypes.byref(flags), table) == 0
    return {name for name, bit in _BITS.items() if flags.value & bit}


def test_options_in_force_are_those_of_mount_itself() -> None:
    name = ctypes.util.find_library("mount")
    assert name, "install libmount1: the test compares with it"
    library = ctypes.CDLL(name)
    pick = random.Random(7)  # noqa: S311 - the same strings every time
    for _ in range(STRINGS):
        text = ",".join(pick.choices(_WORDS, k=pick.randint(1, 8)))
        found = set(effective(text.split(",")))
        assert found == _of_mount(library, text), text


@pytest.mark.parametrize(
    ("options", "in_force"),
    [
        ("noexec,exec", ()),
        ("exec,noexec", ("noexec",)),
        ("user", ("nosuid", "nodev", "noexec")),
        ("user,exec", ("nosuid", "nodev")),
        ("exec,users", ("nosuid", "nodev", "noexec")),
        ("owner", ("nosuid", "nodev")),
        ("nouser", ()),
        ("noexec,defaults", ("noexec",)),
        ('context="a,noexec"', ()),
        ("nosymfollow", ("nosymfollow",)),
    ],
)
def test_the_last_option_counts(options: str, in_force: tuple[str, ...]) -> None:
    assert effective(options.split(",")) == in_force


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/tmp/", "/tmp"),
        ("//tmp//x/", "/tmp/x"),
        ("/var/./tmp", "/var/tmp"),
        ("/", "/"),
        ("//", "/"),
        ("/var/../tmp", "/tmp"),
        ("none", "none"),
        ("swap", "swap"),
    ],
)
def test_paths_have_one_spelling(path: str, normal: str) -> None:
    assert normal_path(path) == normal
