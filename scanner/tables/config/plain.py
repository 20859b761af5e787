"""The plain form of the commonest files, read without Augeas and with what it would give.

Most files hold nothing but plain lines, and Augeas, whose code runs nowhere else in a scan, takes
ten times as long for them. A file with anything beyond (continued lines, comments behind settings,
quotes, letters outside ASCII) is Augeas' own.

Sources: pam.d(5), sudoers(5), login.defs(5), hosts(5), resolv.conf(5), nsswitch.conf(5), fstab(5),
limits.conf(5), systemd-system.conf(5); the nodes are those of the lenses of Augeas 1.14.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_OUTSIDE = re.compile(r"[^\t\n -~]")
_PAM = re.compile(
    r"[ \t]*(-?)((?i:auth|session|account|password))[ \t]+"
    r"(\[[^]#\\]*\]|[a-zA-Z]+)[ \t]+([^# \t\\]+)"
    r"((?:[ \t]+(?:\[[^]#\\]+\]|[^[# \t\\][^# \t\\]*))*)(?:[ \t]*|[ \t]+#.*)"
)
_PAM_INCLUDE = re.compile(r"[ \t]*@include[ \t]+([^# \t\\]+)[ \t]*")
_PAM_ARGUMENT = re.compile(r"\[[^]]*\]|[^ \t]+")
_LOGIN_DEFS = re.compile(r"([A-Za-z0-9_.-]+)[ \t]+([^ \t]+(?:[ \t]+[^ \t]+)*)[ \t]*")
_HOSTS = re.compile(r"[ \t]*[^# \t]+(?:[ \t]+[^# \t]+)+[ \t]*")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_RESOLV = re.compile(
    rf"(nameserver)[ \t]+({_BYTE}(?:\.{_BYTE}){{3}})[ \t]*"
    r"|(domain)[ \t]+([A-Za-z0-9_.-]+)[ \t]*"
    r"|(search)((?:[ \t]+[A-Za-z0-9_.-]+)+)[ \t]*"
    r"|(options)((?:[ \t]+(?:(?:ndots|timeout|attempts):[0-9]+|rotate|edns0|trust-ad))+)[ \t]*"
)
_NSSWITCH = re.compile(r"([A-Za-z0-9_.-]+):[ \t]*([A-Za-z0-9_.-]+(?:[ \t]+[A-Za-z0-9_.-]+)*)[ \t]*")
_FSTAB = re.compile(
    r"[ \t]*([^,# \t][^# \t]*)[ \t]+([^# \t]+)[ \t]+([^,#= \t]+(?:,[^,#= \t]+)*)"
    r"(?:[ \t]+([^,#= \t]+(?:=[^,# \t]+)?(?:,[^,#= \t]+(?:=[^,# \t]+)?)*)"
    r"(?:[ \t]+([0-9]+)(?:[ \t]+([0-9]+))?)?)?[ \t]*"
)
_LIMITS = re.compile(
    r"([%@]?[A-Za-z0-9_.:-]+|\*)[ \t]+(soft|hard|-)[ \t]+"
    r"(core|data|fsize|memlock|nofile|rss|stack|cpu|nproc|as|maxlogins|maxsyslogins|priority|locks"
    r"|sigpending|msgqueue|nice|rtprio|chroot)[ \t]+([A-Za-z0-9_./-]+)[ \t]*"
)
_DEFAULTS = re.compile(
    r"[ \t]*Defaults[ \t]+(?:(!?)(env_reset|mail_badpass|use_pty|requiretty|visiblepw"
    r"|always_set_home|match_group_by_gid|always_query_group_plugin)"
    r'|(secure_path)[ \t]*=[ \t]*([^",=#() \t\\]+|"[^",=#()\\]+")'
    r"|(env_keep|env_delete|env_check)[ \t]*(\+?)=[ \t]*"
    r'"([A-Za-z0-9_*]+(?:[ \t]+[A-Za-z0-9_*]+)*)")[ \t]*'
)
_SUDO_SPEC = re.compile(
    r"(root|[%+a-z][-A-Za-z0-9._+]*)[ \t]+([A-Za-z0-9_.-]+)[ \t]*=[ \t]*"
    r"(?:\(([A-Za-z0-9_.-]+)(?::([A-Za-z0-9_.-]+))?\)[ \t]*)?"
    r"(?:(NOPASSWD|PASSWD)[ \t]*:[ \t]*)?(ALL|/[A-Za-z0-9_./-]*[A-Za-z0-9_/-])[ \t]*"
)
_SUDO_INCLUDE = re.compile(r"(@includedir)[ \t]+(/[A-Za-z0-9_./-]+)[ \t]*")
_SHELLVARS = re.compile(r'([A-Z][A-Z0-9_]*)=([A-Za-z0-9_./:,+@%=-]*|"[^"\\$`#]*")[ \t]*')
_SIMPLEVARS = re.compile(r"[ \t]*([A-Za-z0-9_.-]+)(?:[ \t]*=[ \t]*([A-Za-z0-9_./:@%+-]+))?[ \t]*")
_SECTION = re.compile(r"\[([A-Za-z]+)\]")
_SYSTEMD = re.compile(r"(?!Description|Exec|Environment)([A-Za-z]{2,})=([A-Za-z0-9_./:%-]+)")


@dataclass
class _Node:
    """A node of Augeas' tree."""

    label: str
    value: str | None = None
    below: list[_Node] = field(default_factory=list)


Nodes = list[tuple[str, str | None]]
"""Paths and values as :meth:`augeas.Augeas.parse` gives them."""

_Reader = Callable[[list[str]], "list[_Node] | None"]


def parse(lens: str, text: str) -> Nodes | None:
    """What a lens gives for a file's text; None when Augeas has to say.

    Args:
        lens: the lens, such as ``Pam.lns``.
        text: the file's content; comments need not be in it.
    """
    if _OUTSIDE.search(text):
        return None
    lines = [line for line in text.split("\n") if line.strip(" \t")]
    if not lines:
        return []
    read = _READERS.get(lens)
    nodes = read([line for line in lines if not _is_comment(line)]) if read else None
    return None if nodes is None else list(_paths(nodes, ""))


def _is_comment(line: str) -> bool:
    stripped = line.lstrip(" \t")
    return stripped[0] == "#" and not stripped.startswith("#include")  # which sudo knows


def _paths(nodes: list[_Node], above: str) -> Iterator[tuple[str, str | None]]:
    """Nodes in their order; of several with one label each has its number."""
    totals: dict[str, int] = {}
    for node in nodes:
        totals[node.label] = totals.get(node.label, 0) + 1
    seen: dict[str, int] = {}
    for node in nodes:
        path = above + node.label
        if totals[node.label] > 1:
            number = seen[node.label] = seen.get(node.label, 0) + 1
            path = f"{path}[{number}]"
        yield path, node.value
        if node.below:
            yield from _paths(node.below, f"{path}/")


def _by_line(pattern: re.Pattern[str], node: Callable[[re.Match[str], int], _Node]) -> _Reader:
    """A reader of files in which every line is one node.

    Args:
        pattern: what a line matches as a whole.
        node: makes it, of the match and the number of entries so far, from 1.
    """

    def read(lines: list[str]) -> list[_Node] | None:
        nodes = []
        for number, line in enumerate(lines, start=1):
            match = pattern.fullmatch(line)
            if match is None:
                return None
            nodes.append(node(match, number))
        return nodes

    return read


def _pam(lines: list[str]) -> list[_Node] | None:
    nodes, records = [], 0
    for line in lines:
        if match := _PAM.fullmatch(line):
            records += 1
            below = [_Node("optional")] if match[1] else []
            below += [
                _Node("type", match[2]),
                _Node("control", match[3]),
                _Node("module", match[4]),
            ]
            below += [_Node("argument", word) for word in _PAM_ARGUMENT.findall(match[5])]
            nodes.append(_Node(str(records), None, below))
        elif match := _PAM_INCLUDE.fullmatch(line):
            nodes.append(_Node("include", match[1]))
        else:
            return None
    return nodes


def _sudoers(lines: list[str]) -> list[_Node] | None:
    nodes = []
    for line in lines:
        if match := _DEFAULTS.fullmatch(line):
            nodes.append(_Node("Defaults", None, [_defaults(match)]))
        elif match := _SUDO_SPEC.fullmatch(line):
            nodes.append(_sudo_spec(match))
        elif match := _SUDO_INCLUDE.fullmatch(line):
            nodes.append(_Node(match[1], match[2]))
        else:
            return None
    return nodes


def _defaults(match: re.Match[str]) -> _Node:
    if match[2]:
        return _Node(match[2], None, [_Node("negate")] if match[1] else [])
    if match[3]:
        return _Node(match[3], match[4])
    below = [_Node("append")] if match[6] else []
    return _Node(match[5], None, below + [_Node("var", word) for word in match[7].split()])


def _sudo_spec(match: re.Match[str]) -> _Node:
    user, host, run_as, group, tag, command = match.groups()
    stated = (("runas_user", run_as), ("runas_group", group), ("tag", tag))
    below = [_Node(label, value) for label, value in stated if value]
    hosts = _Node("host_group", None, [_Node("host", host), _Node("command", command, below)])
    return _Node("spec", None, [_Node("user", user), hosts])


def _hosts(match: re.Match[str], number: int) -> _Node:
    address, canonical, *aliases = match[0].split()
    below = [_Node("ipaddr", address), _Node("canonical", canonical)]
    return _Node(str(number), None, below + [_Node("alias", name) for name in aliases])


def _resolv(match: re.Match[str], _: int) -> _Node:
    name, value = (group for group in match.groups() if group is not None)
    if name == "search":
        return _Node(name, None, [_Node("domain", word) for word in value.split()])
    if name == "options":
        options = (word.partition(":") for word in value.split())
        return _Node(name, None, [_Node(word, number or None) for word, _, number in options])
    return _Node(name, value)


def _nsswitch(match: re.Match[str], _: int) -> _Node:
    return _Node("database", match[1], [_Node("service", word) for word in match[2].split()])


def _fstab(match: re.Match[str], number: int) -> _Node:
    spec, file, types, options, dump, check_pass = match.groups()
    below = [_Node("spec", spec), _Node("file", file)]
    below += [_Node("vfstype", word) for word in types.split(",")]
    for word in options.split(",") if options else ():
        name, _, value = word.partition("=")
        below.append(_Node("opt", name, [_Node("value", value)] if value else []))
    if dump:
        below.append(_Node("dump", dump))
    if check_pass:
        below.append(_Node("passno", check_pass))
    return _Node(str(number), None, below)


def _limits(match: re.Match[str], _: int) -> _Node:
    names = ("type", "item", "value")
    values = match.groups()[1:]
    return _Node("domain", match[1], [_Node(*pair) for pair in zip(names, values, strict=True)])


def _systemd(lines: list[str]) -> list[_Node] | None:
    sections: list[_Node] = []
    for line in lines:
        if match := _SECTION.fullmatch(line):
            sections.append(_Node(match[1]))
        elif (match := _SYSTEMD.fullmatch(line)) and sections:
            sections[-1].below.append(_Node(match[1], None, [_Node("value", match[2])]))
        else:
            return None
    return sections


def _setting(match: re.Match[str], _: int) -> _Node:
    return _Node(match[1], match[2])


_READERS: dict[str, _Reader] = {
    "Pam.lns": _pam,
    "Sudoers.lns": _sudoers,
    "Login_defs.lns": _by_line(_LOGIN_DEFS, _setting),
    "Hosts.lns": _by_line(_HOSTS, _hosts),
    "Resolv.lns": _by_line(_RESOLV, _resolv),
    "Nsswitch.lns": _by_line(_NSSWITCH, _nsswitch),
    "Fstab.lns": _by_line(_FSTAB, _fstab),
    "Limits.lns": _by_line(_LIMITS, _limits),
    "Simplevars.lns": _by_line(_SIMPLEVARS, _setting),
    "Shellvars.lns": _by_line(_SHELLVARS, _setting),
    "Systemd.lns": _systemd,
}
