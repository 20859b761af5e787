"""Secrets recognised by the text around them, or by their own shape.

Sources: RFC 3986 (user information of a URL), RFC 7617 and RFC 6750 (Authorization headers),
crypt(5), mount.cifs(8), dracut.cmdline(7), sshd_config(5), systemd.exec(5); the forms of tokens
are those that GitHub, GitLab, Slack, AWS and others document for secret scanning.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from fleetscan.appliance.ground.redaction.names import MARKER, is_secret
from fleetscan.appliance.ground.redaction.spans import Span, value_end

_STEM = (
    r"pass|pw|psk|pin|secret|token|cred|communit|cookie|authorization|digital.?product|x-amz|@tcp\(|@unix\("
    r"|key|auth|sas"
)
# A name that may have to do with secrets, and what separates it from a value. It is looked at once
# only, from its first letter on.
_NAMED = re.compile(
    rf"(?<![\w.\-])(?P<lead>--?|/)?(?=[\w.\-]*(?:{_STEM}))(?P<name>[A-Za-z_][\w.\-]*+)"
    r"(?:(?P<sep>[\\\"'\])]{0,4}\s{0,8}(?::=|=>|[=:](?!//))\s{0,8})|(?P<blank>\s{1,8}(?![=:\-])))",
    re.IGNORECASE | re.ASCII,
)
_LOGIN_FILE = re.compile(r"\b(?:login|user)\s{1,8}\S{1,256}\s{1,8}pass(?:word)?\s{1,8}", re.I)
_DIRECTIVE = re.compile(
    r"(?<![\w/])(?:[a-z]{0,16}_?(?:bind|root|admin|manager|user)_?pw|requirepass|master-?auth"
    r"|(?:auth|sentinel)-pass\s{1,8}\S{1,128})\s{1,8}(?:--?\S{1,64}\s{1,8}){0,4}(?![-=:#])",
    re.I,
)
_ENVIRONMENT = re.compile(
    r"(?:\b(?:default)?environment|\bsetenv|\bset_?credential)[ \t=:]{1,8}\\?[\"']?"
    r"(?=[A-Za-z_]\w{0,127}[=:])",
    re.I,
)
_HARMLESS_VARIABLES = re.compile(
    r"(?:LANG|LANGUAGE|LC_\w+|PATH|HOME|USER|LOGNAME|SHELL|TERM|TZ|DISPLAY|EDITOR|PAGER"
    r"|DEBIAN_FRONTEND|XDG_\w+|NO_PROXY|no_proxy|(?:https?|ftp|all)_proxy|(?:HTTPS?|FTP|ALL)_PROXY)"
)
_ASSIGNED = re.compile(r"(?<![\w.\-])(?P<name>[A-Za-z_]\w*+)[=:]")


_GATE = 512  # characters of a value that are read


def named(text: str) -> Iterator[Span]:
    """``NAME=VALUE``, ``--name VALUE``, ``"name": "value"`` and the like."""
    known_end = -1
    position = 0
    while match := _NAMED.search(text, position):
        position = match.end()
        start, end, known_end = value_end(text, position, known_end=known_end)
        start, end = _scheme(text, match["name"], start, end)
        if _separated(text, match, start) and is_secret(match["name"], text[start:end][:_GATE]):
            yield start, end
            position = max(position, end)


def _separated(text: str, match: re.Match[str], start: int) -> bool:
    """Whether what follows a name is its value, and not the next word of a sentence or path."""
    if match["sep"] is None:
        return bool(match["lead"])
    before = text[match.start("name") - 1 : match.start("name")]
    if ":" in match["sep"] and not match["lead"]:
        # Of a message, "/etc/passwd: no such file", or sudo's "PASSWD: /bin/sh".
        return before not in ("/", "\\") and not text.startswith("/", start)
    return not ("=" in match["sep"] and text[match.end() : match.end() + 1] == "=")


_SCHEME = re.compile(r"(?:bearer|basic|token|digest|negotiate|apikey|aws4-\S{1,32})\s{1,8}", re.I)


def _scheme(text: str, name: str, start: int, end: int) -> Span:
    """An Authorization header's value behind its scheme; other values as they are."""
    if "auth" in name.lower() and (scheme := _SCHEME.match(text, start)):
        start, behind, _ = value_end(text, scheme.end())
        return start, max(behind, end)
    return start, end


_ACCOUNT = re.compile(r"[^\s%]{1,256}%(?P<value>[^\s]+)")


def by_grammar(name: str, value: str) -> str:
    """A setting's value without the secrets that it has by the grammar of such settings.

    Those are what variables are set to, as whoever hands them to programs in a configuration file
    may do so to hand over a secret, whatever the variable is called; and the second half of a
    mount's ``user=NAME%PW``.
    """
    last = name.lower().replace("\\", "/").rpartition("/")[2]
    if last in ("user", "username") and (account := _ACCOUNT.fullmatch(value)):
        return value[: account.start("value")] + MARKER
    if not any(word in name.lower() for word in ("environment", "setenv", "credential")):
        return value
    spans = list(_assigned(value, 0))
    for start, end in reversed(spans):
        value = value[:start] + MARKER + value[end:]
    return value


def _assigned(text: str, start: int) -> Iterator[Span]:
    position = start
    while match := _ASSIGNED.search(text, position):
        before = text[match.start() - 1 : match.start()]
        first, end, _ = value_end(text, match.end(), before if before in ("'", '"') else "")
        position = max(end, match.end())
        if first < end and not _HARMLESS_VARIABLES.fullmatch(match["name"]):
            yield first, end


def assigned(text: str) -> Iterator[Span]:
    """What variables are set to, in options and settings that hand an environment over."""
    position = 0
    while match := _ENVIRONMENT.search(text, position):
        position = max(_environment_end(text, match), match.end())
        for start, end in _assigned(text[:position], match.end()):
            yield start, min(end, position)


def _environment_end(text: str, match: re.Match[str]) -> int:
    if text[match.start() - 1 : match.start()] not in (".", "-"):  # a directive, to its line's end
        end = text.find("\n", match.end())
        return len(text) if end < 0 else end
    quote = match[0][-1] if match[0][-1] in ("'", '"') else ""
    return value_end(text, match.end(), quote)[1]


def directives(text: str) -> Iterator[Span]:
    """Settings that have but a blank before their value.

    ``login USER password VALUE`` of netrc and of many a program's configuration, ``bindpw VALUE``
    of LDAP's clients, ``requirepass VALUE`` of Redis, ``rootpw VALUE`` of slapd and Kickstart.
    """
    for pattern in (_LOGIN_FILE, _DIRECTIVE):
        for match in pattern.finditer(text):
            start, end, _ = value_end(text, match.end())
            if pattern is _LOGIN_FILE or is_secret("password", text[start:end][:_GATE]):
                yield start, end


_RUN = re.compile(r"[^\s\"'<>`]+")
_PORT = re.compile(r"[0-9]{1,5}(?:[/?#,]|\Z)")
_WITHOUT_PASSWORD = re.compile(r"(?:ssh|git|sftp|rsync|svn|ldaps?|nfs|qemu)[a-z+]*\Z", re.I)


def url_users(text: str) -> Iterator[Span]:
    """Passwords in URLs: ``scheme://user:PW@host``; for the web also all of ``TOKEN@``."""
    if "://" not in text or "@" not in text:
        return
    for run in _RUN.finditer(text):
        pieces = run[0].split("://")
        position = run.start() + len(pieces[0]) + 3
        for scheme, rest in itertools.pairwise(pieces):
            if span := _user(scheme, rest):
                yield position + span[0], position + span[1]
            position += len(rest) + 3


def _is_port(host: str, rest: str) -> bool:
    """Whether ``host:rest`` is a host with a port and a path, and not a user with a password.

    Names of users have no dot; and in ``NAME:1/x@host`` the ``@`` ends a password more often than
    it stands in a path, if not at a part's beginning, as those of npm's packages do.
    """
    if not _PORT.match(rest):
        return False
    before = rest[: max(rest.rfind("@"), 0)]
    return not before or before.endswith("/") or "." in host or host in ("", "localhost")


def _user(scheme: str, rest: str) -> Span | None:
    user, colon, password = rest.partition(":")
    if colon and not re.search(r"[/?#@]", user) and not _is_port(user, password):
        at = rest.rfind("@")
        return (len(user) + 1, at) if at > len(user) else None
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    at = authority.rfind("@")
    if at <= 0:
        return None
    if ":" in authority[:at]:  # a password that begins as a port would
        return authority.index(":") + 1, at
    return None if _WITHOUT_PASSWORD.search(scheme[-16:]) else (0, at)


# What a text must hold in lower case, and a pattern, which has the secret in its group "value" or
# is all of it.
_SHAPES = tuple(
    (marks, re.compile(pattern, flags))
    for marks, pattern, flags in (
        # dracut's roots: iscsi:USER:PW@HOST, cifs:USER:PW@HOST; FUSE: curlftpfs#USER:PW@HOST
        (("@",), r"(?:\b(?:iscsi|cifs|smb|ftp):|#)(?!//)"
         r"(?P<value>[^\s@/:#]{1,64}:[^\s@]{1,256})@", 0),
        # mount.cifs, smbclient: user=DOM/USER%PW
        (("%",), r"(?<![\w])user(?:name)?=[^\s,%]{1,128}%(?P<value>[^\s\"',]{1,256})", re.I),
        (("=",), r"[?&;](?:[a-z_-]*sig(?:nature)?|key|code|auth|sas|se?cret|pwd?)"
         r"=(?P<value>[^\s\"'&;<>]{4,})", re.I),
        (("bearer",), r"\bbearer\s{1,8}(?P<value>[A-Za-z0-9._~+/=-]{8,})", re.I),
        (("akia", "asia"), r"\b(?:AKIA|ASIA)[0-9A-Za-z]{12,64}", 0),
        (("_", "-", "."), r"\b(?:gh[pousr]_|github_pat_|glpat-|gldt-|glrt-|npm_|dop_v1_|pypi-|hvs\."
         r"|sk_live_|rk_live_|sk_test_|dckr_pat_|xapp-|xox[a-z]-|SG\.)[A-Za-z0-9_.-]{10,}", 0),
        (("aiza",), r"\bAIza[0-9A-Za-z_-]{30,}", 0),
        (("eyj",), r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?", 0),
        (("$",), r"\$(?:1|2[abxy]?|3|5|6|7|y|gy|md5|sha1|apr1|argon2[a-z]{0,2}|scrypt"
         r"|pbkdf2[a-z0-9-]*)\$(?P<value>[^\s\"':,;]{8,})", 0),
        (("{",), r"\{(?:S?MD5|S?SHA(?:256|384|512)?|CRYPT|PBKDF2[A-Z0-9-]{0,8}|ARGON2)\}"
         r"(?P<value>[A-Za-z0-9+/=.$,-]{8,})", re.I),
        (("grub",), r"grub\.pbkdf2\.sha512\.[0-9]{1,9}\.(?P<value>[^\s\"']{16,})", 0),
        # A private key to its end, or what is left of it.
        (("-----begin",),
         r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----(?P<value>[^-]*)", 0),
        # XML, and settings of .NET; what Go's driver for MySQL connects to.
        (("<",), r"<[\w:.-]{0,64}(?:passw|pwd|secret|token|api_?key|passphrase)[\w.-]{0,64}>"
         r"(?P<value>[^<]{1,512})</", re.I),
        (("value=",), r"(?:key|name)=[\"'][^\"']{0,64}(?:passw|pwd|secret|token|api_?key)"
         r"[^\"']{0,64}[\"']\s{1,8}value=[\"'](?P<value>[^\"']+)", re.I),
        (("@tcp(", "@unix("),
         r"(?<![\w.-])[\w.-]{1,64}:(?P<value>[^\s@]{1,256})@(?:tcp|unix)\(", 0),
        # SNMP of Windows has a community as a key's name.
        (("trapconfiguration",), r"\\TrapConfiguration\\(?P<value>[^\\]+)", re.I),
    )
)  # fmt: skip


def shaped(text: str, lower: str) -> Iterator[Span]:
    """Tokens, hashes and keys that are recognisable by themselves."""
    for marks, pattern in _SHAPES:
        if any(mark in lower for mark in marks):
            group = "value" if "value" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                yield match.span(group)


def found(text: str, lower: str) -> Iterator[Span]:
    """All secrets that this module finds; ``lower`` is the text in lower case."""
    if any(sign in text for sign in "=:-/"):
        yield from named(text)
    if "env" in lower or "cred" in lower:
        yield from assigned(text)
    if "pass" in lower or "pw" in lower or "master" in lower:
        yield from directives(text)
    yield from url_users(text)
    yield from shaped(text, lower)
