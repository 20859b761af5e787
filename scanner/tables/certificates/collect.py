"""Certificates, from the system's trust store and where servers keep theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator

from fleetscan.appliance.ground.schema import NotApplicable
from fleetscan.appliance.guest.readers.reading import Reader
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.certificates import x509
from fleetscan.scanner.tables.certificates.spec import Certificate, Kind

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Gentoo
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Red Hat
    "/var/lib/ca-certificates/ca-bundle.pem",  # SUSE
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",  # Arch
    "/etc/ssl/cert.pem",  # BSD and BusyBox systems
)
_ADDED = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/pki/trust/anchors",
    "/etc/ca-certificates/trust-source/anchors",
)
_SERVERS = (
    *("/etc/ssl", "/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/letsencrypt/live"),
    *("/etc/nginx", "/etc/apache2", "/etc/httpd", "/etc/httpd/conf", "/etc/haproxy"),
    *("/etc/postfix", "/etc/dovecot", "/etc/exim4", "/etc/ldap", "/etc/openldap"),
    *("/etc/openvpn", "/etc/ipsec.d", "/etc/swanctl", "/etc/stunnel", "/etc/mosquitto"),
    *("/etc/kubernetes/pki", "/etc/docker/certs.d", "/etc/cockpit/ws-certs.d"),
    *("/etc/mysql", "/var/lib/mysql", "/var/lib/pgsql/data", "/etc/grafana"),
)
"""Searched with the folders directly below them."""

_SUFFIXES = (".pem", ".crt", ".cer", ".cert", ".der")
_LINKS_ARE_COPIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")  # names for what the bundle holds
_FILES = 2000
_LIMIT = 4 << 20  # bytes; bundles have a quarter of a megabyte


def collect(root: Root) -> Iterator[Certificate]:
    """One row a certificate of each file, a file with several names once.

    Raises:
        NotApplicable: there is no certificate in any of the places.
        IncompleteError: files cannot be read or hold malformed certificates; raised after all rows.
    """
    reader = Reader(root, _LIMIT)
    seen: set[tuple[int, int]] = set()
    found = False
    for kind, path in _candidates(root):
        if len(seen) >= _FILES:
            reader.note(f"only certificates of the first {_FILES} files are listed")
            break
        if not root.is_file(path):
            continue
        status = root.stat(path)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for row in _rows(reader, kind, path):
            found = True
            yield row
    reader.finish()
    if not found:
        raise NotApplicable("no certificates in the usual places")


def _candidates(root: Root) -> Iterator[tuple[Kind, str]]:
    for path in _BUNDLES:
        yield "trusted", path
    for folder in _ADDED:
        for path in _listed(root, folder)[0]:
            yield "added", path
    for folder in _SERVERS:
        files, folders = _listed(root, folder)
        for deeper in folders:
            if deeper not in _SERVERS:
                files += _listed(root, deeper)[0]
        for path in files:
            yield "server", path


def _listed(root: Root, folder: str) -> tuple[list[str], list[str]]:
    """Paths of a folder's files that may be certificates, and of the folders in it."""
    try:
        descriptor = root.open_fd(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return [], []
    files, folders = [], []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{folder}/{entry.name}")
                elif entry.name.endswith(_SUFFIXES) and not (
                    folder in _LINKS_ARE_COPIES and entry.is_symlink()
                ):
                    files.append(f"{folder}/{entry.name}")
    finally:
        os.close(descriptor)
    return sorted(files), sorted(folders)


def _rows(reader: Reader, kind: Kind, path: str) -> Iterator[Certificate]:
    data = reader.data(path, path) or b""
    if lost := x509.lost(data):
        reader.note(f"{path}: {lost} certificates are incomplete", path)
    elif data and path in _BUNDLES and b"BEGIN" not in data:
        reader.note(f"{path}: contains no certificate", path)
    for position, blob in enumerate(x509.blobs(data)):
        try:
            certificate = x509.read(blob)
        except ValueError as error:
            reader.note(f"{path}: certificate {position}: {error}", path)
            continue
        yield Certificate(kind=kind, file=path, position=position, **vars(certificate))
