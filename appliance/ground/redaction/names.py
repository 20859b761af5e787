"""What names say of their values: ``DB_PASSWORD`` has a secret, ``PASS_MAX_DAYS`` a policy."""

from __future__ import annotations

import enum
import functools
import re

MARKER = "[redacted]"
"""Stands in a text for a secret that was there."""

_NAME_LIMIT = 128  # the end of a longer name says as much
_GATE_LIMIT = 256  # of a value, to decide whether it is a secret


class Meaning(enum.Enum):
    """What a name says of its value."""

    NOTHING = enum.auto()
    PASSWORD = enum.auto()  # also a number may be one
    SECRET = enum.auto()  # unless it is a number, or a path to where the secret is
    REFERENCE = enum.auto()  # as SECRET, but more often a path or an object's name
    POLICY = enum.auto()  # about secrets: how long, how old, where; a secret if it looks random
    OPAQUE = enum.auto()  # a secret if it is long and looks random


_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NO_WORD = re.compile(r"[^A-Za-z0-9]+")

# All patterns are for names as words(): lower case, underscores between words and at both ends.
_PASSWORD = re.compile(
    r"pass_?wor[dt]|passwd|pass_?phrase|pass_?code|pass_?key"
    r"|_(?!by|com|sur|tres|en)[a-z0-9]*pass(?:in|out)?\d*_"
    r"|_[a-z0-9]*pwd?\d*_|_[a-z0-9]*psk\d*_|_pin\d*_$|default_?pin|_pin_?code"
    r"|requirepass_|_master_?auth_|_communit(?:y|ies)_|valid_?communities|_r[ow]_?community6?_|recovery_?(?:key|pass)"
)
_SECRET = re.compile(
    r"secret|token|_(?:proxy_)?authorization_|_(?:set_)?cookie_|digital_?product_?id"
    r"|_x_amz_(?:signature|credential)"
    r"|_(?:[a-z]+_)?(?:api|access|secret|private|shared|encrypt(?:ion)?|decrypt(?:ion)?|account"
    r"|master|signing|storage|licen[sc]e|product|activation|validation|machine|wep|session"
    r"|service|registration|subscription|bootstrap|consumer|deploy|unseal|sas|fastopen|auth"
    r"|admin|app|crypto?|cipher|aes|hmac|psk|pre_?shared)_?keys?\d*_"
    r"|_wep_?key_?\d*_|_key_?passphrase_"
    r"|_(?:rediscli|redis|registry|docker|npm|basic|proxy|http|smtp|imap|curl|restic|rclone)_auth_"
)
_REFERENCE = re.compile(r"credential|_creds?_|_(?:client|ssl|tls|server|pem|rsa|ssh|user)_?key_")
_OPAQUE = re.compile(r"_(?:key\d*|auth|sas)_$")

# What a name has that limits, switches or asks for secrets, wherever in it.
_LIMITING = re.compile(
    r"_(?:min|max|minimum|maximum|no|not|non|disable[a-z]*|enable[a-z]*|allow[a-z]*|permit[a-z]*"
    r"|deny|refuse|require(?!pass)[a-z]*|limit[a-z]*|use|uses|check|filter|prompt[a-z]*|ask|forbid"
    r"|always|expire[a-z]*|force[a-z]*|load|pass_?env|save|show|hide|target|runas|cached?"
    r"|nopass[a-z]*)_|_no_?pass"
)
# And what follows the word for a secret and says that the value is something about it.
_ABOUT = re.compile(
    r"(?:\A|_)(?:s_)?(?:authentication|min|max|len|length|age|days?|history|size|bits|count|number|num"
    r"|tries|retries|retry|timeout|time|ttl|delay|secs?|seconds|lifetime|duration|period"
    r"|interval|expir[a-z]*|propert[a-z]*|warn[a-z]*|complex[a-z]*|polic(?:y|ies)|quality|strength|reuse"
    r"|remember|change[a-z]*|changing|lock[a-z]*|reset|last|prompt[a-z]*|hint|message|file[a-z]*"
    r"|paths?|dir|directory|folder|uri|endpoint|location|stor(?:e|age)[a-z]*|type|mode|method"
    r"|format|algorithm|algo|alg|cipher|encrypt[a-z]*|names?|ids?|require[a-z]*|allow[a-z]*"
    r"|disable[a-z]*|enable[a-z]*|limit[a-z]*|sav(?:e|ing)|cach(?:e|ing)[a-z]*|sync|check[a-z]*"
    r"|verif[a-z]*|filter[a-z]*|manager|agent|helper|provider|command|cmd|env|fd|backend|plugin"
    r"|module|scopes?|audience|issuer|mgmt|management|rotation|reveal[a-z]*"
    r"|feedback|stdin|delegation|guard|packages?|priority|leak|detect|generator|broker"
    r"|attempts|sessions|leeway|skew)_"
)

_PLAIN_WORDS = frozenset(
    [
        "yes",
        "no",
        "true",
        "false",
        "on",
        "off",
        "none",
        "null",
        "nil",
        "never",
        "always",
        "enabled",
        "enable",
        "disabled",
        "disable",
        "required",
        "requisite",
        "sufficient",
        "optional",
        "include",
        "substack",
        "default",
        "defaults",
        "ask",
        "prompt",
        "auto",
        "any",
        "all",
        "only",
        "files",
        "file",
        "sss",
        "compat",
        "ldap",
        "db",
        "nis",
        "nisplus",
        "winbind",
        "dns",
        "systemd",
        "altfiles",
        "hesiod",
        "md5",
        "des",
        "bigcrypt",
        "blowfish",
        "bcrypt",
        "scrypt",
        "yescrypt",
        "gost_yescrypt",
        "crypt",
        "plain",
        "basic",
        "bearer",
        "digest",
        "ntlm",
        "kerberos",
        "publickey",
        "prohibit-password",
        "without-password",
        "forced-commands-only",
        "unset",
        "empty",
        "set",
    ]
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,12}(?:[.:][0-9]+)*(?:%|ns|us|ms|s|min|h|d|w|days?)?")
_ALGORITHM = re.compile(r"(?:sha|md|aes|pbkdf|hmac|rsa|ecdsa|ed)[0-9]*(?:[-_][a-z0-9]{1,8}){0,3}")
# A value that the program looks up when it runs: ${NAME}, $NAME, %NAME%, $(command), {{ name }}.
_LOOKED_UP = re.compile(
    r"\$\{[^}]*\}|\$[A-Z_][A-Z0-9_]*|\$\([^)]*\)?|`[^`]*`|%[A-Za-z_()0-9]+%|%[a-zA-Z]|\{\{.*"
)
_PATH = re.compile(
    r"(?:file:)?/(?:etc|run|var|home|root|usr|opt|srv|mnt|media|tmp|proc|dev|boot|s?bin|lib\w*"
    r"|data|secrets)/|~/|[a-z]:[\\/]|%\w+%[\\/]|\$\{?\w+\}?/|\\\\\w|hk(?:lm|cu|ey)\w*\\",
    re.IGNORECASE,
)
# A security descriptor of Windows, "O:owner G:group D:flags(A;;rights;;;account)": [MS-DTYP] 2.5.1.
_DESCRIPTOR = re.compile(r"(?:[OG]:[A-Z0-9-]{1,128}){0,2}[DS]:[A-Z]{0,8}\([A-Z]{1,2};")
_DIRECTORY = re.compile(r"(?:/|[A-Za-z]:\\)\S*")
_RANDOM = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[^\s/\\]+")
_OPAQUE_LENGTH, _RANDOM_LENGTH = 16, 8


def words(name: str) -> str:
    """A name in lower case, with underscores between its words and around it.

    >>> words("APIKey"), words("base/proxy-password[2]")
    ('_api_key_', '_proxy_password_2_')
    """
    last = name[-_NAME_LIMIT:].rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return f"_{_NO_WORD.sub('_', _CAMEL.sub('_', last)).lower().strip('_')}_"


@functools.lru_cache(4096)
def meaning(name: str) -> Meaning:
    """What a name says; of a path, its last part."""
    text = words(name)
    for said, pattern in (
        (Meaning.PASSWORD, _PASSWORD),
        (Meaning.SECRET, _SECRET),
        (Meaning.REFERENCE, _REFERENCE),
    ):
        if match := pattern.search(text):
            about = _LIMITING.search(text) or _ABOUT.search(text[match.end() :])
            return Meaning.POLICY if about else said
    return Meaning.OPAQUE if _OPAQUE.search(text) else Meaning.NOTHING


def is_secret(name: str, value: str) -> bool:
    """Whether a value is one of those that its name speaks of.

    >>> is_secret("DB_PASSWORD", "hunter2"), is_secret("PASS_MAX_DAYS", "90")
    (True, False)
    """
    said = meaning(name[-_NAME_LIMIT:])
    if said is Meaning.NOTHING or _is_plain(value[:_GATE_LIMIT].strip()):
        return False
    head = value[:_GATE_LIMIT]
    if said is Meaning.POLICY:
        return _is_random(head, _RANDOM_LENGTH)
    if said is Meaning.OPAQUE:
        return _is_random(head, _OPAQUE_LENGTH)
    if said is Meaning.PASSWORD:
        return not (words(name) in ("_pwd_", "_oldpwd_") and _DIRECTORY.fullmatch(head))
    return not (_NUMBER.fullmatch(head) or _PATH.match(head))


def _is_plain(value: str) -> bool:
    """Whether no program would take it for a secret: empty, a switch, or looked up elsewhere."""
    if len(value) <= 1 or value == MARKER:
        return True
    if _DESCRIPTOR.match(value):
        return True
    return value.lower() in _PLAIN_WORDS or _LOOKED_UP.fullmatch(value) is not None


def _is_random(value: str, length: int) -> bool:
    if len(value) < length or _NUMBER.fullmatch(value) or _ALGORITHM.fullmatch(value.lower()):
        return False
    return _RANDOM.fullmatch(value) is not None and not _PATH.match(value)
