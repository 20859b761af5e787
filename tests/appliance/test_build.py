from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from fleetscan.appliance import build, built, cache, exchange, initrd
from fleetscan.appliance.built import Appliance
from fleetscan.appliance.ground.errors import ApplianceError, CommandError

MEMBERS = ("vmlinuz", "initrd", "root.erofs", "manifest.json")


# -- What an appliance is made of ------------------------------------------------------------


def test_the_same_inputs_have_the_same_id() -> None:
    assert built.inputs_id() == built.inputs_id()
    assert len(built.inputs_id()) == 12


@pytest.mark.parametrize("name", ["customize.sh", "init.sh", "probe.sh", "packages.list"])
def test_a_change_of_any_script_or_package_makes_another_appliance(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = built.inputs_id()
    for path in built.HERE.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(built, "HERE", tmp_path)
    assert built.inputs_id() == before
    with (tmp_path / name).open("a") as stream:
        stream.write("one-more\n")
    assert built.inputs_id() != before


def test_a_change_of_a_native_part_makes_another_appliance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, sources = built.inputs_id(), initrd.native_sources()
    assert {path.name for path in sources} == {"extfs.c", "extfs.h", "marvin32.c", "walk.c"}
    for changed in sources:
        other = tmp_path / changed.name
        other.write_text("int main() {}")
        files = [other if path == changed else path for path in sources]
        monkeypatch.setattr(initrd, "native_sources", lambda files=files: files)
        assert built.inputs_id() != before, changed


def test_another_suite_makes_another_appliance(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (built.inputs_id(), built.directory())
    monkeypatch.setenv("FLEETSCAN_SUITE", "sid")
    assert built.inputs_id() != before[0]
    assert built.directory() != before[1]
    assert built.directory().name.startswith("sid-")


def test_comments_are_no_packages() -> None:
    assert {"lvm2", "xfsprogs", "python3-rpm", "linux-image-amd64"} <= set(built.packages())
    assert all(name.isascii() and " " not in name for name in built.packages())


def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLEETSCAN_CACHE", "/somewhere")
    assert cache.cache_directory() == Path("/somewhere")
    monkeypatch.delenv("FLEETSCAN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory() == tmp_path / "fleetscan"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.cache_directory() == Path("/home/someone/.cache/fleetscan")


# -- Finding one -----------------------------------------------------------------------------


@pytest.mark.usefixtures("cache")
def test_without_an_appliance_it_is_said_how_to_get_one() -> None:
    with pytest.raises(ApplianceError, match="has not been built") as caught:
        built.find()
    assert "fleetscan appliance build" in caught.value.hint


def test_an_appliance_is_found_with_its_files(small_appliance: Appliance) -> None:
    assert small_appliance.kernel.read_bytes() == b"kernel"
    assert small_appliance.initrd.read_bytes() == b"initrd"
    assert small_appliance.root.read_bytes() == b"root"
    assert small_appliance.versions == {"lvm2": "2.03"}


@pytest.mark.parametrize("name", ["vmlinuz", "initrd", "root.erofs"])
def test_an_appliance_that_lacks_a_file_is_not_used(small_appliance: Appliance, name: str) -> None:
    (small_appliance.directory / name).unlink()
    with pytest.raises(ApplianceError, match=f"lacks {name}") as caught:
        built.find()
    assert "--force" in caught.value.hint


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b"null", b"\xff", b'{"inputs": "x"}'])
def test_an_appliance_with_a_damaged_manifest_is_not_used(
    small_appliance: Appliance, manifest: bytes
) -> None:
    (small_appliance.directory / "manifest.json").write_bytes(manifest)
    with pytest.raises(ApplianceError, match="no readable manifest"):
        built.find()


# -- Export and import -----------------------------------------------------------------------


@pytest.fixture
def exported(small_appliance: Appliance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported appliance; the cache is another, empty one afterwards."""
    target = tmp_path / "fleetscan.appliance.tar.gz"
    exchange.export_to(target)
    monkeypatch.setenv("FLEETSCAN_CACHE", str(tmp_path / "other"))
    return target


def repacked(source: Path, **changes: tarfile.TarInfo | bytes | None) -> Path:
    """The archive with members replaced: by other content, by another kind, or left out."""
    target = source.with_name("changed.tar.gz")
    with tarfile.open(source) as old, tarfile.open(target, "w:gz") as new:
        for member in old.getmembers():
            change = changes.get(member.name.replace(".", "_"), member)
            if isinstance(change, bytes):
                member.size = len(change)
                new.addfile(member, io.BytesIO(change))
            elif change is member:
                new.addfile(member, old.extractfile(member))
            elif change is not None:
                new.addfile(change)
    return target


def test_what_one_host_exports_another_imports(exported: Path, small_appliance: Appliance) -> None:
    imported = exchange.import_from(exported)
    assert imported == built.find()
    assert imported.directory != small_appliance.directory
    for name in MEMBERS:
        copy, original = imported.directory / name, small_appliance.directory / name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_mode & 0o777 == 0o644
    assert imported.directory.stat().st_mode & 0o777 == 0o755


def test_an_export_leaves_no_partial_file(exported: Path) -> None:
    assert [path.name for path in exported.parent.glob("*.tar*")] == ["fleetscan.appliance.tar.gz"]


def test_an_import_replaces_what_was_there(exported: Path) -> None:
    exchange.import_from(exported)
    (built.directory() / "vmlinuz").write_bytes(b"damaged")
    exchange.import_from(exported)
    assert built.find().kernel.read_bytes() == b"kernel"


def nothing_was_kept() -> bool:
    return [path.name for path in (cache.cache_directory() / "appliance").iterdir()] == ["lock"]


@pytest.mark.parametrize("name", MEMBERS[:3])
def test_a_changed_file_is_refused(exported: Path, name: str) -> None:
    changed = repacked(exported, **{name.replace(".", "_"): b"something else"})
    with pytest.raises(ApplianceError, match="a checksum differs"):
        exchange.import_from(changed)
    assert nothing_was_kept()


def test_an_appliance_of_another_version_is_refused(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETSCAN_SUITE", "sid")
    with pytest.raises(ApplianceError, match="another version of fleetscan") as caught:
        exchange.import_from(exported)
    assert "same version" in caught.value.hint
    assert nothing_was_kept()


@pytest.mark.parametrize("name", MEMBERS)
def test_an_archive_that_lacks_a_file_is_refused(exported: Path, name: str) -> None:
    with pytest.raises(ApplianceError, match="not an exported appliance"):
        exchange.import_from(repacked(exported, **{name.replace(".", "_"): None}))
    assert nothing_was_kept()


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b"null", b"\xff"])
def test_an_archive_with_a_damaged_manifest_is_refused(exported: Path, manifest: bytes) -> None:
    with pytest.raises(ApplianceError, match="not an exported appliance"):
        exchange.import_from(repacked(exported, manifest_json=manifest))
    assert nothing_was_kept()


@pytest.mark.parametrize("length", [0, 10, 100, 200])
def test_a_cut_archive_is_refused(exported: Path, length: int) -> None:
    exported.write_bytes(exported.read_bytes()[:length])
    with pytest.raises(ApplianceError, match="not an exported appliance"):
        exchange.import_from(exported)
    assert nothing_was_kept()


def test_every_flipped_byte_is_noticed_or_harmless(exported: Path) -> None:
    whole = exported.read_bytes()
    for place in range(0, len(whole), 7):
        exported.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(ApplianceError):
            exchange.import_from(exported)
            assert built.find().root.read_bytes() == b"root"


def test_a_missing_archive_is_refused(exported: Path) -> None:
    exported.unlink()
    with pytest.raises(ApplianceError, match="not an exported appliance"):
        exchange.import_from(exported)


def test_members_that_lead_elsewhere_are_not_written(exported: Path, tmp_path: Path) -> None:
    secret, victim = tmp_path / "secret", tmp_path / "victim"
    secret.write_bytes(b"root")
    link = tarfile.TarInfo("root.erofs")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    with pytest.raises(ApplianceError):
        exchange.import_from(repacked(exported, root_erofs=link))
    for name in ("../victim", str(victim)):
        with tarfile.open(exported) as old, tarfile.open(tmp_path / "more.tar", "w") as new:
            for member in old.getmembers():
                new.addfile(member, old.extractfile(member))
            new.addfile(tarfile.TarInfo(name), io.BytesIO())
        exchange.import_from(tmp_path / "more.tar")
    assert not victim.exists()
    assert not list(tmp_path.rglob("victim"))


@pytest.mark.usefixtures("cache")
def test_there_is_nothing_to_export_without_an_appliance(tmp_path: Path) -> None:
    with pytest.raises(ApplianceError):
        exchange.export_to(tmp_path / "out.tar.gz")
    assert not (tmp_path / "out.tar.gz").exists()


# -- Building --------------------------------------------------------------------------------


def fake_bootstrap(work: Path) -> None:
    """What mmdebstrap leaves for the host, a few bytes each."""
    for name in ("vmlinuz", "root.erofs", "busybox"):
        (work / name).write_bytes(name.encode())
    with tarfile.open(work / "modules.tar", "w") as archive:
        for name in ("modules/erofs.ko", "modules/modules.order"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    (work / "versions").write_text("lvm2 2.03\npython3 3.13\n")
    (work / "release").write_text("6.12.0-1-amd64\n")


@pytest.fixture
def bootstraps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each bootstrap that was done, in a moment and without a network."""
    done: list[Path] = []

    def bootstrap(work: Path, log: object) -> None:
        time.sleep(0.05)
        fake_bootstrap(work)
        done.append(work)

    monkeypatch.setattr(build, "_bootstrap", bootstrap)
    monkeypatch.setattr(build, "_require_tools", lambda: None)
    return done


def test_a_built_appliance_is_found(bootstraps: list[Path]) -> None:
    made = build.build()
    assert made == built.find()
    assert made.kernel_release == "6.12.0-1-amd64"
    assert made.versions == {"lvm2": "2.03", "python3": "3.13"}
    assert sorted(path.name for path in made.directory.iterdir()) == sorted(MEMBERS)
    assert b"modules/erofs.ko" in made.initrd.read_bytes()


def test_it_is_built_once(bootstraps: list[Path]) -> None:
    assert build.build() == build.build()
    assert len(bootstraps) == 1


def test_it_is_built_anew_when_asked_to_or_when_damaged(bootstraps: list[Path]) -> None:
    build.build()
    build.build(force=True)
    (built.directory() / "manifest.json").write_text("{")
    build.build()
    assert len(bootstraps) == 3
    assert built.find().kernel.read_bytes() == b"vmlinuz"


def test_those_who_build_at_once_wait_for_the_one_who_does(bootstraps: list[Path]) -> None:
    found: list[Appliance] = []
    threads = [threading.Thread(target=lambda: found.append(build.build())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(bootstraps) == 1


def test_a_build_that_fails_leaves_nothing(
    bootstraps: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: Path, log: object) -> None:
        fake_bootstrap(work)
        raise CommandError("building", ["mmdebstrap"], 25)

    monkeypatch.setattr(build, "_bootstrap", fail)
    with pytest.raises(CommandError):
        build.build()
    assert nothing_was_kept()
    with pytest.raises(ApplianceError):
        built.find()


def test_missing_tools_are_named_with_their_packages(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ApplianceError, match="mmdebstrap, erofs-utils, xz-utils") as caught:
        build.build()
    assert "apt-get install mmdebstrap" in caught.value.hint


def test_a_command_that_fails_is_reported_with_its_last_words(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "for i in $(seq 100); do echo line $i; done; echo why >&2; exit 3"
    with pytest.raises(CommandError, match="why") as caught:
        build._run("testing", ["sh", "-c", script], lines.append)
    assert caught.value.returncode == 3
    assert len(lines) == 101
    assert "line 10\n" not in caught.value.stdout


def test_a_command_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_BUILD_SECONDS", 0.2)
    begun = time.monotonic()
    with pytest.raises(CommandError):
        build._run("testing", ["sleep", "60"], lambda line: None)
    assert time.monotonic() - begun < 10


def test_a_process_that_is_killed_while_it_builds_holds_nobody_up_and_leaves_nothing(
    cache: Path, bootstraps: list[Path]
) -> None:
    script = (
        "import sys, time\nfrom fleetscan.appliance import build\n"
        "build._require_tools = lambda: None\n"
        "def bootstrap(work, log): print('at it', flush=True); time.sleep(60)\n"
        "build._bootstrap = bootstrap\nbuild.build()\n"
    )
    environment = {**os.environ, "FLEETSCAN_CACHE": str(cache)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at it\n"
        process.kill()
    assert list((cache / "appliance").glob(".new-*"))
    assert build.build() == built.find()
    assert not list((cache / "appliance").glob(".new-*"))
