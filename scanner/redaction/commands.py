"""Secrets that command lines hand to programs by options of one letter, or by their place.

Options with a name of their own (``--password``) need no program: see ``shapes``. Sources: the
programs' manual pages, and Microsoft's reference of Windows commands.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fleetscan.scanner.redaction.names import is_secret
from fleetscan.scanner.redaction.spans import Span, value_end

_WORD = r"(?<![^\s\"'=(])"  # where a word begins
_ATTACHED = r"(?=[^\s])"
_ACCOUNT = r"[^\s:%\"'/-][^\s:%\"']{0,127}"


@dataclass(frozen=True)
class Habit:
    """How some programs are given a secret.

    Attributes:
        programs: pattern of their names, in lower case.
        before: pattern of what stands right before the secret.
    """

    programs: str
    before: str


def _option(names: str, between: str = r"(?:[ \t=]{1,8}|(?=[^\s-]))") -> str:
    return rf"{_WORD}(?:{names}){between}"


def _pair(names: str, separator: str) -> str:
    quote = r"(?P<quote>[\"']?)"
    return rf"{_WORD}(?:{names})[ \t=]{{0,8}}{quote}(?:{_ACCOUNT}){separator}"


_HABITS = (
    Habit(r"(?:mysql|mariadb)[a-z_-]*|mycli|percona[a-z-]*|xtrabackup", _option("-p", _ATTACHED)),
    Habit(r"7z[ar]{0,2}|7zz|rar|unrar", _option("-h?p", _ATTACHED)),
    Habit(
        r"sshpass|mongo[a-z]*|nuget|cqlsh|psexec(?:64)?|rdesktop|ncftp[a-z]*|user(?:add|mod)|influx"
        r"|schtasks|[xw]freerdp|winrs|wmic|evil-winrm|dislocker[a-z-]*|mosquitto_[a-z]+"
        r"|pkcs11-tool",
        _option("-p"),
    ),
    Habit(
        r"docker|podman|buildah|skopeo|nerdctl|helm|oc|az",
        rf"\blogin\b[^\n]{{0,256}}?{_option('-p')}",
    ),
    Habit(
        r"zip|unzip|sqlcmd|osql|isql|tsql|bcp|ipmitool|mosquitto_[a-z]+|ssh-keygen", _option("-P")
    ),
    Habit(r"ssh-keygen", _option("-N")),
    Habit(r"schtasks|[xw]freerdp|winrs|wmic|psexec(?:64)?", _option("(?i:[/-]r?p)", r"[ \t:]+")),
    Habit(r"ldap[a-z]+|slap[a-z]+", _option("-w")),
    Habit(r"redis-cli|snmp[a-z]+|keyctl|pdbedit|swaks", _option("-a|-ap|-A")),
    Habit(r"snmp[a-z]+", _option("-c|-X|-3m|-3M")),
    Habit(r"plink|pscp|psftp|putty|kitty", _option("-pw")),
    Habit(r"sendemail", _option("-xp")),
    Habit(
        r"openssl",
        _option("-k|-K|-passin|-passout|-pass", r"[ \t]{1,8}(?:pass:)?(?!file:|env:|fd:)"),
    ),
    Habit(r"x11vnc|vncpasswd", _option("-passwd|-f")),
    Habit(
        r"curl|wget|https?|etcdctl|lftp",
        _pair("-[a-zA-Z]{0,6}[uU]|--user|--proxy-user|-a|--auth", "[:,]"),
    ),
    Habit(r"skopeo|podman|buildah|docker|crictl", _pair("--creds|--(?:src|dest)-creds", ":")),
    Habit(
        r"smb[a-z]+|rpcclient|net|winexe|wmic|pth-[a-z]+|samba-tool|nmblookup|mount(?:\.cifs)?",
        _pair(r"-U|--user(?:name)?", "%"),
    ),
    Habit(r"sqlplus|impdp|expdp|imp|exp|rman|sqlldr", rf"{_WORD}[A-Za-z][\w$#]{{0,63}}/(?=[^\s/])"),
    Habit(r"htpasswd", r"\s-[a-zA-Z]*b[a-zA-Z]*\s(?:[^\n\s]{1,256}\s){2}"),
    Habit(r"iscsiadm", r"password\s{1,8}(?:-v|--value)[ =]{1,8}"),
    Habit(
        r"nmcli|debconf[a-z-]*|wpa_cli|netsh",
        r"\b(?:password|psk|wep-key\d?|key)(?:\s{1,8}|=)(?!password\b)",
    ),
    Habit(r"wpa_passphrase", r"wpa_passphrase\s{1,8}(?:\"[^\"]{0,64}\"|[^\s\"]{1,64})\s{1,8}"),
    Habit(r"debconf[a-z-]*|echo", r"\spassword\s{1,8}password\s{1,8}"),
    Habit(
        r"net1?",
        r"(?i:\buse\s{1,8}(?:[a-z]:\s{1,8}|\*\s{1,8})?(?:\"\\\\[^\"]{1,256}\"|\\\\[^\s\"]{1,256})"
        r"\s{1,8}(?:/\S{1,256}\s{1,8}){0,4}(?![/*]))",
    ),
    Habit(r"net1?", r"(?i:\buser\s{1,8}(?:\"[^\"]{1,64}\"|[^\s\"/]{1,64})\s{1,8}(?![/*]))"),
    Habit(r"convertto-securestring", r"(?i:securestring)\s{1,8}(?:(?i:-string)\s{1,8}|(?!-))"),
    Habit(r"runas|cmdkey|winrs|psexec(?:64)?|wmic|net1?|rdesktop", r"(?i:[/-]pass(?:word)?:)"),
    Habit(r"vault", r"\blogin\s{1,8}(?!-)"),
)  # fmt: skip

_NAMES = "|".join(habit.programs for habit in _HABITS)
# A text that hands a secret to one of these programs holds, in lower case, one of the first, which
# tell most texts apart at little cost, and one of the second, roughly the programs' names.
_HINTS = re.compile(
    r"\s[-/]|\||<<<|\suser?\s|\suse\s|secure|vault\s|psk\s|key\s|password\s|sqlplus|impdp|expdp|sqlldr|rman"
    r"|imp\s|exp\s|wpa_"
)
_SUSPECT = re.compile(
    r"mysql|mariadb|mycli|percona|xtrabackup|7z|rar[\s.]|mongo|nuget|cqlsh|psexec|rdesktop"
    r"|ncftp|user(?:add|mod)|influx|schtasks|freerdp|winrs|wmic|dislocker"
    r"|mosquitto|pkcs11-tool|docker|podman|buildah|skopeo|nerdctl|helm|oc\s|az\s|zip|sqlcmd|osql"
    r"|isql|tsql|bcp|ipmitool|keygen|ldap|slap|redis-cli|snmp|keyctl|pdbedit|swaks|plink|pscp"
    r"|psftp|putty|kitty|sendemail|openssl|x11vnc|vncpasswd|curl|wget|https?\s|etcdctl|lftp|crictl"
    r"|smb|rpcclient|net\s|net\.exe|net1|winexe|pth-|samba-tool|nmblookup|mount|sqlplus|impdp"
    r"|expdp|imp\s|exp\s|rman|sqlldr|iscsiadm|nmcli|debconf|wpa_|netsh|runas|cmdkey|passwd"
    r"|vault|echo|printf|reg\s|reg\.exe|securestring|<<<|evil-"
)


def is_suspect(lower: str) -> bool:
    """Whether a text in lower case may hold a command that is handed a secret."""
    if " " not in lower and "\t" not in lower:
        return False
    return _HINTS.search(lower) is not None and _SUSPECT.search(lower) is not None


_PROGRAM = re.compile(rf"(?<![\w.-])(?P<name>{_NAMES})(?:\.exe)?(?=[\"']?\s)", re.IGNORECASE)
_COMMAND = re.compile(r"[^\n;|]+")


@functools.lru_cache(256)
def _habits(program: str) -> tuple[re.Pattern[str], ...]:
    return tuple(
        re.compile(habit.before) for habit in _HABITS if re.fullmatch(habit.programs, program)
    )


def options(text: str) -> Iterator[Span]:
    """Options and operands that hold a secret for the programs that a command names."""
    for command in _COMMAND.finditer(text):
        names = {match["name"].lower() for match in _PROGRAM.finditer(command[0])}
        patterns = {pattern for name in names for pattern in _habits(name)}
        for pattern in sorted(patterns, key=lambda pattern: pattern.pattern):
            yield from _values(text, pattern, *command.span())


def _values(text: str, pattern: re.Pattern[str], first: int, last: int) -> Iterator[Span]:
    position = first
    while match := pattern.search(text, position, last):
        quote = match["quote"] if "quote" in pattern.groupindex else ""
        start, end, _ = value_end(text, match.end(), quote)
        position = max(end, match.end() + 1)
        if is_secret("password", text[start : min(end, start + 512)]):
            yield start, end


_PIPED = re.compile(
    r"\b(?:echo|printf)\s{1,8}(?:-[a-z]{1,4}\s{1,8})*(?P<value>[^|\n]{1,256}?)\s{0,8}\|\s{0,8}"
    r"(?:(?:sudo\s{1,8})?(?:/\w{1,16}){0,3}/?(?:chpasswd|smbpasswd|kinit|cryptsetup|gpg2?|passwd"
    r"|vncpasswd|htpasswd|openssl|su|sshpass|docker|podman|debconf-set-selections)\b"
    r"|sudo\s{1,8}(?:-\w{1,8}\s{1,8})*-\w?S\b)"
)
_HERE = re.compile(
    r"\b(?:chpasswd|passwd|smbpasswd|kinit|cryptsetup|gpg2?|sudo)\b[^\n<|;]{0,256}<<<\s{0,8}"
)
_REGISTRY = re.compile(
    r"/v\s{1,8}\"?(?P<name>[\w -]{1,128}?)\"?\s{1,8}(?:/t\s{1,8}\w{1,32}\s{1,8})?/d\s{1,8}", re.I
)


def piped(text: str) -> Iterator[Span]:
    """What is written to the standard input of a program that asks for a password."""
    for match in _PIPED.finditer(text):
        yield match.span("value")
    for match in _HERE.finditer(text):
        yield value_end(text, match.end())[:2]


def registry(text: str) -> Iterator[Span]:
    """``reg add KEY /v DefaultPassword /d VALUE``."""
    for match in _REGISTRY.finditer(text):
        start, end, _ = value_end(text, match.end())
        if is_secret(match["name"], text[start:end]):
            yield start, end


Finder = Callable[[str], Iterator[Span]]
FINDERS: tuple[Finder, ...] = (options, piped, registry)
