"""The appliance's files are the bytes that were built, whoever wrote to them meanwhile."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance import (
    accelerator,
    build,
    built,
    exchange,
    initrd,
    template,
    verified,
)
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError
from fleetscan.appliance.qemu_args import VMOptions

STRANGER = 4711


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    verified._verified.clear()
    yield
    verified._verified.clear()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that were hashed."""
    sizes: list[int] = []
    hash_of = verified._hash

    def counting(descriptor: int) -> str:
        sizes.append(os.fstat(descriptor).st_size)
        return hash_of(descriptor)

    monkeypatch.setattr(verified, "_hash", counting)
    return sizes


def read(appliance: Appliance, path: Path) -> bytes:
    with contextlib.ExitStack() as stack:
        return os.read(appliance.opened(stack, path), 100)


def in_another_process(appliance: Appliance) -> list[int]:
    """Sizes of the files that another process hashes in order to open the root."""
    script = (
        "import contextlib, json, os\nfrom fleetscan.appliance import built, verified\nsizes = []\n"
        "hash_of = verified._hash\n"
        "verified._hash = lambda file: sizes.append(os.fstat(file).st_size) or hash_of(file)\n"
        "appliance = built.find()\n"
        "with contextlib.ExitStack() as stack: appliance.opened(stack, appliance.root)\n"
        "print(json.dumps(sizes))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(initrd.PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    sizes: list[int] = json.loads(done.stdout)
    return sizes


def test_a_file_is_hashed_once_and_again_when_it_changed(
    small_appliance: Appliance, hashed: list[int]
) -> None:
    for _ in range(3):
        assert read(small_appliance, small_appliance.root) == b"root"
    assert hashed == [4]
    os.utime(small_appliance.root)
    assert read(small_appliance, small_appliance.root) == b"root"
    assert hashed == [4, 4]


def test_what_one_process_hashed_another_need_not(small_appliance: Appliance) -> None:
    assert in_another_process(small_appliance) == [4]
    assert in_another_process(small_appliance) == []
    os.utime(small_appliance.root)
    assert in_another_process(small_appliance) == [4]


@pytest.mark.parametrize("restored", ["nothing", "times", "a copy in its place"])
def test_a_changed_file_is_refused_whatever_was_set_back(
    small_appliance: Appliance, restored: str
) -> None:
    root = small_appliance.root
    read(small_appliance, root)
    before = root.stat()
    if restored == "a copy in its place":
        shutil.copy2(root, root.with_name("copy"))
        root.with_name("copy").write_bytes(b"evil")
        root.with_name("copy").replace(root)
    else:
        root.write_bytes(b"evil")
    if restored != "nothing":
        os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ApplianceError, match="damaged: its checksum"):
        read(small_appliance, root)


def test_a_file_that_is_swapped_while_it_is_hashed_is_not_the_one_that_is_used(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, hash_of = small_appliance.root, verified._hash

    def swapping(descriptor: int) -> str:
        root.rename(root.with_name("old"))
        root.write_bytes(b"evil")
        return hash_of(descriptor)

    monkeypatch.setattr(verified, "_hash", swapping)
    with contextlib.suppress(ApplianceError):
        assert read(small_appliance, root) == b"root"
    monkeypatch.setattr(verified, "_hash", hash_of)
    with pytest.raises(ApplianceError):
        read(small_appliance, root)


def test_a_file_that_is_written_while_it_is_hashed_is_refused(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_of = verified._hash

    def writing(descriptor: int) -> str:
        digest = hash_of(descriptor)
        small_appliance.root.write_bytes(b"evil")
        return digest

    monkeypatch.setattr(verified, "_hash", writing)
    with pytest.raises(ApplianceError):
        read(small_appliance, small_appliance.root)


@pytest.mark.parametrize("note", [b"", b"[", b"[]", b"{}", b'[[1, "x"]]', b"\xff", b'[[[1], "x"]]'])
def test_a_note_that_says_nothing_costs_a_hash(
    small_appliance: Appliance, hashed: list[int], note: bytes
) -> None:
    (small_appliance.directory / verified.NOTE).write_bytes(note)
    assert read(small_appliance, small_appliance.root) == b"root"
    assert hashed == [4]


def test_a_note_that_others_could_have_written_is_not_believed(small_appliance: Appliance) -> None:
    root = small_appliance.root
    root.write_bytes(b"evil")
    says = [[verified.identity(root.stat()), small_appliance.sha256["root.erofs"]]]
    note = small_appliance.directory / verified.NOTE
    note.write_text(json.dumps(says))
    note.chmod(0o666)
    with pytest.raises(ApplianceError, match="damaged"):
        read(small_appliance, root)


def test_a_content_address_that_is_not_that_of_the_files_is_refused(
    small_appliance: Appliance,
) -> None:
    path = small_appliance.directory / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"content": "0" * 12}))
    with pytest.raises(ApplianceError, match="content address"):
        built.find()


# -- A cache that others could have written ------------------------------------------------------


@pytest.mark.parametrize(
    "below",
    [".", "appliance", "appliance/*", "appliance/*/manifest.json", "appliance/*/root.erofs"],
)
@pytest.mark.parametrize("how", ["everybody may write it", "it belongs to another"])
def test_an_appliance_that_others_could_have_written_is_refused(
    small_appliance: Appliance,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    below: str,
    how: str,
) -> None:
    (place,) = cache.glob(below) if below != "." else [cache]
    if how == "everybody may write it":
        place.chmod(place.stat().st_mode | 0o002)
    elif os.geteuid() == 0:
        os.chown(place, STRANGER, STRANGER)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(ApplianceError, match="the cache is not used") as caught:
        read(built.find(), small_appliance.root)
    assert "FLEETSCAN_CACHE" in caught.value.hint


@pytest.mark.usefixtures("small_appliance")
def test_nothing_is_built_or_imported_into_such_a_cache(cache: Path, tmp_path: Path) -> None:
    exchange.export_to(tmp_path / "fleetscan.appliance.tar.gz")
    cache.chmod(0o777)
    with pytest.raises(ApplianceError, match="the cache is not used"):
        build.build(force=True)
    with pytest.raises(ApplianceError, match="the cache is not used"):
        exchange.import_from(tmp_path / "fleetscan.appliance.tar.gz")


def test_a_finding_that_others_could_have_written_is_found_out_anew(
    small_appliance: Appliance, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(accelerator, "KVM", str(tmp_path / "kvm"))
    monkeypatch.setattr(accelerator, "qemu_build", lambda: "qemu")
    monkeypatch.setattr(accelerator, "probe", lambda *_: accelerator.Probe(works=False, seconds=0))
    assert accelerator.choose(small_appliance) == "tcg"
    finding = cache / "accelerator.json"
    assert finding.stat().st_mode & 0o777 == 0o600
    finding.write_text(finding.read_text().replace("false", "true"))
    assert accelerator.choose(small_appliance) == "kvm"  # ours: believed
    finding.chmod(0o666)
    assert accelerator.choose(small_appliance) == "tcg"
    assert finding.stat().st_mode & 0o777 == 0o600


def test_a_template_is_made_of_verified_files_alone(
    small_appliance: Appliance, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = VMOptions("tcg", memory_mib=4)
    monkeypatch.setattr(accelerator, "qemu_build", lambda: "qemu")
    read(small_appliance, small_appliance.root)
    status = small_appliance.root.stat()
    small_appliance.root.write_bytes(b"evil")
    found = verified.identity(small_appliance.root.stat())
    verified._verified[found] = hashlib.sha256(b"root").hexdigest()  # as if nothing had changed
    assert status.st_size == 4
    with pytest.raises(ApplianceError, match=r"root\.erofs is damaged"):
        template.prepare(small_appliance, options)
    template._failures.clear()


# -- Export ----------------------------------------------------------------------------------


def test_a_link_planted_beside_an_export_is_not_followed(
    small_appliance: Appliance, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    for name in ("fleetscan.appliance.tar.gz.partial", "fleetscan.appliance.tar.gz"):
        (shared / name).symlink_to(victim)
    exchange.export_to(shared / "fleetscan.appliance.tar.gz")
    assert victim.read_bytes() == b"precious"
    exported = shared / "fleetscan.appliance.tar.gz"
    assert not exported.is_symlink()
    assert exported.stat().st_mode & 0o777 == 0o600
    assert exchange.import_from(exported).sha256 == small_appliance.sha256


@pytest.mark.parametrize("target", ["missing/appliance.tar.gz", "folder"])
def test_an_export_that_cannot_be_written_is_a_clear_error(
    small_appliance: Appliance, tmp_path: Path, target: str
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ApplianceError, match="cannot be written") as caught:
        exchange.export_to(tmp_path / target)
    assert caught.value.hint
    assert small_appliance.root.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["folder"]


def test_a_damaged_appliance_is_not_exported(small_appliance: Appliance, tmp_path: Path) -> None:
    small_appliance.root.write_bytes(b"evil")
    with pytest.raises(ApplianceError, match="damaged"):
        exchange.export_to(tmp_path / "out.tar.gz")
    assert not (tmp_path / "out.tar.gz").exists()
