"""BitLocker and dynamic disks that Windows made, through a real appliance.

What is expected was said by others: by the makers of the images in images.conf, by ldmtool(1) of
the disk groups, and by whoever named each volume's filesystem after its layout.
"""

from __future__ import annotations

import configparser
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.vm.commands import Inspected, Workplace, inspect
from tests.vm.expectations import Expected
from tests.vm.machines import checksum

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def genuine(example_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of source packages, in ``ldm`` and ``bitlk-images``."""
    folder = tmp_path_factory.mktemp("genuine")
    (archive,) = (example_images / "trees").glob("images-*.tar")
    subprocess.run(["tar", "-xSf", str(archive), "-C", str(folder)], check=True)
    return folder


def by_name(found: Inspected) -> Rows:
    return {row["name"]: row for row in found.rows("volumes")}


def with_keys(images: list[Path], *keys: str) -> tuple[Inspected, str]:
    """The machine of these disks, inspected with keys, and what the command logged."""
    words = [word for image in images for word in ("-a", str(image))]
    words += [word for key in keys for word in ("--key", key)]
    before = {image.name: checksum(image) for image in images}
    with Workplace() as place:
        done = place.run("inspect", *words, "--format", "raw", "--output", "json", "-vv")
        leftovers = place.leftovers()
    after = {image.name: checksum(image) for image in images}
    tables = json.loads(done.stdout)
    return Inspected(done.returncode, tables, done.stderr, before, after, leftovers), done.stderr


# -- BitLocker ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sealed(example_images: Path) -> tuple[Path, dict[str, str]]:
    """A BitLocker volume with files in it: the image, and its GUID, passphrase and recovery key."""
    image = example_images / "extra" / "bitlocker.raw"
    lines = Expected(image.with_name("bitlocker.raw.expected")).text("keys").splitlines()
    return image, dict(line.split() for line in lines)


@pytest.mark.parametrize("kind", ["PW", "RP"], ids=["passphrase", "recovery key"])
def test_with_its_key_a_bitlocker_volume_is_read_whole(
    kind: str, sealed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    image, keys = sealed
    (tmp_path / "key").write_text(f"{keys[kind]}\n")
    found, log = with_keys([image], f"{keys['GUID']}:file:{tmp_path / 'key'}")
    (volume,) = found.rows("volumes")
    assert (volume["kind"], volume["uuid"], volume["error"]) == ("bitlocker", keys["GUID"], None)
    expected = Expected(image.with_name("bitlocker.raw.expected"))
    (filesystem,) = [row for row in found.rows("filesystems") if row["mounted"]]
    usage = expected.usage()["/"]
    names = ("size", "used", "available")
    assert [filesystem[name] for name in names] == [getattr(usage, name) for name in names]
    described = tuple(filesystem[name] for name in ("type", "uuid", "label", "version"))
    assert [described] == expected.filesystems()
    assert keys[kind] not in log + str(found.tables)
    assert found.after == found.before


def test_of_kinds_of_bitlocker_each_is_opened_or_named(genuine: Path) -> None:
    described = configparser.ConfigParser()
    described.read(genuine / "bitlk-images" / "images.conf")
    wanted = {
        name: described[f"bitlk-{name}"]
        for name in (
            *("aes-cbc-256", "aes-cbc-elephant-128", "aes-xts-256", "aes-xts-128-4k"),
            *("togo-aes-cbc-128", "togo-aes-xts-128", "aes-xts-128-startup-key"),
            *("aes-xts-128-smart-card", "aes-xts-128-eow"),
        )
    }
    folder = genuine / "bitlk-images"
    (folder / "anaconda").write_text("anaconda\n")
    keys = [f"all:file:{folder / 'anaconda'}"]
    startup = wanted["aes-xts-128-startup-key"]
    keys.append(f"{startup['GUID']}:file:{folder / startup['SK_VMK_GUID'].upper()}.BEK")
    smart_card = wanted["aes-xts-128-smart-card"]
    (folder / "recovery").write_text(smart_card["RP"])
    keys.append(f"{smart_card['GUID']}:file:{folder / 'recovery'}")
    images = [folder / f"bitlk-{name}.img" for name in wanted]
    found, _ = with_keys(images, *keys)
    volumes = {row["uuid"]: row for row in found.rows("volumes")}
    assert set(volumes) == {section["GUID"] for section in wanted.values()}
    unfinished = volumes.pop(wanted["aes-xts-128-eow"]["GUID"])
    assert "'encrypt-on-write' cannot be activated" in unfinished["error"]
    assert {row["error"] for row in volumes.values()} == {None}
    inside = {
        volumes[section["GUID"]]["device"]: section["UUID"]
        for name, section in wanted.items()
        if name != "aes-xts-128-eow"
    }
    filesystems = {row["device"]: row["uuid"] for row in found.rows("filesystems")}
    assert {device: filesystems.get(device) for device in inside} == inside
    assert found.after == found.before


def test_a_bitlocker_volume_without_its_key_is_named(
    sealed: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    image, keys = sealed
    (tmp_path / "key").write_text("not the passphrase")
    for given, reason in (
        ([], "no key was given"),
        ([f"all:file:{tmp_path / 'key'}"], "the key given for it does not fit"),
    ):
        found, _ = with_keys([image], *given)
        (volume,) = found.rows("volumes")
        assert volume["error"] == f"encrypted (BitLocker), and {reason}"
        assert (volume["active"], volume["uuid"]) == (False, keys["GUID"])


# -- Dynamic disks -----------------------------------------------------------------------------

# As "ldmtool show volume" has them: name to GUID, layout and size in sectors; and the label.
GROUPS = {
    "2003r2": {
        "Volume1": ("6e30daae-8e42-40fb-9af0-807416c3fede", "simple", 96256, "Simple"),
        "Volume2": ("fad18ad4-5054-4dea-8fe3-ca433d5fe1d1", "spanned", 192512, "Spanned"),
        "Stripe1": ("e5396ff0-7477-4b1a-91e8-476b9b5c6fb5", "striped", 122880, "Striped"),
        "Volume3": ("1010eeb7-09e4-4a6d-9c43-6753ec9d3af2", "mirrored", 96256, "Mirrored"),
        "Raid1": ("f8528b30-cbe8-4ce0-9188-e60e39afcc72", "raid5", 192512, "Raid5"),
        "Volume4": ("782ff9fb-f2f6-465e-9f13-935a20458f00", "spanned", 69632, "Spanned2"),
    },
    "2008r2": {
        "Volume1": ("06495a8d-fbfd-11e1-8cf9-52540061f5db", "spanned", 129024, "Spanned"),
        "Volume2": ("06495a9c-fbfd-11e1-8cf9-52540061f5db", "striped", 65536, "Striped"),
        "Volume3": ("06495aab-fbfd-11e1-8cf9-52540061f5db", "mirrored", 32768, "Mirrored"),
        "Volume4": ("06495ac0-fbfd-11e1-8cf9-52540061f5db", "raid5", 65536, "Raid5"),
    },
}
OTHERS = {"2008r2": {"Volume5"}}  # on disks of several images, which were kept at several times


@pytest.fixture(scope="session", params=GROUPS)
def group(request: pytest.FixtureRequest, genuine: Path) -> tuple[str, Inspected]:
    disks = sorted((genuine / "ldm").glob(f"ldm-{request.param}-*.img"))
    return request.param, inspect(*disks)


def test_volumes_of_dynamic_disks_are_those_that_ldmtool_shows(
    group: tuple[str, Inspected],
) -> None:
    name, found = group
    rows = [row for row in found.rows("volumes") if row["name"] not in OTHERS.get(name, ())]
    described = {row["name"]: (row["uuid"], row["layout"], row["size"] // 512) for row in rows}
    assert described == {key: value[:3] for key, value in GROUPS[name].items()}
    assert {(row["kind"], row["active"], row["degraded"]) for row in rows} == {("ldm", True, False)}


def test_their_filesystems_are_read_under_the_names_that_windows_gave_them(
    group: tuple[str, Inspected],
) -> None:
    name, found = group
    volumes = by_name(found)
    rows = {row["device"]: row for row in found.rows("filesystems")}
    for volume, (*_, label) in GROUPS[name].items():
        filesystem = rows[volumes[volume]["device"]]
        assert (filesystem["type"], filesystem["label"]) == ("ntfs", label)
        assert filesystem["mounted"]
        assert filesystem["stack"] == volumes[volume]["members"]


def test_pieces_of_volumes_are_partitions_but_not_taken_for_filesystems(
    group: tuple[str, Inspected],
) -> None:
    _, found = group
    devices = {row["device"] for row in found.rows("filesystems")}
    assert not devices & {row["device"] for row in found.rows("partitions")}
    assert (found.after, found.leftovers) == (found.before, [])


def test_of_a_group_with_missing_disks_what_can_be_read_is(genuine: Path) -> None:
    kept = ("spanned-1", "striped-2", "mirrored-2", "raid5-1", "raid5-3")
    found = inspect(*(genuine / "ldm" / f"ldm-2008r2-{name}.img" for name in kept))
    volumes = by_name(found)
    for name in ("Volume3", "Volume4"):
        assert (volumes[name]["active"], volumes[name]["degraded"]) == (True, True)
    for name in ("Volume1", "Volume2"):
        assert volumes[name]["error"] == "part of it is on a missing disk"
    labels = {row["label"] for row in found.rows("filesystems") if row["mounted"]}
    assert labels == {"Mirrored", "Raid5"}
