"""Parsers of OpenSSH's keys: public blobs, authorized_keys lines, private keys' outer form.

Sources: RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8709; AUTHORIZED_KEYS FILE FORMAT in
sshd(8); PROTOCOL.key and PROTOCOL.u2f of OpenSSH 9.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_TYPE = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]{1,60}")
_OPTION = re.compile(r'[A-Za-z0-9_-]+(?:="(?:\\"|[^"])*")?')
_LINE_LIMIT = 1 << 16

_FIXED_BITS = {
    "ssh-ed25519": 256,
    "sk-ssh-ed25519@openssh.com": 256,
    "sk-ecdsa-sha2-nistp256@openssh.com": 256,
    "ecdsa-sha2-nistp256": 256,
    "ecdsa-sha2-nistp384": 384,
    "ecdsa-sha2-nistp521": 521,
}
_NUMBER_FIELD = {"ssh-rsa": 2, "ssh-dss": 1}
"""Which field after the type is the number whose length is the key's: n after e, p."""

_OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----"
_OPENSSH_MAGIC = b"openssh-key-v1\0"
_PEM_PRIVATE = re.compile(r"-----BEGIN (?:(RSA|DSA|EC|ENCRYPTED) )?PRIVATE KEY-----")


@dataclass(frozen=True)
class PublicKey:
    """What a public key says: type, size in bits, fingerprint as ssh-keygen prints it."""

    type: str
    bits: int | None
    fingerprint: str


@dataclass(frozen=True)
class AuthorizedKey:
    """A line that lets a key in, or a .pub file's: number from 1, key, options and comment."""

    line: int
    key: PublicKey
    options: tuple[str, ...]
    comment: str | None


@dataclass(frozen=True)
class PrivateKey:
    """A private key's outside: whether it is encrypted, and its public half where that is plain."""

    encrypted: bool
    key: PublicKey | None


def public_key(blob: bytes) -> PublicKey:
    """Read a public key's blob.

    Raises:
        ValueError: it is cut off or not one.
    """
    name, rest = _field(blob)
    kind = name.decode("ascii", "replace")
    if not _TYPE.fullmatch(kind):
        raise ValueError("not a public key")
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(kind, _bits(kind, rest), f"SHA256:{digest}")


def _bits(kind: str, rest: bytes) -> int | None:
    if kind not in _NUMBER_FIELD:
        return _FIXED_BITS.get(kind)
    for _ in range(_NUMBER_FIELD[kind]):
        number, rest = _field(rest)
    return int.from_bytes(number, "big").bit_length()


def _field(data: bytes) -> tuple[bytes, bytes]:
    """The first length-prefixed string of some data, and the rest."""
    if len(data) < 4:
        raise ValueError("cut off")
    (length,) = struct.unpack_from(">I", data)
    if length > len(data) - 4:
        raise ValueError("cut off")
    return data[4 : 4 + length], data[4 + length :]


def authorized_keys(text: str, malformed: list[int]) -> Iterator[AuthorizedKey]:
    """Keys of an authorized_keys file, or of a .pub file, which has one without options.

    Args:
        text: the file's content.
        malformed: gets the numbers of lines that sshd would pass over.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        try:
            yield _authorized_key(number, stripped)
        except ValueError:  # binascii.Error is one
            malformed.append(number)


def _authorized_key(number: int, line: str) -> AuthorizedKey:
    if len(line) > _LINE_LIMIT:
        raise ValueError("too long")
    options: tuple[str, ...] = ()
    if not _TYPE.fullmatch(line.split(None, 1)[0]):
        options, line = _options(line)
    words = line.split(None, 2)
    if len(words) < 2:
        raise ValueError("not a key")
    key = public_key(base64.b64decode(words[1], validate=True))
    if key.type != words[0]:
        raise ValueError("not of the type that it states")
    return AuthorizedKey(number, key, options, words[2] if len(words) > 2 else None)


def _options(line: str) -> tuple[tuple[str, ...], str]:
    found = []
    position = 0
    while match := _OPTION.match(line, position):
        found.append(match[0])
        position = match.end()
        if line[position : position + 1] != ",":
            break
        position += 1
    if line[position : position + 1] not in (" ", "\t"):
        raise ValueError("not an option")
    return tuple(found), line[position:].lstrip()


def private_key(text: str) -> PrivateKey | None:
    """A private key's outside; None for text that is not a private key's.

    Raises:
        ValueError: an OpenSSH private key is malformed.
    """
    if text.startswith(_OPENSSH):
        return _openssh_key(text)
    match = _PEM_PRIVATE.match(text)
    if match is None:
        return None
    # RFC 1421's header marks encryption in OpenSSL's traditional format.
    encrypted = match[1] == "ENCRYPTED" or "Proc-Type: 4,ENCRYPTED" in text[:200]
    return PrivateKey(encrypted, None)


def _openssh_key(text: str) -> PrivateKey:
    body = text[len(_OPENSSH) :].partition("-----END")[0]
    data = binascii.a2b_base64(body.encode("ascii", "replace"))
    if not data.startswith(_OPENSSH_MAGIC):
        raise ValueError("not an OpenSSH private key")
    cipher, rest = _field(data[len(_OPENSSH_MAGIC) :])
    _, rest = _field(rest)  # key derivation function
    _, rest = _field(rest)  # its options
    blob, _ = _field(rest[4:])  # after the number of keys, which is always one
    return PrivateKey(cipher != b"none", public_key(blob))
