"""One row a certificate."""

from __future__ import annotations

from typing import Literal

from scanner.schema import IS_DIGEST, IS_PATH, U32, Timestamp, column, table

Kind = Literal["trusted", "added", "server"]


@table()
class Certificate:
    """X.509 certificates of the system's trust store, and of servers where they usually lie.

    Of a trust store its bundle is read, so that each certificate is told once, whatever links
    lead to it. What a certificate claims is told as it stands; no signature is checked.
    """

    kind: Kind = column(
        "trusted: in the system's bundle of authorities; added: put there by the site; server: in "
        "a place where servers keep their own."
    )
    file: str = column(
        "File that it is in.", example="/etc/ssl/certs/ca-certificates.crt", unredacted=IS_PATH
    )
    position: U32 = column("Place among the certificates of the file, from 0.")
    subject: str = column(
        "Whose it is, as RFC 4514 writes names.",
        example="CN=www.example.org,O=Example,C=FR",
        unredacted="a certificate is shown to whoever connects",
    )
    issuer: str = column(
        "Who issued it, likewise.", unredacted="a certificate is shown to whoever connects"
    )
    serial: str = column(
        "Serial number, hexadecimal.",
        example="66c9fcf99bf8c0a39e2f0788a43e6963",
        unredacted=IS_DIGEST,
    )
    not_before: Timestamp = column("First instant of its validity.")
    not_after: Timestamp = column("Last instant of its validity.")
    names: tuple[str, ...] = column(
        "Host names that it holds for.",
        example="www.example.org",
        unredacted="a certificate is shown to whoever connects",
    )
    key_type: str = column("Kind of its key; an object identifier for others.", example="rsa")
    key_bits: U32 | None = column("Size of its key; null where it is not known.", unit="bits")
    signature_algorithm: str = column(
        "How it is signed; an object identifier for what has no name here.",
        example="sha256WithRSAEncryption",
    )
    sha256: str = column("SHA-256 of the whole certificate, hexadecimal.", unredacted=IS_DIGEST)
    is_ca: bool = column("Whether it may issue others, by its basic constraints.")
    self_signed: bool = column("Whether subject and issuer are the same.")
