"""Certificates: agreement with openssl, and hostile bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.scanner.tables.certificates import der, x509
from tests.scanner.tables.run_case import run

KEYS = {
    "rsa": (["rsa:2048"], 2048),
    "rsa-pss": (["rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"], 2048),
    "ec": (["ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"], 384),
    "ed25519": (["ed25519"], 256),
}
CASE = Path(__file__).parents[3] / "scanner/tables/certificates/cases/debian"
SAMPLE = next(x509.blobs((CASE / "tree/etc/nginx/tls/www.pem").read_bytes()))
SUBJECT = "/C=FR/O=Example, \\+ Sons/OU=a=b/CN=caf\u00e9.example.org/emailAddress=me@example.org"


def _made(folder: Path, key: list[str], *more: str) -> Path:
    path = folder / "made.pem"
    make = ["openssl", "req", "-x509", "-nodes", "-newkey", *key, "-subj", SUBJECT, "-utf8", *more]
    make += ["-keyout", str(folder / "key"), "-out", str(path), "-days", "20"]
    subprocess.run(make, check=True, capture_output=True)
    return path


def _shown(path: Path, *what: str) -> list[str]:
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-nameopt", "RFC2253,-esc_msb,utf8", "-in", str(path), *what],
        check=True,
        capture_output=True,
        text=True,
    )
    return [line.partition("=")[2] for line in shown.stdout.splitlines()]


def _agrees_with_openssl(path: Path, found: x509.ParsedCertificate) -> None:
    what = ("-subject", "-issuer", "-serial", "-fingerprint", "-sha256")
    subject, issuer, serial, fingerprint = _shown(path, *what)
    assert (found.subject, found.issuer) == (subject, issuer)
    assert found.serial == serial.lower()
    assert found.sha256 == fingerprint.replace(":", "").lower()


@pytest.mark.parametrize("kind", KEYS)
def test_certificate_is_told_as_openssl_does(kind: str, tmp_path: Path) -> None:
    key, bits = KEYS[kind]
    path = _made(tmp_path, key)
    (blob,) = x509.blobs(path.read_bytes())
    found = x509.read(blob)
    _agrees_with_openssl(path, found)
    assert (found.key_type, found.key_bits) == (kind, bits)
    assert (found.is_ca, found.self_signed) == (True, True)
    assert found.not_after - found.not_before == 20 * 86400 * MICROSECOND


ODD = {
    "cA is false and written out": "basicConstraints=DER:3003010100",
    "a host name in Latin-1": "subjectAltName=DER:3008820663616ee92e66",
    "an address of three bytes": "subjectAltName=DER:30058703010203",
    "a key usage of nothing": "keyUsage=DER:0500",
    "policies of another type": "certificatePolicies=DER:3003020101",
    "name constraints without names": "nameConstraints=DER:3000",
    "an access description that is cut off": "authorityInfoAccess=DER:300a300806082b060105050730",
}
"""Extensions that strict readers refuse, and with them the certificate."""


@pytest.mark.parametrize("kind", ODD)
def test_certificate_that_openssl_shows_is_told(kind: str, tmp_path: Path) -> None:
    path = _made(tmp_path, KEYS["ed25519"][0], "-addext", ODD[kind])
    _agrees_with_openssl(path, x509.read(next(x509.blobs(path.read_bytes()))))


@pytest.mark.parametrize("tag", [b"\x0c", b"\x13", b"\x14", b"\x16"])
def test_name_in_latin_1_is_told_whatever_its_type(tag: bytes) -> None:
    name = b"\x0c\x0fwww.example.org"
    assert name in SAMPLE
    told = x509.read(SAMPLE.replace(name, tag + b"\x0fwww.ex\xe9mple.org"))
    assert told.subject == "CN=www.ex\udce9mple.org"


def test_der_files_are_read_as_pem_files_are(tmp_path: Path) -> None:
    path = _made(tmp_path, ["ed25519"])
    whole = tmp_path / "made.der"
    convert = ["openssl", "x509", "-in", str(path), "-outform", "der", "-out", str(whole)]
    subprocess.run(convert, check=True)
    assert list(x509.blobs(whole.read_bytes())) == list(x509.blobs(path.read_bytes()))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"\x17\x0d491231235959Z", 2_524_607_999), (b"\x17\x0d500101000000Z", -631_152_000)],
)
def test_two_digit_years_are_those_from_1950(text: bytes, seconds: int) -> None:
    assert x509._time(der.first(text)) == seconds * MICROSECOND


@given(st.binary(max_size=200))
def test_any_bytes_give_a_certificate_or_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|certificate|length"):
        x509.read(data)


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_changed_byte_gives_a_certificate_or_an_error(place: int, value: int) -> None:
    data = bytearray(SAMPLE)
    data[place % len(data)] = value
    try:
        x509.read(bytes(data))
    except ValueError as error:
        assert str(error)  # noqa: PT017 - a change may also be harmless


def test_folders_that_lead_nowhere_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ssl").symlink_to("/nowhere")
    assert run("certificates", tmp_path).error.startswith("NotApplicable")
