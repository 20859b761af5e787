"""What somebody who may write to a scanned folder, but not to its neighbours, can bring about."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.errors import FleetscanError, PreflightError, UsageError
from fleetscan.scanner import preflight
from fleetscan.scanner.disk import Disk
from fleetscan.scanner.inspect import inspect_machine
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.preflight import DiskPolicy
from fleetscan.scanner.preflight.plan import open_checked
from fleetscan.scanner.sources import Machine, SourceOptions, find_machines, listing
from fleetscan.scanner.sources.base import LeftOut
from fleetscan.scanner.sources.ids import id_of
from fleetscan.scanner.sources.machine_file import machine_disks
from fleetscan.scanner.store.staging import MemorySink


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(512))
    return path


def machines(*sources: Path, options: SourceOptions | None = None) -> dict[str, Machine]:
    found = find_machines([str(path) for path in sources], options or SourceOptions())
    assert len({machine.machine_id for machine in found}) == len(found)
    return {machine.machine_id: machine for machine in found}


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A source with an honest machine of each kind and a folder of the attacker's."""
    touch(tmp_path / "fleet" / "honest.img")
    touch(tmp_path / "fleet" / "db" / "os.img")
    (tmp_path / "fleet" / "db" / "machine.yaml").write_text("disks: [os.img]\n")
    touch(tmp_path / "fleet" / "evil" / "evil.img")
    touch(tmp_path / "secret" / "secret.img")
    return tmp_path / "fleet"


def written(fleet: Path, content: bytes | str) -> Machine:
    """What becomes of the attacker's folder with this machine.yaml; nobody else is touched."""
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    (fleet / "evil" / "machine.yaml").write_bytes(data)
    found = machines(fleet)
    assert list(found) == ["db", "evil", "honest.img"]
    assert found["db"].error is None
    assert found["honest.img"].error is None
    return found["evil"]


DEEP = "disks: " + "[" * 20_000
ALIASES = "a: &a [x.img]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGES = "a: &a {k: v}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("disks: [evil.img]\nkeys: ['all:command:touch /tmp/owned']\n", "keys"),
        ("disks: [evil.img]\nkeys: ['all:file:/etc/shadow']\n", "keys"),
        ("disks: [evil.img]\nid: honest.img\n", "id"),
        ("disks: [/dev/sda]\n", "does not lie below its folder"),
        ("disks: [../honest.img]\n", "does not lie below its folder"),
        ("disks: [x/../../honest.img]\n", "does not lie below its folder"),
        ("disks: [{path: ../db/os.img, format: raw}]\n", "does not lie below its folder"),
        ("disks: [evil.img, ./evil.img]\n", "twice"),
        ("disks: [" + "a.img," * 300 + "]\n", "256 items"),
        ("disks: [" + "a.img," * 100_000 + "]\n", "larger than 64 KiB"),
        ("disks: []\n", "at least 1 item"),
        ("disks: evil.img\n", "disks"),
        ("disks:\n  - path: a\n    fmt: raw\n", r"machine.yaml:3: disks.0.fmt"),
        ("", "machine.yaml"),
        ("[\n", "not YAML"),
        ("- a\n", "machine.yaml"),
        ('disks: ["a\\0b"]\n', "disks.0"),
        ('disks: ["\\ud800.img"]\n', "disks.0"),
        (b"disks: [\xe9.img]\n", "not UTF-8"),
        ("disks: [a.img]\n".encode("utf-16"), "not UTF-8"),
        (b"disks: [a\0.img]\n", "not YAML"),
        ("%YAML 9.9\n---\ndisks: [a.img]\n", "not YAML"),
        (DEEP, "machine.yaml:1: not YAML: nested more than 32 deep"),
        (ALIASES + "disks: *j\n", "aliases are not used here"),
        (MERGES + "disks: [evil.img]\n", "machine.yaml"),
        ("disks: &a [*a]\n", "machine.yaml:1: not YAML: aliases are not used here"),
        ("disks: [a]\ndisks: [b]\n", "machine.yaml:2: disks: stands here twice"),
    ],
)
def test_what_is_wrong_with_a_machine_yaml_is_an_error_of_its_machine(
    fleet: Path, content: bytes | str, says: str
) -> None:
    evil = written(fleet, content)
    assert says in str(evil.error)
    assert (evil.disks, evil.keys) == ((), ())
    assert [(Path(file.path).name, file.why) for file in evil.left_out] == [
        ("evil.img", "unlisted")
    ]


_WORDS = "disks: - a.img .. / {path: format: raw } ] , keys: id: x &a *a <<: !!set ? \\ud800 | %"
_PIECES = st.sampled_from([*_WORDS.split(), "disks: [", "\n", "\n  ", " ", '"', "'", "\0", "\t"])


@settings(max_examples=150, deadline=None)
@given(content=st.one_of(st.binary(max_size=80), st.lists(_PIECES, max_size=12).map("".join)))
def test_any_machine_yaml_is_disks_of_its_folder_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    (folder / "machine.yaml").write_bytes(data)
    with contextlib.suppress(FleetscanError):
        disks = machine_disks(str(folder), str(folder), ())
        assert all(os.path.realpath(disk.path).startswith(str(folder)) for disk in disks)


def test_a_tag_in_a_machine_yaml_makes_nothing(fleet: Path) -> None:
    evil = written(fleet, "disks: !!python/object/apply:os.system ['touch owned']\n")
    assert "machine.yaml:1: not YAML: could not determine a constructor" in str(evil.error)
    assert not Path("owned").exists()


def test_a_machine_yaml_that_is_no_file_never_hangs(fleet: Path) -> None:
    evil = fleet / "evil" / "machine.yaml"
    os.mkfifo(evil)
    assert "neither a regular file" in str(machines(fleet)["evil"].error)
    evil.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(evil))
        assert "neither a regular file" in str(machines(fleet)["evil"].error)
    evil.unlink()
    evil.symlink_to("/dev/zero")
    assert "outside of the source" in str(machines(fleet)["evil"].error)
    evil.unlink()
    evil.symlink_to("machine.yaml")
    assert "too many symbolic links" in str(machines(fleet)["evil"].error)


def test_a_machine_yaml_is_not_read_through_a_link_out_of_the_source(fleet: Path) -> None:
    (fleet.parent / "secret" / "list").write_text("disks: [evil.img]\n")
    (fleet / "evil" / "machine.yaml").symlink_to(fleet.parent / "secret" / "list")
    assert "outside of the source" in str(machines(fleet)["evil"].error)


def test_a_listed_disk_may_not_be_a_link_to_a_neighbour(fleet: Path) -> None:
    (fleet / "evil" / "mine.img").symlink_to(fleet / "honest.img")
    assert "outside of the source" in str(written(fleet, "disks: [mine.img]\n").error)
    (fleet / "evil" / "mine.img").unlink()
    (fleet / "evil" / "sub").symlink_to(fleet / "db")
    assert "outside of the source" in str(written(fleet, "disks: [sub/os.img]\n").error)


def test_a_listed_disk_that_is_a_folder_fails_alone(fleet: Path) -> None:
    (fleet / "evil" / "folder.img").mkdir()
    (disk,) = written(fleet, "disks: [folder.img]\n").disks
    with pytest.raises(PreflightError, match="neither a regular file"):
        preflight.examine(disk, DiskPolicy())


@pytest.mark.parametrize("target", ["secret/secret.img", "secret/../secret/nothing", "/dev/null"])
def test_a_link_out_of_the_source_is_an_error_that_says_what_to_do(
    fleet: Path, target: str
) -> None:
    (fleet / "evil" / "link.img").symlink_to(fleet.parent / target)
    evil = machines(fleet)["evil/link.img"]
    assert "outside of the source" in str(evil.error)
    assert "--allow-dir" in str(evil.error)
    assert evil.disks == ()


def test_a_link_that_is_led_elsewhere_after_the_listing_is_not_followed(fleet: Path) -> None:
    link = fleet / "evil" / "link.img"
    link.symlink_to("../honest.img")
    (fleet / "evil" / "folder").mkdir()
    touch(fleet / "evil" / "folder" / "secret.img")
    found = machines(fleet)
    link.unlink()
    link.symlink_to(fleet.parent / "secret" / "secret.img")
    (fleet / "evil" / "folder" / "secret.img").unlink()
    (fleet / "evil" / "folder").rmdir()
    (fleet / "evil" / "folder").symlink_to(fleet.parent / "secret")
    (disk,) = found["evil/folder/secret.img"].disks
    for moved in (disk, Disk(str(link), within=disk.within)):
        with pytest.raises(PreflightError, match="outside of its source"):
            preflight.examine(moved, DiskPolicy())


def test_a_folder_that_becomes_a_link_while_its_file_is_opened_is_seen(
    fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, secret = touch(fleet / "evil" / "folder" / "secret.img"), fleet.parent / "secret"
    true_open = os.open

    def swap_and_open(path: str, flags: int) -> int:
        own.unlink()
        own.parent.rmdir()
        own.parent.symlink_to(secret)
        return true_open(path, flags)

    monkeypatch.setattr(os, "open", swap_and_open)
    with pytest.raises(PreflightError, match="no longer leads to the same file"):
        open_checked(str(own))


def test_a_link_into_an_allowed_directory_is_followed(fleet: Path) -> None:
    (fleet / "evil" / "link.img").symlink_to(fleet.parent / "secret" / "secret.img")
    options = SourceOptions(allowed_directories=(str(fleet.parent / "secret"),))
    (disk,) = machines(fleet, options=options)["evil/link.img"].disks
    assert preflight.examine(disk, DiskPolicy()).layers[0].path.endswith("secret/secret.img")


def test_links_in_a_row_longer_than_anything_follows_are_errors(fleet: Path) -> None:
    for number in range(2000):
        (fleet / "evil" / f"{number:04d}.img").symlink_to(f"{number + 1:04d}.img")
    (fleet / "evil" / "list").mkdir()
    (fleet / "evil" / "list" / "machine.yaml").symlink_to("../0000.img")
    found = machines(fleet)
    assert "too many symbolic links" in str(found["evil/0000.img"].error)
    assert "too many symbolic links" in str(found["evil/list"].error)
    assert found["honest.img"].error is None
    disk = Disk(str(fleet / "evil" / "0000.img"))
    assert preflight.referred_files(disk) == ()
    with pytest.raises(PreflightError, match="too many symbolic links"):
        preflight.examine(disk, DiskPolicy())


def test_more_files_left_out_than_one_message_holds_are_all_rows() -> None:
    path = "x" * 4000
    files = tuple(LeftOut(f"{number}{path}", "unlisted", path) for number in range(9000))
    sink = MemorySink()
    machine = Machine("evil", (), "/srv", "malformed", left_out=files)
    inspect_machine(machine, ScanOptions(), sink)
    assert sink.table("left_out").num_rows == 9000


def test_names_that_are_not_utf8_stand_in_errors_that_can_be_stored(fleet: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(fleet) + b"/\xff\n\x1b"))
    folder.mkdir()
    (folder / "machine.yaml").write_text("[")
    (evil,) = (machine for name, machine in machines(fleet).items() if name.startswith("\\xff"))
    sink = MemorySink()
    inspect_machine(evil, ScanOptions(), sink)
    (row,) = sink.table("machines").to_pylist()
    assert row["machine_id"] == "\\xff\n\x1b"
    assert "not YAML" in row["error"]


def test_a_source_that_is_itself_a_link_is_scanned(fleet: Path) -> None:
    (fleet.parent / "alias").symlink_to(fleet)
    found = machines(fleet.parent / "alias")
    assert {machine.error for machine in found.values()} == {None}
    (disk,) = found["honest.img"].disks
    preflight.examine(disk, DiskPolicy())


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize(("make", "is_a"), [(make_fifo, "FIFO"), (make_socket, "socket")])
@pytest.mark.parametrize("suffix", ["img", "qcow2", "ova", "vmdk"])
def test_an_image_that_is_no_file_never_hangs(
    fleet: Path, make: Callable[[Path], None], is_a: str, suffix: str
) -> None:
    make(fleet / "evil" / f"pipe.{suffix}")
    assert is_a in str(machines(fleet)[f"evil/pipe.{suffix}"].error)


def test_a_device_in_a_scanned_folder_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "is_image_name", lambda name: name == "null")
    with os.scandir("/dev") as entries:  # only root could make one here
        (entry,) = (entry for entry in entries if entry.name == "null")
    image = listing.image_of(entry, "/dev/null", ["/dev"])
    assert image is not None
    assert "device" in str(image.error)


# -- ids -----------------------------------------------------------------------------------------


def test_what_is_found_does_not_take_an_id_that_the_user_gave(fleet: Path) -> None:
    inventory = fleet.parent / "fleet.yaml"
    inventory.write_text("- {id: evil/evil.img, disks: [secret/secret.img]}\n")
    for sources in ([fleet, inventory], [inventory, fleet]):
        found = machines(*sources)
        assert found["evil/evil.img"].source == str(inventory)
        assert found[str(fleet / "evil" / "evil.img")].disks[0].path.endswith("evil/evil.img")


def test_of_two_machines_found_under_one_id_neither_speaks_for_the_other(
    tmp_path: Path,
) -> None:
    touch(tmp_path / "a" / "web.img")
    touch(tmp_path / "b" / "web.img")
    touch(tmp_path / "b" / "db.img")
    found = machines(tmp_path / "a", tmp_path / "b")
    expected = [str(tmp_path / "a" / "web.img"), "db.img", str(tmp_path / "b" / "web.img")]
    assert list(found) == expected


def test_an_inventory_that_has_the_longer_id_too_keeps_it(tmp_path: Path) -> None:
    image = touch(tmp_path / "a" / "web.img")
    inventory = tmp_path / "fleet.yaml"
    inventory.write_text(f"- {{id: web.img, disks: [x]}}\n- {{id: {image}, disks: [y]}}\n")
    found = machines(inventory, tmp_path / "a")
    assert list(found) == ["web.img", str(image), f"{image} (2)"]


def test_ids_of_the_longest_names_can_be_stored_and_differ(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for _ in range(12):
        folder += b"/" + b"\xff" * 250
    Path(os.fsdecode(folder)).mkdir(parents=True)
    for name in (b"a.img", b"b.img"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(bytes(512))
    found = machines(tmp_path)
    assert len(found) == 2
    assert max(len(name.encode()) for name in found) <= 4096
    assert id_of("x" * 5000) != id_of("x" * 5001)


def test_two_machines_of_one_inventory_with_one_id_are_still_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- {id: a, disks: [x]}\n- {id: a, disks: [y]}\n")
    with pytest.raises(UsageError, match="twice in"):
        machines(tmp_path / "a.yaml")
