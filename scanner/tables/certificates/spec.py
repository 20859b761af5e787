"""One row a certificate."""

from __future__ import annotations

from typing import Literal

from fleetscan.appliance.ground.schema import IS_DIGEST, IS_PATH, U32, Timestamp, column, table

Kind = Literal["trusted", "added", "server"]


@table()
class Certificate:
    """X.509 certificates in the system's trust store and in servers' usual places.

    For a trust store the bundle is read, so that each certificate is listed once, however many
    links lead to it. Rows contain what certificates claim; no signature is checked.
    """

    kind: Kind = column(
        "trusted: in the system's bundle of authorities; added: added by the site; server: in a "
        "place where servers keep their own certificates."
    )
    file: str = column(
        "File that contains it.", example="/etc/ssl/certs/ca-certificates.crt", unredacted=IS_PATH
    )
    position: U32 = column("Position among the certificates of the file, from 0.")
    subject: str = column(
        "Subject, in the notation of RFC 4514.",
        example="CN=www.example.org,O=Example,C=FR",
        unredacted="a certificate is shown to whoever connects",
    )
    issuer: str = column(
        "Issuer, in the same notation.", unredacted="a certificate is shown to whoever connects"
    )
    serial: str = column(
        "Serial number, hexadecimal.",
        example="66c9fcf99bf8c0a39e2f0788a43e6963",
        unredacted=IS_DIGEST,
    )
    not_before: Timestamp = column("First instant of its validity.")
    not_after: Timestamp = column("Last instant of its validity.")
    names: tuple[str, ...] = column(
        "Host names that it is valid for.",
        example="www.example.org",
        unredacted="a certificate is shown to whoever connects",
    )
    key_type: str = column(
        "Type of its key; an object identifier for types without a name here.",
        example="rsa",
        unredacted="a certificate is shown to whoever connects",
    )
    key_bits: U32 | None = column("Size of its key; null if not known.", unit="bits")
    signature_algorithm: str = column(
        "Signature algorithm; an object identifier for those without a name here.",
        example="sha256WithRSAEncryption",
        unredacted="a certificate is shown to whoever connects",
    )
    sha256: str = column("SHA-256 of the whole certificate, hexadecimal.", unredacted=IS_DIGEST)
    is_ca: bool = column("Whether it may issue others, according to its basic constraints.")
    self_signed: bool = column("Whether subject and issuer are the same.")
