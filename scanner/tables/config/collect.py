"""Settings of the programs whose configuration is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from itertools import chain, count

from fleetscan.appliance.ground.reasons import in_words, reason
from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.config import apt, audit, augeas, lenses, plain, sshd_command
from fleetscan.scanner.tables.config.spec import Setting
from fleetscan.scanner.tables.config.sshd import SshdLine, SshdReader
from fleetscan.scanner.tables.config.sshd_effect import SshLogin, in_force

# The second is where openSUSE ships the defaults, which the first replaces as a whole.
_SSHD = ("/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config")
_SOURCES_LIST, _SOURCES_PARTS = "/etc/apt/sources.list", "/etc/apt/sources.list.d"

# Characters besides comments that Augeas takes of a file and of all: its time grows with the square
# of the settings, and is a second for those of 32 KiB that hold nothing but the shortest ones.
_LENS_LIMIT = 32 << 10
_LENSES_LIMIT = 512 << 10

Effect = tuple[bool | None, bool | None]
"""Whether a setting decides for some login, and for one of root's."""


def collect(root: Root) -> Iterator[Setting]:
    """One row a setting: the OpenSSH server's in its order, apt's, audit's, then those of lenses.

    Raises:
        NotApplicable: there is none of the files.
        IncompleteError: files include each other without end; a file cannot be read, or its lens
            does not fit it. Raised after all rows.
    """
    reader = Reader(root)
    applicable = any(map(root.exists, _SSHD))
    for row in chain(_sshd(reader), _apt(reader), _audit(reader), _augeas(reader)):
        applicable = True
        yield row
    reader.finish()
    if not applicable:
        raise NotApplicable("none of the files that this table reads exists")


def warm_up() -> None:
    """Compile the lenses, which costs more than all that a scan does with them."""
    for lens in lenses.LENSES:
        with contextlib.suppress(OSError, augeas.LensError):  # a scan that needs it will say so
            list(augeas.handle().parse(lens.name, lens.sample))


def _sshd(reader: Reader) -> Iterator[Setting]:
    """The server's settings, with those of its command line first, and which of them decide."""
    usual = next(filter(reader.root.exists, _SSHD), None)
    files: dict[str, list[SshdLine]] = {}
    effects: dict[SshdLine, Effect] = {}
    for command in sshd_command.commands(reader):
        if (path := command.config or usual) is None:
            continue
        if path not in files:
            files[path] = list(_sshd_lines(reader, path))
        lines = [*command.lines, *files[path]]
        login = _root_login(reader, lines)
        found = zip(lines, in_force(lines, SshLogin()), in_force(lines, login), strict=True)
        for line, anybody, of_root in found:
            before = effects.get(line, (None, None))
            effects[line] = (_either(before[0], anybody), _either(before[1], of_root))
    for position, (line, effect) in enumerate(effects.items()):
        yield _sshd_setting(line, position, effect)


def _either(one: bool | None, other: bool | None) -> bool | None:
    return other if one is None else one or other


def _sshd_lines(reader: Reader, path: str) -> Iterator[SshdLine]:
    try:
        yield from SshdReader(reader.root).settings(path)
    except (OSError, ValueError) as error:
        # Whatever file it was: the settings from there on are those of the first one as well.
        reader.note(in_words(error), path)


def _root_login(reader: Reader, lines: Iterable[SshdLine]) -> SshLogin:
    """Root, and its groups as /etc/group has them where a condition asks for groups."""
    if not any("group" in line.path for line in lines if line.conditions):
        return SshLogin("root")
    records = colonfile.records(reader.text("/etc/group", *_SSHD) or "")
    lists = [fields for _, fields in records if len(fields) > 3]
    groups = [f[0] for f in lists if f[2] == "0" or "root" in f[3].split(",")]
    return SshLogin("root", tuple(groups) or None)


def _sshd_setting(line: SshdLine, position: int, effect: Effect) -> Setting:
    return Setting(
        file=line.file,
        path=line.path,
        value=line.value,
        line=line.line or None,
        position=position,
        lens=None,
        in_force=effect[0],
        in_force_for_root=effect[1],
    )


def _apt(reader: Reader) -> Iterator[Setting]:
    position = count()
    paths = [_SOURCES_LIST, *reader.root.glob(_SOURCES_PARTS)]
    for path in paths:
        parse = apt.deb822 if path.endswith(".sources") else apt.one_line
        text = reader.text(path, path) if path.endswith((".list", ".sources")) else None
        malformed: list[int] = []
        for line, name, value in parse(text or "", malformed):
            yield _setting(path, name, value, next(position), line=line)
        if malformed:
            reader.note(colonfile.malformed(path, malformed), path)


def _audit(reader: Reader) -> Iterator[Setting]:
    position = count()
    for path in (*reader.root.glob(audit.FOLDER, "*.rules"), audit.RULES):
        malformed: list[int] = []
        for line, option, arguments in audit.rules(reader.text(path, path) or "", malformed):
            yield _setting(path, option, arguments, next(position), line=line)
        if malformed:
            reader.note(colonfile.malformed(path, malformed), path)


def _augeas(reader: Reader) -> Iterator[Setting]:
    left = _LENSES_LIMIT
    for lens in lenses.LENSES:
        position = count()
        for path in lenses.files(lens, reader.root.glob):
            text = lenses.without_comments(reader.text(path, path) or "")
            if len(text) > min(_LENS_LIMIT, left):
                reader.note(f"{path}: too long for Augeas", path)
                continue
            left -= len(text)
            try:
                nodes = _nodes(lens.name, text)
            except (OSError, augeas.LensError) as error:
                reader.note(f"{path}: {reason(error)}", path)
                continue
            for name, value in lenses.settings(nodes):
                yield _setting(path, name, value, next(position), lens=lens.name)


def _nodes(lens: str, text: str) -> plain.Nodes:
    nodes = plain.parse(lens, text)
    return list(augeas.handle().parse(lens, text)) if nodes is None else nodes


def _setting(
    file: str,
    path: str,
    value: str,
    position: int,
    line: int | None = None,
    lens: str | None = None,
) -> Setting:
    return Setting(file=file, path=path, value=value, line=line, position=position, lens=lens)
