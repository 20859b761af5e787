"""Kernel settings, from the files that a system reads as it boots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers.reading import Reader, drop_ins
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.kernel_settings import parsers
from fleetscan.scanner.tables.kernel_settings.spec import KernelSetting

_LIBRARIES = ("/usr/local/lib", "/usr/lib", "/lib")
_SYSCTL_CONF = "/etc/sysctl.conf"
_SYSTEMD_SYSCTL = ("/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl")
_MODULES = "/etc/modules"
_UFW, _UFW_DEFAULTS = "/etc/ufw/ufw.conf", "/etc/default/ufw"


def collect(root: Root) -> Iterator[KernelSetting]:
    """Parameters, then modules to load, then the module loader's settings, each in reading order.

    Raises:
        NotApplicable: there is none of the files.
        IncompleteError: a file could not be read; raised after all rows.
    """
    reader = Reader(root)
    parameters = drop_ins(_folders("sysctl"), ".conf", root.listdir)
    unread = _unread_main_file(root, parameters)
    parameters += _ufw_file(reader)
    loads = [*drop_ins(_folders("modules-load"), ".conf", root.listdir), _MODULES]
    if _same_file(root, _MODULES, loads[:-1]):  # Debian links it into modules-load.d
        loads.pop()
    commands = drop_ins(_folders("modprobe"), ".conf", root.listdir)
    ordinary = [path for path in (*parameters, *unread, *loads, *commands) if root.is_file(path)]
    if not ordinary:
        raise NotApplicable("no sysctl, modules-load or modprobe files")
    kept = frozenset(ordinary)  # a link to /dev/null switches a file off
    yield from _parameters(reader, filter(kept.__contains__, parameters), unread)
    yield from _rows(reader, filter(kept.__contains__, loads), parsers.modules_load)
    yield from _rows(reader, filter(kept.__contains__, commands), parsers.modprobe)
    reader.finish()


def _folders(name: str) -> tuple[str, ...]:
    return f"/etc/{name}.d", *(f"{library}/{name}.d" for library in _LIBRARIES)


def _unread_main_file(root: Root, parameters: list[str]) -> list[str]:
    """Add /etc/sysctl.conf to the files of a system that reads it; return it for one that does not.

    systemd reads only sysctl.d, where Debian up to 12 and Red Hat have a link to the file.
    """
    if not root.is_file(_SYSCTL_CONF) or _same_file(root, _SYSCTL_CONF, parameters):
        return []
    if any(map(root.exists, _SYSTEMD_SYSCTL)):
        return [_SYSCTL_CONF]
    parameters.append(_SYSCTL_CONF)  # sysctl --system and the scripts of SysV read it last
    return []


def _ufw_file(reader: Reader) -> list[str]:
    """The file that ufw, where it is switched on, reads after all others.

    Whether its service starts is not asked: where it does not, its values are not in force, and
    one that weakens the system is still a finding.
    """
    if not parsers.ufw_is_on(reader.text(_UFW) or ""):
        return []
    return parsers.ufw_file(reader.text(_UFW_DEFAULTS) or "")


def _same_file(root: Root, path: str, others: Iterable[str]) -> bool:
    """Whether one of the paths is a link that leads to a file."""
    if not root.exists(path):
        return False
    wanted = root.stat(path)
    found = (root.stat(other) for other in others if root.is_link(other) and root.exists(other))
    return any((each.st_dev, each.st_ino) == (wanted.st_dev, wanted.st_ino) for each in found)


def _parameters(
    reader: Reader, paths: Iterable[str], unread: Iterable[str]
) -> Iterator[KernelSetting]:
    found = list(_lines(reader, paths, parsers.sysctl))
    last = {line.name: position for position, (_, line) in enumerate(found)}
    found += _lines(reader, unread, parsers.sysctl)
    for position, (path, line) in enumerate(found):
        yield _row(position, path, line, in_force=last.get(line.name) == position)


def _rows(
    reader: Reader, paths: Iterable[str], parse: Callable[[str], Iterator[parsers.SettingLine]]
) -> Iterator[KernelSetting]:
    for position, (path, line) in enumerate(_lines(reader, paths, parse)):
        yield _row(position, path, line, in_force=True)


def _lines(
    reader: Reader, paths: Iterable[str], parse: Callable[[str], Iterator[parsers.SettingLine]]
) -> Iterator[tuple[str, parsers.SettingLine]]:
    for path in paths:
        for line in parse(reader.text(path) or ""):
            yield path, line


def _row(position: int, path: str, line: parsers.SettingLine, *, in_force: bool) -> KernelSetting:
    return KernelSetting(
        kind=line.kind,
        name=line.name,
        value=line.value,
        file=path,
        line=line.number,
        position=position,
        in_force=in_force,
    )
