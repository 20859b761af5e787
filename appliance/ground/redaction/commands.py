"""Secrets that command lines hand to programs by options of one letter, or by their place.

Options with a name of their own (``--password``) need no program: see ``shapes``. Sources: the
programs' manual pages, and Microsoft's reference of Windows commands.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fleetscan.appliance.ground.redaction.names import is_secret
from fleetscan.appliance.ground.redaction.spans import Span, value_end

_WORD = r"(?<![^\s\"'=(])"  # where a word begins
_ATTACHED = r"(?=[^\s])"
_ACCOUNT = r"[^\s:%\"'/-][^\s:%\"']{0,127}"


@dataclass(frozen=True)
class Habit:
    """How some programs are given a secret.

    Attributes:
        programs: their names, in lower case; ``*`` stands for letters, digits, ``_`` and ``-``.
        before: pattern of what stands right before the secret.
    """

    programs: str
    before: str


def _option(names: str, between: str = r"(?:[ \t=]{1,8}|(?=[^\s-]))") -> str:
    return rf"{_WORD}(?:{names}){between}"


def _pair(names: str, separator: str) -> str:
    quote = r"(?P<quote>[\"']?)"
    return rf"{_WORD}(?:{names})[ \t=]{{0,8}}{quote}(?:{_ACCOUNT}){separator}"


_SHARE = r"(?:'(?:\\\\|//)[^']{1,256}'|\"(?:\\\\|//)[^\"]{1,256}\"|(?:\\\\|//)[^\s\"]{1,256})"
_SWITCH = r"/[^\s:\"]{1,64}(?::(?:\"[^\"]{0,256}\"|[^\s\"]{0,256}))?"

_HABITS = (
    Habit("mysql* mariadb* mycli percona* xtrabackup", _option("-p", _ATTACHED)),
    Habit("7z 7za 7zr 7zz rar unrar", _option("-h?p", _ATTACHED)),
    Habit(
        "sshpass mongo* nuget cqlsh psexec psexec64 rdesktop ncftp* useradd usermod influx schtasks"
        " xfreerdp wfreerdp winrs wmic evil-winrm dislocker* mosquitto_* pkcs11-tool fence_*"
        " racadm ipmi-* ipmipower bmc-* rabbitmqadmin wsman ipa-server-install kadmin",
        _option("-p"),
    ),
    Habit(
        "docker podman buildah skopeo nerdctl helm oc az",
        rf"\blogin\b[^\n]{{0,256}}?{_option('-p')}",
    ),
    Habit("zip unzip sqlcmd osql isql tsql bcp ipmitool mosquitto_* ssh-keygen", _option("-P")),
    Habit("ssh-keygen", _option("-N")),
    Habit(
        "schtasks xfreerdp wfreerdp winrs wmic psexec psexec64",
        _option("(?i:[/-]r?p)", r"[ \t:]+"),
    ),
    Habit("ldap* slap* kadmin ipa-* dsconf dsctl pdbedit smbpasswd", _option("-w")),
    Habit("slappasswd ldappasswd", _option("-s")),
    Habit("ldappasswd ipa-server-install", _option("-a")),
    Habit("redis-cli snmp* keyctl pdbedit swaks", _option("-a|-ap|-A")),
    Habit("snmp*", _option("-c|-X|-3m|-3M")),
    Habit("plink pscp psftp putty kitty kadmin*", _option("-pw")),
    Habit("sendemail", _option("-xp")),
    Habit(
        "openssl",
        _option("-k|-K|-passin|-passout|-pass", r"[ \t]{1,8}(?:pass:)?(?!file:|env:|fd:)"),
    ),
    Habit("x11vnc vncpasswd", _option("-passwd|-f")),
    Habit(
        "curl wget http https etcdctl lftp hey siege w3m",
        _pair("-[a-zA-Z]{0,6}[uU]|--user|--proxy-user|-a|--auth|-pauth", "[:,]"),
    ),
    Habit("ab", _pair("-[AP]", ":")),
    Habit("skopeo podman buildah docker crictl", _pair("--creds|--(?:src|dest)-creds", ":")),
    Habit(
        "smb* rpcclient net winexe wmic pth-* samba-tool nmblookup mount mount.cifs",
        _pair(r"-U|--user(?:name)?", "%"),
    ),
    Habit("smbclient", rf"smbclient[^\n;|]{{0,256}}?\s{_SHARE}\s{{1,8}}(?!-)"),
    Habit(
        "sqlplus impdp expdp imp exp rman sqlldr", rf"{_WORD}[A-Za-z][\w$#]{{0,63}}/(?=[^\s/])"
    ),
    Habit("htpasswd", r"\s-[a-zA-Z]*b[a-zA-Z]*\s(?:[^\n\s]{1,256}\s){2}"),
    Habit("iscsiadm", r"password\s{1,8}(?:-v|--value)[ =]{1,8}"),
    Habit(
        "nmcli debconf* wpa_cli netsh",
        r"\b(?:password|psk|wep-key\d?|key)(?:\s{1,8}|=)(?!password\b)",
    ),
    Habit("wpa_passphrase", r"wpa_passphrase\s{1,8}(?:\"[^\"]{0,64}\"|[^\s\"]{1,64})\s{1,8}"),
    Habit("debconf* echo", r"\spassword\s{1,8}password\s{1,8}"),
    Habit("rabbitmqctl", r"\b(?:add_user|change_password)\s{1,8}[^\s-]\S{0,127}\s{1,8}"),
    Habit(  # the first word that is not a device, share or switch
        "net net1",
        rf"(?i:\buse\s{{1,8}}(?:(?:[a-z]:|\*|{_SHARE}|{_SWITCH})\s{{1,8}}){{1,8}}"
        r"(?![/*]|\\\\|\"\\\\|[a-z]:(?:\s|\Z)))",
    ),
    Habit("net net1", r"(?i:\buser\s{1,8}(?:\"[^\"]{1,64}\"|[^\s\"/]{1,64})\s{1,8}(?![/*]))"),
    Habit("convertto-securestring", r"(?i:securestring)\s{1,8}(?:(?i:-string)\s{1,8}|(?!-))"),
    Habit("runas cmdkey winrs psexec psexec64 wmic net net1 rdesktop", r"(?i:[/-]pass(?:word)?:)"),
    Habit("vault", r"\blogin\s{1,8}(?!-)"),
)  # fmt: skip

HINTS = (
    *(" -", " /", "\t", "\n", '"', "'", "|", "<<<", " use ", " user ", "imp ", "exp "),
    *("sqlplus", "pdp ", "sqlldr", "rman ", "vault", "string", "add_user"),
)
"""One of these is in each text that hands a secret to a program, or a word for the secret is."""

_MAY = (*HINTS, "password ", "passphrase ", "psk ", "key ", "key=")
_NAMES = frozenset(name for habit in _HABITS for name in habit.programs.split())
_ALONE = ("<<<", "/d ", "/d\t")  # programs aside: see piped() and registry()
_WHOLE = {name for name in _NAMES if "*" not in name} | {"echo", "printf"}
_WORDS = frozenset(f"{name}{end}".encode() for name in _WHOLE for end in ("", ".exe"))
_PARTS = tuple(sorted(name.partition("*")[0].encode() for name in _NAMES if "*" in name))
_NO_BLANKS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-.")
_BLANKS = bytes(code if code in _NO_BLANKS else ord(" ") for code in range(256))


def programs(lower: str) -> set[str]:
    """Parts of a text in lower case that name programs that are handed secrets."""
    words = set(lower.encode(errors="replace").translate(_BLANKS).split())
    parts = filter(b" ".join(words).__contains__, _PARTS)
    found = {name.decode() for name in (*words.intersection(_WORDS), *parts)}
    return found.union(filter(lower.__contains__, _ALONE))


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\*", "[a-z0-9_-]*")


_PROGRAM = re.compile(
    rf"(?<![\w.-])(?P<name>{'|'.join(map(_pattern, sorted(_NAMES)))})(?:\.exe)?(?=[\"']?\s)",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"[^\n;|]+")


@functools.lru_cache(256)
def _habits(program: str) -> tuple[re.Pattern[str], ...]:
    return tuple(
        re.compile(habit.before)
        for habit in _HABITS
        if any(re.fullmatch(_pattern(name), program) for name in habit.programs.split())
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


def samples() -> Iterator[str]:
    """A command of each kind of program, for which patterns are compiled when first met."""
    for name in _NAMES:
        yield f"{name.replace('*', 'x')} -x x"


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


def found(text: str, lower: str) -> Iterator[Span]:
    """All secrets that a text hands to programs; ``lower`` is the text in lower case."""
    if any(map(lower.__contains__, _MAY)) and programs(lower):
        for find in (options, piped, registry):
            yield from find(text)
