"""Options on the command line of an OpenSSH server, which come before its configuration file.

systemd's units start it as ``sshd -D $SSHD_OPTS``, the variable being set in a file; SysV and
OpenRC scripts take the same variables from the same files.

Source: sshd(8), systemd.exec(5) (EnvironmentFile), systemd.service(5) (command lines).
"""

from __future__ import annotations

import getopt
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleetscan.appliance.ground.reasons import reason
from fleetscan.appliance.guest.readers.os_release import parse_assignments
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.scanner.tables.config.sshd import SshdLine, arguments, keyword
from fleetscan.scanner.tables.services import unitfile
from fleetscan.scanner.tables.services.collect import define, read_units

_OPTIONS = "C:E:b:c:f:g:h:k:o:p:u:46DGQRTVdeiqrt"
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_UNIT = re.compile(r"(?:open)?sshd?(?:@.*)?\.service")
_SCRIPT_FILES = {
    "/etc/default/ssh": ("SSHD_OPTS",),
    "/etc/sysconfig/sshd": ("OPTIONS",),
    "/etc/sysconfig/ssh": ("SSHD_OPTS",),
    "/etc/conf.d/sshd": ("SSHD_OPTS", "command_args"),
}
"""Files of Debian's, Red Hat's, SUSE's and OpenRC's scripts, and what holds options there."""


@dataclass(frozen=True)
class Command:
    """How a server is started.

    Attributes:
        config: the configuration file that it names; None for the usual one.
        lines: settings among its options.
    """

    config: str | None = None
    lines: tuple[SshdLine, ...] = ()


def commands(reader: Reader) -> list[Command]:
    """Each different way in which the system starts the server, at least one."""
    found = dict.fromkeys([*_of_units(reader)] or [*_of_scripts(reader)])
    return list(found) or [Command()]


def _of_units(reader: Reader) -> Iterator[Command]:
    try:
        tree = reader.root.once(read_units)
    except OSError as error:
        reader.note(f"units of sshd: {reason(error)}", "/etc/systemd/system/sshd.service")
        return
    for name in filter(_UNIT.fullmatch, tree.names()):
        unit = define(reader.root, tree, name)
        if unit is None or unit.masked:
            continue
        settings: unitfile.Settings = {}
        for path in (unit.path, *tree.dropins(unit.name)):
            unitfile.parse(reader.text(path, unit.path) or "", settings)
        environment = _environment(reader, unit.path, settings)
        for line in settings.get(("Service", "ExecStart"), ()):
            words = _expanded(line.lstrip("@-:+!|"), environment)
            if words and posixpath.basename(words[0]) == "sshd":
                yield parse(words[1:], unit.path)


def _environment(reader: Reader, unit: str, settings: unitfile.Settings) -> dict[str, str]:
    variables: dict[str, str] = {}
    for value in settings.get(("Service", "Environment"), ()):
        for word in _split(value):
            name, _, stated = word.partition("=")
            variables[name] = stated
    for value in settings.get(("Service", "EnvironmentFile"), ()):
        path = value.removeprefix("-")
        if path.startswith("/"):
            variables.update(parse_assignments(reader.text(path, unit) or ""))
    return variables


def _expanded(line: str, variables: Mapping[str, str]) -> list[str]:
    """A command line's words: one that is a variable as a whole becomes several."""
    words: list[str] = []
    for word in _split(line):
        whole = _VARIABLE.fullmatch(word)
        if whole and whole[2]:
            words += _split(variables.get(whole[2], ""))
        else:
            words.append(_VARIABLE.sub(lambda one: variables.get(one[1] or "", one[0]), word))
    return words


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quote that nothing ends
        return text.split()


def _of_scripts(reader: Reader) -> Iterator[Command]:
    for path, names in _SCRIPT_FILES.items():
        variables = parse_assignments(reader.text(path, path) or "")
        words = [word for name in names for word in _split(variables.get(name, ""))]
        config = variables.get("SSHD_CONFIG")
        if words or config:
            yield parse([*(("-f", config) if config else ()), *words], path)


def parse(words: list[str], file: str) -> Command:
    """A command's options.

    Args:
        words: what follows the program.
        file: where the command stands.
    """
    try:
        options, _ = getopt.getopt(words, _OPTIONS)
    except getopt.GetoptError:  # with which the server does not start
        return Command()
    config = None
    lines = []
    for option, value in options:
        if option == "-f":
            config = value if value.startswith("/") else None
        elif option == "-o":
            name, rest = keyword(value)
            if name not in ("", "match", "include"):
                lines.append(SshdLine(file, 0, name, " ".join(arguments(rest))))
    return Command(config, tuple(lines))
