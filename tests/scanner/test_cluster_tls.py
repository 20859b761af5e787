"""Clusters with real certificates and real processes of Dask's, and those who do not belong."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dask
import pytest

from fleetscan.appliance.ground.errors import FleetscanError, UsageError
from fleetscan.scanner import cluster_tls
from fleetscan.scanner.cli import exits, run
from fleetscan.scanner.cluster import ClusterOptions, open_cluster
from fleetscan.scanner.cluster_tls import Address, Certificates
from fleetscan.scanner.fleet import scan_fleet
from fleetscan.scanner.fleet_tasks import FleetOptions
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources import Machine
from fleetscan.scanner.store.runs import Store
from tests.conftest import PROJECT
from tests.scanner import fleet_fakes

README = PROJECT / "examples" / "README.md"
LOOPBACK = "127.0.0.1"


def commands(first_words: str) -> str:
    """The block of the operations guide that begins with these words."""
    for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines and lines[0].startswith(first_words):
            return "\n".join(lines)
    raise AssertionError(f"the guide does not say how to {first_words!r}")


def make_certificates(folder: Path) -> Path:
    """An authority and its members, as the guide makes them."""
    folder.mkdir()
    script = commands("openssl req")
    subprocess.run(["sh", "-euc", script], cwd=folder, check=True, capture_output=True)
    return folder


def certificates(folder: Path, name: str = "client") -> Certificates:
    return Certificates(folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")


@dataclass(frozen=True)
class Running:
    """A scheduler and a worker, as the guide starts them."""

    port: int
    folder: Path
    processes: tuple[int, ...]

    @property
    def address(self) -> str:
        return f"tls://{LOOPBACK}:{self.port}"

    def options(self, given: Certificates | None, scheme: str = "tls") -> ClusterOptions:
        address = f"{scheme}://{LOOPBACK}:{self.port}"
        return ClusterOptions(scheduler=address, certificates=given, connect_seconds=3)


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def started(
    folder: Path, script: str, port: int, *, encrypted: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """A command of the guide's on this host and port."""
    script = script.replace("$SCHEDULER", LOOPBACK).replace("8786", str(port))
    script = f"{commands('export DASK') if encrypted else ''}\nexec {script}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "TMPDIR": str(folder),
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", script], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = make_certificates(tmp_path_factory.mktemp("cluster") / "certificates")
    port = free_port()
    with (
        started(folder, commands("dask scheduler"), port) as scheduler,
        started(folder, commands("dask worker"), port) as worker,
    ):
        found = Running(port, folder, (scheduler.pid, worker.pid))
        until = time.monotonic() + 90
        while not has_worker(found):
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.5)
        yield found


def has_worker(cluster: Running) -> bool:
    with (
        contextlib.suppress(FleetscanError),
        open_cluster(cluster.options(certificates(cluster.folder))) as opened,
    ):
        return bool(opened._client.nthreads())
    return False


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of another authority with the very same names."""
    return make_certificates(tmp_path_factory.mktemp("strangers") / "certificates")


# -- As the guide shows ----------------------------------------------------------------------


def test_a_fleet_is_scanned_over_tls_as_the_guide_sets_it_up(
    running: Running, tmp_path: Path
) -> None:
    fleet = [Machine(name, (), "test", "made up") for name in ("a", "b", "c")]
    begun = Store(tmp_path / "facts").begin([one.machine_id for one in fleet], settings={})
    options = FleetOptions(
        machine=ScanOptions(),
        cluster=running.options(certificates(running.folder)),
        inspect=fleet_fakes.inspect,
    )
    summary = scan_fleet(fleet, begun, options)
    assert (summary.scanned, summary.slots) == (3, 1)


def test_certificates_may_come_from_dasks_own_configuration(
    running: Running,
) -> None:
    given = certificates(running.folder)
    configured = {
        "distributed.comm.tls.ca-file": str(given.ca),
        "distributed.comm.tls.client.cert": str(given.certificate),
        "distributed.comm.tls.client.key": str(given.key),
    }
    with dask.config.set(configured), open_cluster(running.options(None)) as opened:
        assert opened.slots == 1


def test_members_listen_where_they_are_told_to_and_serve_no_pages(running: Running) -> None:
    listening = {port for process in running.processes for port in listeners(process)}
    assert len(listening) > 2  # the scheduler's and the nanny's ports, and one for pages each
    for port in listening - {running.port}:
        for page in ("info/main/workers.html", "status", "metrics", "json/counts.json"):
            with pytest.raises((urllib.error.URLError, OSError)):
                urllib.request.urlopen(f"http://{LOOPBACK}:{port}/{page}", timeout=5)


def listeners(process: int) -> set[int]:
    """Ports that a process listens on, all of them on loopback."""
    sockets = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(link.readlink()))
    ports = set()
    for family in ("tcp", "tcp6"):
        for line in Path("/proc/net", family).read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # 0A: TCP_LISTEN
                assert address == "0100007F", f"{process} listens on {fields[1]}"
                ports.add(int(port, 16))
    return ports


# -- Who does not belong ---------------------------------------------------------------------


@pytest.mark.parametrize("mixed", ["all of it", "its authority", "its certificate"])
def test_who_has_a_certificate_of_another_authority_is_refused(
    running: Running, strangers: Path, mixed: str
) -> None:
    ours, theirs = certificates(running.folder), certificates(strangers)
    given = {
        "all of it": theirs,
        "its authority": Certificates(theirs.ca, ours.certificate, ours.key),
        "its certificate": Certificates(ours.ca, theirs.certificate, theirs.key),
    }[mixed]
    with (
        pytest.raises(FleetscanError, match="cannot be reached"),
        open_cluster(running.options(given)),
    ):
        pass


def test_who_speaks_without_tls_is_refused(running: Running) -> None:
    with (
        pytest.raises(FleetscanError, match="cannot be reached"),
        open_cluster(running.options(None, scheme="tcp")),
    ):
        pass


def test_who_has_no_certificate_is_refused_by_the_scheduler_itself(running: Running) -> None:
    context = ssl.create_default_context(cafile=running.folder / "ca.pem")
    context.check_hostname = False
    with socket.create_connection((LOOPBACK, running.port), timeout=10) as plain:
        assert answer(context, plain) == b""


def answer(context: ssl.SSLContext, plain: socket.socket) -> bytes:
    """What the other side says first; nothing when it ends the connection instead.

    With TLS 1.3 a client learns of it when it reads, after the handshake.
    """
    try:
        with context.wrap_socket(plain) as secured:
            return secured.recv(1)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_who_has_a_certificate_is_answered(running: Running) -> None:
    given = certificates(running.folder)
    context = ssl.create_default_context(cafile=given.ca)
    context.check_hostname = False
    context.load_cert_chain(given.certificate, given.key)
    with socket.create_connection((LOOPBACK, running.port), timeout=10) as plain:
        assert answer(context, plain)


def test_a_worker_without_tls_does_not_join(running: Running) -> None:
    plain = commands("dask worker").partition(" --tls-ca-file")[0].rstrip(" \\")
    script = plain.replace("tls://", "tcp://") + " --death-timeout 4"
    with started(running.folder, script, running.port, encrypted=False) as worker:
        assert worker.wait(60) != 0
    with open_cluster(running.options(certificates(running.folder))) as opened:
        assert opened.slots == 1


def test_a_scheduler_that_is_another_than_ours_is_not_taken_for_it(
    running: Running, tmp_path: Path
) -> None:
    with open_cluster(ClusterOptions(slots=1)) as other:
        stranger = ClusterOptions(
            scheduler=other.scheduler_address,
            certificates=certificates(running.folder),
            connect_seconds=3,
        )
        with pytest.raises(FleetscanError, match="cannot be reached"), open_cluster(stranger):
            pass


def test_a_worker_without_tls_behind_a_scheduler_with_it_is_refused() -> None:
    cluster_tls.refuse_plain_workers(["tls://10.0.0.2:1234"])
    with pytest.raises(FleetscanError, match="1 has no TLS"):
        cluster_tls.refuse_plain_workers(["tls://10.0.0.2:1234", "tcp://10.0.0.3:1"])


# -- What is refused before anything is begun ------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "tcp://10.0.0.1:8786",
        "10.0.0.1:8786",
        "tcp://scheduler:8786",
        "tcp://localhost.example.org:8786",
        "tcp://127.0.0.1.example.org:8786",
        "tcp://127.1:8786",
        "tcp://0.0.0.0:8786",
        "tcp://[2001:db8::1]:8786",
        "tcp://[::ffff:10.0.0.1]:8786",
        "tcp://0177.0.0.1:8786",
    ],
)
def test_another_host_without_tls_is_bad_usage_unless_insisted_on(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scan", str(tmp_path), "--facts", str(tmp_path / "f"), "--scheduler", address]
    assert run(arguments) == exits.BAD_USAGE
    said = capsys.readouterr().err
    assert "has no TLS" in said
    assert "--insecure" in said
    assert not (tmp_path / "f").exists()
    cluster_tls.of_existing(Address.of(address), None, insecure=True)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786", "127.0.0.9:1"]
)
def test_this_host_may_do_without(address: str) -> None:
    assert Address.of(address).is_this_host
    cluster_tls.of_existing(Address.of(address), None, insecure=False)


@pytest.mark.parametrize(
    "address",
    ["", "tls://", "tls://host", "ws://host:1", "wss://host:1", "inproc://x/1/1", "tls://:1"],
)
def test_other_addresses_are_bad_usage(address: str) -> None:
    with pytest.raises(UsageError, match="is not a scheduler's address"):
        Address.of(address)


@pytest.mark.parametrize("address", ["tls://host:8786", "tls://[::1]:8786", "tcp://host:1"])
def test_an_address_is_written_as_it_was(address: str) -> None:
    assert Address.of(address).url == address


def test_tls_without_certificates_says_how_to_get_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scan", str(tmp_path), "--facts", str(tmp_path / "f")]
    arguments += ["--scheduler", "tls://10.0.0.1:8786"]
    assert run(arguments) == exits.BAD_USAGE
    assert "examples/README.md shows how" in capsys.readouterr().err
    assert run([*arguments, "--tls-ca", "ca.pem"]) == exits.BAD_USAGE
    assert "must be given together" in capsys.readouterr().err
    files = ["--tls-ca", "ca.pem", "--tls-cert", "c.pem", "--tls-key", "c.key"]
    assert run([*arguments, *files]) == exits.BAD_USAGE
    assert "c.pem" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nx\n", "\0"])
def test_certificates_that_are_none_are_bad_usage(tmp_path: Path, content: str) -> None:
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match="the certificates cannot be used"):
        cluster_tls.of_existing(Address.of("tls://x:1"), certificates(tmp_path), insecure=False)


def test_without_openssl_no_worker_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(FleetscanError, match="making keys") as caught,
        open_cluster(ClusterOptions(slots=1)),
    ):
        pass
    assert "apt-get install openssl" in caught.value.hint


@pytest.mark.parametrize("script", ["exit 1", "exit 0"])
def test_an_openssl_that_makes_nothing_starts_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    (tmp_path / "openssl").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "openssl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(FleetscanError), open_cluster(ClusterOptions(slots=1)):
        pass
