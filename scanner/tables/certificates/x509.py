"""X.509 certificates: what they say, and PEM files of them.

Sources: RFC 5280 sections 4.1 and 4.2, RFC 3279, RFC 4055, RFC 5480, RFC 5758, RFC 8410 (object
identifiers); RFC 4514 (names as text); RFC 7468 (PEM).

Read here and by no library, as an inventory has to list what systems really hold. Debian's
python3-cryptography 43 refuses certificates that openssl shows and servers use: a false ``cA`` or
``critical`` that is written out (pyca/cryptography issues 14354, 12665), times and extensions of
other than DER's form (10367), names in Latin-1; one such extension costs all others. Of 28 odd
certificates it refused 10. In the appliance, under emulation, the 148 certificates of a Debian 12
took it 2.5 s (here: 0.17 s), for 15 MiB more in each template. python3-asn1crypto refuses none and
takes five times as long as the code here. Both gave the same rows for all that they read.
"""

from __future__ import annotations

import base64
import calendar
import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.scanner.tables.certificates import der
from fleetscan.scanner.tables.certificates.der import DerElement, DerError

_PEM = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END ")
_DER_START = b"\x30\x82"  # a sequence of 256 bytes to 64 KiB

_NAMES = {
    "2.5.4.3": "CN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}
_SPECIAL = re.compile(r'[,+"\\<>;]|^[ #]| $')

_SIGNATURES = {
    "1.2.840.113549.1.1.2": "md2WithRSAEncryption",
    "1.2.840.113549.1.1.4": "md5WithRSAEncryption",
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
    "1.2.840.113549.1.1.10": "rsassaPss",
    "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
    "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
    "1.2.840.113549.1.1.13": "sha512WithRSAEncryption",
    "1.2.840.10045.4.1": "ecdsa-with-SHA1",
    "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
    "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
    "1.2.840.10045.4.3.4": "ecdsa-with-SHA512",
    "1.2.840.10040.4.3": "dsa-with-sha1",
    "1.3.101.112": "ed25519",
    "1.3.101.113": "ed448",
}
_KEYS = {
    "1.2.840.113549.1.1.1": "rsa",
    "1.2.840.113549.1.1.10": "rsa-pss",
    "1.2.840.10045.2.1": "ec",
    "1.2.840.10040.4.1": "dsa",
    "1.3.101.112": "ed25519",
    "1.3.101.113": "ed448",
}
_CURVES = {
    "1.2.840.10045.3.1.1": 192,
    "1.3.132.0.33": 224,
    "1.2.840.10045.3.1.7": 256,
    "1.3.132.0.10": 256,
    "1.3.132.0.34": 384,
    "1.3.132.0.35": 521,
}
_FIXED_BITS = {"ed25519": 256, "ed448": 456}

# Object identifiers of extensions, whole: 2.5.29.19 and 2.5.29.17.
_BASIC_CONSTRAINTS, _ALTERNATIVE_NAMES = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d11")
_IDENTIFIER = 5  # bytes
_VERSION, _EXTENSIONS, _DNS_NAME = 0xA0, 0xA3, 0x82


@dataclass(frozen=True)
class ParsedCertificate:
    """What a certificate says; attributes as the columns of the table."""

    subject: str
    issuer: str
    serial: str
    not_before: int
    not_after: int
    names: tuple[str, ...]
    key_type: str
    key_bits: int | None
    signature_algorithm: str
    sha256: str
    is_ca: bool
    self_signed: bool


def blobs(data: bytes) -> Iterator[bytes]:
    """The certificates of a PEM or DER file, undecoded; none for a file of another kind."""
    if data.startswith(_DER_START):
        yield data
        return
    for match in _PEM.finditer(data):
        yield base64.b64decode(match[1])


def lost(data: bytes) -> int:
    """How many certificates of a PEM file lack their beginning or end, or hold what none does."""
    marks = max(data.count(mark) for mark in (b"BEGIN CERTIFICATE-----", b"END CERTIFICATE-----"))
    return max(0, marks - sum(1 for _ in _PEM.finditer(data))) if marks else 0


@functools.lru_cache(1024)  # nearly every machine trusts the same authorities
def read(blob: bytes) -> ParsedCertificate:
    """Read one certificate; what follows it (OpenSSL's trust settings) is passed over.

    Raises:
        ValueError: it is cut off or malformed.
    """
    whole = der.first(blob)
    try:
        body, algorithm = whole.children()[:2]
        fields = body.children()
        if fields[0].tag == _VERSION:
            del fields[0]
        serial, _, issuer, validity, subject, key = fields[:6]
        begin, end = validity.children()
        key_type, key_bits = _key(key)
        extensions = dict(_extensions(fields[6:]))
        signature = der.oid(algorithm.children()[0].content)
    except (IndexError, ValueError) as error:
        raise DerError("not a certificate, or a malformed one") from error
    subject_name = _name(subject)
    same = subject.content == issuer.content
    return ParsedCertificate(
        subject=subject_name,
        issuer=subject_name if same else _name(issuer),
        serial=serial.content.lstrip(b"\0").hex() or "0",
        not_before=_time(begin),
        not_after=_time(end),
        names=_dns_names(extensions.get(_ALTERNATIVE_NAMES)),
        key_type=key_type,
        key_bits=key_bits,
        signature_algorithm=_SIGNATURES.get(signature, signature),
        sha256=hashlib.sha256(blob[: whole.end]).hexdigest(),
        is_ca=_is_ca(extensions.get(_BASIC_CONSTRAINTS)),
        self_signed=same,
    )


def _name(element: DerElement) -> str:
    return ",".join(_relative(relative.content) for relative in reversed(element.children()))


@functools.lru_cache(1024)  # authorities share their countries and organizations
def _relative(content: bytes) -> str:
    attributes = DerElement(der.SET, content, len(content)).children()
    pairs = (attribute.children()[:2] for attribute in attributes)
    return "+".join(_attribute(*pair) for pair in pairs if len(pair) > 1)


def _attribute(kind: DerElement, value: DerElement) -> str:
    number = der.oid(kind.content)
    text = _SPECIAL.sub(lambda match: f"\\{match[0]}", der.text(value))
    return f"{_NAMES.get(number, number)}={text}"


def _time(element: DerElement) -> int:
    digits = element.content.decode("ascii", "replace")
    if element.tag == der.UTC_TIME:  # RFC 5280 section 4.1.2.5.1: years from 1950
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    match = re.fullmatch(r"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z", digits)
    if match is None:
        raise DerError("not a valid form of time")
    year, month, day, hour, minute, second = map(int, match.groups())
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24):
        raise DerError("a time that does not exist")
    return calendar.timegm((year, month, day, hour, minute, second)) * MICROSECOND


def _key(element: DerElement) -> tuple[str, int | None]:
    algorithm, bits = element.children()[:2]
    kind, *parameters = algorithm.children()
    number = der.oid(kind.content)
    name = _KEYS.get(number, number)
    if name in ("rsa", "rsa-pss"):
        modulus = der.first(bits.content, 1).children()[0]  # after the count of unused bits
        return name, int.from_bytes(modulus.content, "big").bit_length()
    if name == "dsa" and parameters:
        prime = parameters[0].children()[0]
        return name, int.from_bytes(prime.content, "big").bit_length()
    if name == "ec" and parameters and parameters[0].tag == der.OID:
        return name, _CURVES.get(der.oid(parameters[0].content))
    return name, _FIXED_BITS.get(name)


def _extensions(fields: list[DerElement]) -> Iterator[tuple[bytes, bytes]]:
    """Object identifier and content of the extensions that are reported."""
    for field in fields:
        if field.tag == _EXTENSIONS:
            for extension in field.children()[0].children():
                identifier = extension.content[:_IDENTIFIER]
                if identifier in (_BASIC_CONSTRAINTS, _ALTERNATIVE_NAMES):
                    yield identifier, extension.children()[-1].content


def _is_ca(content: bytes | None) -> bool:
    if content is None:
        return False
    return any(
        part.tag == der.BOOLEAN and part.content != b"\0" for part in der.first(content).children()
    )


def _dns_names(content: bytes | None) -> tuple[str, ...]:
    if content is None:
        return ()
    names = der.first(content).children()
    return tuple(der.text(name) for name in names if name.tag == _DNS_NAME)
