"""Parsers of sysctl.d(5), modules-load.d(5) and modprobe.d(5).

Sources: sysctl.d(5) and modules-load.d(5) of systemd 252, sysctl.conf(5) of procps-ng 4,
modprobe.d(5) of kmod 31, ufw-framework(8) of ufw 0.36.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from fleetscan.scanner.tables.kernel_settings.spec import Kind

_SWAPPED = str.maketrans("./", "/.")
_COMMANDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind) if kind != "sysctl"}
_NAMES_A_MODULE = frozenset(_COMMANDS.values()) - {"alias"}
_UFW_ON = re.compile(r"""^[ \t]*ENABLED=["']?yes\b""", re.MULTILINE | re.IGNORECASE)
_UFW_FILE = re.compile(r"""^[ \t]*IPT_SYSCTL=["']?(/[^"'\s#]+)""", re.MULTILINE)


@dataclass(frozen=True)
class SettingLine:
    """One setting: line of its file, from 1, kind, name and value."""

    number: int
    kind: Kind
    name: str
    value: str | None


def parameter_name(text: str) -> str:
    """A parameter's name with dots, whichever of its two forms was written.

    The first separator decides the form; in the form with slashes a dot stands for itself, and in
    the result a slash does.

    >>> parameter_name("net/ipv4/conf/eth0.1/forwarding"), parameter_name("vm.swappiness")
    ('net.ipv4.conf.eth0/1.forwarding', 'vm.swappiness')
    """
    slash, dot = text.find("/"), text.find(".")
    return text.translate(_SWAPPED) if slash >= 0 and (dot < 0 or slash < dot) else text


def sysctl(text: str) -> Iterator[SettingLine]:
    """Parameters of a sysctl.d file; a leading ``-`` (failure is no error) is left out.

    A name without value, which keeps a pattern from setting it, has a null value.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        name, equals, value = line.strip().partition("=")
        name = name.strip()
        excluded = name.startswith("-") and not equals
        name = name.removeprefix("-").strip()
        if name and name[0] not in "#;" and (equals or excluded):
            yield SettingLine(
                number, "sysctl", parameter_name(name), value.strip() if equals else None
            )


def ufw_is_on(conf: str) -> bool:
    """Whether ufw.conf switches ufw on."""
    return _UFW_ON.search(conf) is not None


def ufw_file(defaults: str) -> list[str]:
    """The file of parameters that /etc/default/ufw names; none if it names none.

    >>> ufw_file("IPT_SYSCTL=/etc/ufw/sysctl.conf")
    ['/etc/ufw/sysctl.conf']
    """
    return _UFW_FILE.findall(defaults)[-1:]


def modules_load(text: str) -> Iterator[SettingLine]:
    """Modules of a modules-load.d file or of Debian's /etc/modules, one a line."""
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split(None, 1)
        if words and words[0][0] not in "#;":
            arguments = words[1].strip() if len(words) > 1 else None
            yield SettingLine(number, "load", _module(words[0]), arguments)


def modprobe(text: str) -> Iterator[SettingLine]:
    """Commands of a modprobe.d file; those that kmod does not know are left out, as it does."""
    for number, line in _logical_lines(text):
        words = line.split(None, 2)
        if len(words) < 2 or words[0] not in _COMMANDS:
            continue
        kind = _COMMANDS[words[0]]
        name = _module(words[1]) if kind in _NAMES_A_MODULE else words[1]
        yield SettingLine(number, kind, name, words[2].strip() if len(words) > 2 else None)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    # A backslash at a line's end joins the next one; the first one's number is the line's.
    joined, first = "", 0
    for number, line in enumerate(text.split("\n"), start=1):
        first = first or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield first, joined + line
        joined, first = "", 0
    if joined:
        yield first, joined


def _module(name: str) -> str:
    # modprobe(8): dashes and underscores in module names are the same.
    return name.replace("-", "_")
