"""Kernel settings, scheduled tasks and SSH keys: parsers against hostile text and real tools."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.scanner.tables.kernel_settings import parsers
from fleetscan.scanner.tables.scheduled_tasks import crontab
from fleetscan.scanner.tables.ssh_keys import keys
from tests.scanner.tables.run_case import run
from tests.strategies import guest_texts


@given(guest_texts(), guest_texts())
def test_any_text_gives_kernel_settings_with_a_name(one: str, other: str) -> None:
    text = f"{one}={other}\noptions {one} {other}\\\n{one}\n-{other}"
    for parse in (parsers.sysctl, parsers.modprobe, parsers.modules_load):
        assert all(line.name and line.number > 0 for line in parse(text))


@given(guest_texts(), guest_texts(), st.booleans())
def test_any_text_gives_tasks_or_malformed_lines(one: str, other: str, with_user: bool) -> None:
    text = f"{one} {other}\n* * * * * {one} {other}\n@daily {other}\n1 5 {one} {other}"
    malformed: list[int] = []
    list(crontab.parse(text, with_user=with_user, malformed=malformed))
    list(crontab.parse_anacron(text, malformed))
    crontab.parse_job(text)
    assert all(number > 0 for number in malformed)


@given(guest_texts(), st.binary(max_size=64))
def test_any_text_gives_keys_or_malformed_lines(text: str, blob: bytes) -> None:
    list(keys.authorized_keys(f"{text}\n{text} ssh-rsa AAAA\n", []))
    try:
        keys.public_key(b"\0\0\0\7ssh-rsa" + blob)
    except ValueError as error:
        assert "cut off" in str(error)  # noqa: PT017 - most blobs are, and some are none


@pytest.mark.parametrize(
    ("kind", "bits", "passphrase", "state"),
    [
        ("ed25519", 256, "", "plain"),
        ("ecdsa", 521, "x" * 8, "encrypted"),
        ("rsa", 1024, "", "plain"),
    ],
)
def test_host_keys_are_told_as_ssh_keygen_does(
    kind: str, bits: int, passphrase: str, state: str, tmp_path: Path
) -> None:
    path = tmp_path / f"etc/ssh/ssh_host_{kind}_key"
    path.parent.mkdir(parents=True)
    make = ["ssh-keygen", "-q", "-t", kind, "-b", str(bits), "-N", passphrase, "-f", str(path)]
    subprocess.run(make, check=True)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(path)], check=True, capture_output=True, text=True
    ).stdout.split()
    path.with_suffix(".pub").unlink()
    (row,) = run("ssh_keys", tmp_path).rows
    assert f'"bits":{shown[0]},"fingerprint":"{shown[1]}"' in row
    assert f'"private":"{state}"' in row


def test_private_key_without_its_public_half_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "etc/ssh/ssh_host_rsa_key"
    path.parent.mkdir(parents=True)
    path.write_text("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n")
    outcome = run("ssh_keys", tmp_path)
    assert outcome.rows == []
    assert outcome.error == "UnreadError: /etc/ssh/ssh_host_rsa_key: the public key is missing"


def test_file_beyond_the_limit_is_a_failure_and_the_others_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "etc/sysctl.d"
    folder.mkdir(parents=True)
    (folder / "a.conf").write_text("#" * (2 << 20))
    (folder / "b.conf").write_text("vm.swappiness = 1\n")
    outcome = run("kernel_settings", tmp_path)
    assert len(outcome.rows) == 1
    assert outcome.error == "IncompleteError: /etc/sysctl.d/a.conf: larger than 1048576 bytes"


def test_periodic_script_runs_when_its_mode_and_name_let_it(tmp_path: Path) -> None:
    folder = tmp_path / "etc/cron.daily"
    folder.mkdir(parents=True)
    (tmp_path / "etc/crontab").touch()
    for name, mode in (("tidy", 0o755), ("asleep", 0o644), ("with.dot", 0o755)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    rows = map(json.loads, run("scheduled_tasks", tmp_path).rows)
    assert [row["command"] for row in rows if row["enabled"]] == ["/etc/cron.daily/tidy"]
