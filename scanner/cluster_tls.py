"""Who may talk to a Dask cluster: whoever can talk to it can run code on its workers.

A cluster of our own always has keys that nobody else has. One on other hosts is reached by TLS, or
without only where the user insists.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import distributed as typed_in_part
from distributed.comm.addressing import parse_host_port

from fleetscan.appliance.ground.errors import FleetscanError, UsageError
from fleetscan.appliance.host import command
from fleetscan.appliance.host.command import Surroundings

# Any: distributed has types for some of its functions, and none for those used here.
distributed: Any = typed_in_part

_OPENSSL_SECONDS = 60


@dataclass(frozen=True)
class Certificates:
    """What proves to a cluster who we are, and to us that it is ours.

    Attributes:
        ca: certificates of the authority that signed those of the cluster's members; anybody
            whose certificate it signed is a member, so it signs no others.
        certificate: our own.
        key: its private key.
    """

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Address:
    """Where a scheduler listens.

    Attributes:
        scheme: tls or tcp.
        host: a name or an address.
        port: its port.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> Address:
        """What an address as Dask writes it means; without a scheme, Dask's configuration decides.

        Raises:
            UsageError: it is none of those that we use.
        """
        scheme, _, place = text.rpartition("://")
        scheme = scheme or dask.config.get("distributed.comm.default-scheme")
        try:
            host, port = parse_host_port(place)
        except ValueError as error:
            raise UsageError(f"{text!r} is not a scheduler's address: {error}") from error
        if scheme not in ("tls", "tcp") or not host:
            raise UsageError(f"{text!r} is not a scheduler's address", hint="use tls://host:8786")
        return cls(scheme, host, port)

    @property
    def url(self) -> str:
        """As Dask writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_this_host(self) -> bool:
        """Whether it is on this host by what it says, whatever a name server may say."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"


def of_existing(address: Address, given: Certificates | None, *, insecure: bool) -> Any:
    """How to talk to an existing cluster: a ``distributed.Security``.

    Args:
        address: its scheduler's.
        given: our certificates; Dask's own configuration when None.
        insecure: whether the user insists on doing without TLS.

    Raises:
        UsageError: there is no TLS and the user did not insist, or its certificates are of no use.
    """
    if address.scheme == "tls":
        return _certified(given)
    if given:
        raise UsageError("certificates need TLS", hint="use tls://")
    return _plain(address, insecure=insecure)


def _plain(address: Address, *, insecure: bool) -> Any:
    if not address.is_this_host and not insecure:
        raise UsageError(
            f"{address.url} has no TLS: anyone who can reach that network can run code on the "
            "workers, and anyone who can listen to it can read what they find",
            hint="set up TLS as examples/README.md describes and use tls://, or give --insecure",
        )
    return distributed.Security()


def _certified(given: Certificates | None) -> Any:
    """What the user gave to prove who is who, on the command line or in Dask's configuration.

    Raises:
        UsageError: a part is missing or cannot be read.
    """
    options = {}
    if given:
        options = {
            "tls_ca_file": str(given.ca),
            "tls_client_cert": str(given.certificate),
            "tls_client_key": str(given.key),
        }
    security = distributed.Security(require_encryption=True, **options)
    if not (security.tls_ca_file and security.tls_client_cert):
        raise UsageError(
            "tls:// needs certificates",
            hint="give --tls-ca, --tls-cert and --tls-key, or set distributed.comm.tls in Dask's "
            "configuration; examples/README.md shows how to make them",
        )
    try:
        security.get_connection_args("client")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(options.values()) or "those of Dask's configuration"
        raise UsageError(f"the certificates cannot be used ({files}): {error}") from error
    return security


def refuse_plain_workers(addresses: Iterable[str]) -> None:
    """Make sure that what a scheduler with TLS hands out does not travel on without it.

    Args:
        addresses: those of its workers.

    Raises:
        FleetscanError: one of them has no TLS.
    """
    for address in addresses:
        if not address.startswith("tls://"):
            raise FleetscanError(
                f"the Dask worker {address} has no TLS",
                hint="start it with the cluster's certificates, as examples/README.md shows",
            )


def of_our_own(scratch: Path) -> Any:
    """Keys for a cluster of our own: without them any user of this host could run code as us.

    ``distributed.Security.temporary()`` would do, but it needs cryptography: 17 MB more on every
    host, and 110 ms at each start to import it and find an RSA key, 500 ms on a busy host.
    ``openssl req`` makes a key on a curve in 10 ms, 20 ms on the same busy host. Certificates that
    users give take another way in any case (:func:`of_existing`).

    Raises:
        FleetscanError: openssl is missing or fails; there is no cluster without keys.
    """
    certificate, key = scratch / "certificate.pem", scratch / "key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(key), "-out", str(certificate))
    argv = ["openssl", "req", "-x509", *curve, *files, "-subj", "/CN=fleetscan", "-days", "30"]
    command.run(
        "making keys for the workers",
        argv,
        seconds=_OPENSSL_SECONDS,
        package="openssl",
        surroundings=Surroundings(umask=0o077),
    )
    pair = {
        f"tls_{role}_{part}": str(path)
        for role in ("scheduler", "worker", "client")
        for part, path in (("cert", certificate), ("key", key))
    }
    return distributed.Security(tls_ca_file=str(certificate), require_encryption=True, **pair)
