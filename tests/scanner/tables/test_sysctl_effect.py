"""What systemd-sysctl makes of generated files, against the rows and the rule about them.

The program is given directories of its own in place of /etc/sysctl.d and the like, and plain files
in place of /proc/sys: it writes into them what it would tell the kernel.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from fleetscan.rules import case_facts
from fleetscan.rules.load import load_packs
from tests.scanner.tables.run_case import run

PROGRAM = "/usr/lib/systemd/systemd-sysctl"
ROOTS = 120
FOLDERS = ("etc/sysctl.d", "usr/local/lib/sysctl.d", "usr/lib/sysctl.d")
NAMES = ("10-a.conf", "50-default.conf", "99-local.conf", "x.txt")
KEYS = (
    *("kernel.randomize_va_space", "fs.protected_hardlinks", "fs.protected_symlinks"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.rp_filter"),
)
PATTERNS = (
    *("fs.protected_*", "net.ipv4.conf.*.rp_filter", "net.*.tcp_syncookies", "kernel.*"),
    *("net/ipv4/conf/*/rp_filter", "net.ipv4.*", "fs.protected_[hx]ardlinks", "*.*"),
)
UNSET = "-"


@pytest.mark.parametrize("part", range(3))
def test_effective_values_are_those_that_systemd_sysctl_writes(tmp_path: Path, part: int) -> None:
    if not Path(PROGRAM).exists() or not shutil.which("bwrap"):
        pytest.fail("install systemd and bubblewrap")
    for number in range(ROOTS // 3):
        tree = tmp_path / str(number)
        _generate(tree, random.Random(part * ROOTS + number))  # noqa: S311 - repeatable, no secret
        files = {path: path.read_text() for path in tree.rglob("*.conf") if path.is_file()}
        assert _by_rule(tree) == _by_systemd(tree), files


def _generate(tree: Path, chance: random.Random) -> None:
    for folder in FOLDERS:
        (tree / folder).mkdir(parents=True)
        for name in chance.sample(NAMES, chance.randint(0, len(NAMES))):
            path = tree / folder / name
            if chance.random() < 0.15:
                path.symlink_to("/dev/null")
            else:
                lines = [_line(chance) for _ in range(chance.randint(0, 5))]
                path.write_text("".join(lines))


def _line(chance: random.Random) -> str:
    key = chance.choice(KEYS if chance.random() < 0.6 else PATTERNS)
    if chance.random() < 0.3 and "/" not in key:
        key = key.replace(".", "/")
    if chance.random() < 0.2:
        return f"-{key}\n"
    space = chance.choice(("", " ", "\t"))
    mark = chance.choice(("", "", "-", "# ", ";"))
    return f"{mark}{key}{space}={space}{chance.randint(0, 9)}\n"


def _by_systemd(tree: Path) -> dict[str, str]:
    kernel = tree / "proc"
    for key in KEYS:
        path = kernel / key.replace(".", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(UNSET)
    argv = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    argv += ["--tmpfs", "/etc", "--tmpfs", "/usr/local/lib", "--tmpfs", "/usr/lib/sysctl.d"]
    for folder in FOLDERS:
        argv += ["--ro-bind", str(tree / folder), f"/{folder}"]
    argv += ["--bind", str(kernel), "/proc/sys", PROGRAM]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    assert "bwrap:" not in done.stderr
    values = {key: (kernel / key.replace(".", "/")).read_text().strip() for key in KEYS}
    return {key: value for key, value in values.items() if value != UNSET}


def _by_rule(tree: Path) -> dict[str, str]:
    """What the rule says is wrong if every value is: all that are set."""
    rows = [json.loads(row) for row in run("kernel_settings", tree).rows]
    with case_facts.connect({"kernel_settings": rows}) as connection:
        found = connection.execute(
            f"SELECT name, value FROM ({_sql()}\n)",  # noqa: S608 - our own rule
            {"expected": [f"{key}=nothing" for key in KEYS]},
        ).fetchall()
    return dict(found)


@functools.cache
def _sql() -> str:
    [rule] = [r for pack in load_packs() for r in pack.rules if r.id == "kernel-protections-kept"]
    return rule.compile().violations.sql
