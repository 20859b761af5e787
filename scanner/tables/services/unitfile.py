"""Unit names and unit files, as systemd.unit(5) and systemd.syntax(7) define them.

Parsers of text only.

Shared with ``scheduled_tasks``, ``config`` and ``mountpoints``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

from fleetscan.scanner.tables.services.spec import Kind

_CHARACTERS = r"[A-Za-z0-9:_.\\-]"
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
_INSTANCE = re.compile("[@.]")
_NAME = re.compile(
    rf"(?P<prefix>{_CHARACTERS}+)(?:@(?P<instance>{_CHARACTERS}*))?\.(?P<kind>{'|'.join(_KINDS)})"
)
_NAME_LIMIT = 255
_EXEC_PREFIXES = "@-:+!|"  # change how a command is run, not which

# Section headers and the wanted settings.
_WANTED = re.compile(
    r"^[ \t]*(?:\[(?P<section>[^\]\n]*)\][ \t\r]*"
    r"|(?P<key>Description|Environment(?:File)?|ExecStart|User|DynamicUser|WantedBy|RequiredBy|UpheldBy|Alias|Also"
    r"|DefaultInstance|Options|Type|Wh(?:at|ere)|On(?:Calendar|(?:Active|Boot|Startup|UnitActive|UnitInactive)Sec)|Unit)"
    r"[ \t]*=(?P<value>[^\n]*))$",
    re.MULTILINE,
)

Settings = dict[tuple[str, str], list[str]]
"""Values of the settings that rows are made from, by section and key, in their order.

An empty assignment took back those before it.
"""


def is_unit_name(name: str) -> bool:
    """Whether systemd would take a file of this name for a unit."""
    return len(name) <= _NAME_LIMIT and _NAME.fullmatch(name) is not None


def kind_of(name: str) -> Kind:
    """The kind of a valid unit name."""
    return _KINDS[name.rpartition(".")[2]]


def is_template(name: str) -> bool:
    """Whether a valid unit name is a template's, such as ``getty@.service``."""
    match = _NAME.fullmatch(name)
    return match is not None and match["instance"] == ""


def template_of(name: str) -> str | None:
    """The template of a valid instance's name; None for other names.

    >>> template_of("getty@tty1.service")
    'getty@.service'
    """
    match = _NAME.fullmatch(name)
    return f"{match['prefix']}@.{match['kind']}" if match and match["instance"] else None


def dropin_folders(name: str) -> list[str]:
    """Folders that may hold drop-in files of a valid unit name, the most specific first.

    >>> dropin_folders("foo-bar@x.service")
    ['foo-bar@x.service.d', 'foo-bar@.service.d', 'foo-.service.d', 'service.d']
    """
    folders = [name]
    if template := template_of(name):
        folders.append(template)
    prefix, kind = _INSTANCE.split(name, maxsplit=1)[0], name.rpartition(".")[2]
    dashes = [index for index, letter in enumerate(prefix) if letter == "-"]
    folders += [f"{prefix[: index + 1]}.{kind}" for index in reversed(dashes)]
    unique = dict.fromkeys([*folders, kind])
    return [f"{folder}.d" for folder in unique]


def parse(text: str, settings: Settings) -> None:
    """Add a unit file's or drop-in's wanted assignments to those of the files before it."""
    if "\\\n" in text:
        text = "\n".join(_logical_lines(text))
    section = ""
    for match in _WANTED.finditer(text):
        if match["section"] is not None:
            section = match["section"]
            continue
        values = settings.setdefault((section, match["key"]), [])
        if value := match["value"].strip():
            values.append(value)
        else:
            values.clear()


def _logical_lines(text: str) -> Iterator[str]:
    # A backslash joins a line to the next one; comments between the two do not end it.
    pending = ""
    for line in text.split("\n"):
        stripped = line.strip()
        if stripped[:1] in ("#", ";"):
            continue
        if stripped.endswith("\\"):
            pending += stripped[:-1] + " "
            continue
        yield pending + stripped
        pending = ""
    yield pending


def last(settings: Settings, section: str, key: str) -> str | None:
    """The value of a setting that takes one; None when it is not set."""
    values = settings.get((section, key))
    return values[-1] if values else None


def words(settings: Settings, section: str, key: str) -> list[str]:
    """The values of a setting that takes a list of names."""
    return [word for value in settings.get((section, key), ()) for word in value.split()]


def command(settings: Settings) -> str | None:
    """The first command that a service starts with, without its prefixes."""
    commands = settings.get(("Service", "ExecStart"))
    return commands[0].lstrip(_EXEC_PREFIXES) or None if commands else None


def run_as(name: str, settings: Settings) -> str | None:
    """The account that a service runs as; None for root.

    A dynamic user that has no name of its own is called after the unit (systemd.exec(5)).
    """
    user = last(settings, "Service", "User")
    if user is None and last(settings, "Service", "DynamicUser") in ("yes", "true", "on", "1"):
        return _INSTANCE.split(name, maxsplit=1)[0]
    return None if user in ("root", "0") else user
