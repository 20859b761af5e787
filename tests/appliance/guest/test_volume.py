"""Kinds of volume: one shape, found by being there; and how they are opened, layer on layer."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from fleetscan.appliance.guest import disks, volume, volumes
from fleetscan.appliance.guest.disks import BlockDevice
from fleetscan.appliance.guest.volume import Volume, VolumeKey, VolumeKind, load_kinds
from fleetscan.appliance.guest.volume_layers import VolumeLayers

FOLDER = Path(inspect.getfile(volumes)).parent
HERE = {path.stem for path in FOLDER.iterdir() if not path.stem.startswith("_")}


class Paired(VolumeKind):
    """Makes a volume of each device that it takes, until one is empty."""

    members: ClassVar[Collection[str]] = ("pair",)

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        for device in fresh:
            if device.size == 0:
                raise ValueError(f"{device.path} is empty")
            path = f"{device.path}+"
            self.volumes.append(
                Volume(kind="raid", device=path, name=path, members=(device.path,), active=True)
            )


class Other(Paired):
    members: ClassVar[Collection[str]] = ("other",)


class Instead(Paired):
    members: ClassVar[Collection[str]] = ()
    instead_of_partitions = True


class ListedAnew(Paired):
    """Replaces its list of volumes each time, as lvm's report does."""

    def open(self, fresh: Sequence[BlockDevice]) -> None:
        self.volumes = list(self.volumes)
        super().open(fresh)


# -- Shape -----------------------------------------------------------------------------------


def test_whatever_lies_in_the_folder_is_a_kind() -> None:
    prefix = f"{volumes.__name__}."
    assert len(HERE) > 5
    assert {kind.__module__.removeprefix(prefix).partition(".")[0] for kind in load_kinds()} == HERE
    assert len(load_kinds()) == len(HERE)


def test_kinds_are_opened_in_the_order_of_their_names() -> None:
    names = [kind.__module__ for kind in load_kinds()]
    assert names == sorted(names)


@pytest.mark.parametrize("kind", load_kinds())
def test_a_kind_has_found_nothing_at_first_and_says_what_it_takes(kind: type[VolumeKind]) -> None:
    assert kind([VolumeKey("all", b"secret")]).volumes == []
    assert bool(kind.members) is not kind.instead_of_partitions


def test_no_device_is_taken_by_two_kinds() -> None:
    taken = [member for kind in load_kinds() for member in kind.members]
    assert len(taken) == len(set(taken))


def test_no_module_of_the_guest_names_a_kind() -> None:
    """The names that systems give their arrays aside, which mount tables are read with."""
    known = {f"{volumes.__name__}.{name}" for name in HERE}
    lines = [line for path in FOLDER.parent.glob("*.py") for line in path.read_text().splitlines()]
    named = {line for line in lines if any(name in line for name in known)}
    assert {line for line in named if "mdadm_conf" not in line} == set()


def test_a_kind_that_is_added_as_a_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "volumes"
    folder.mkdir()
    (folder / "added.py").write_text(
        f"from {VolumeKind.__module__} import VolumeKind\n\n\nclass Added(VolumeKind):\n"
        "    members = ('added',)\n\n\nKIND = Added\n"
    )
    monkeypatch.setattr(volumes, "__path__", [str(folder)])
    monkeypatch.setattr(volume, "__file__", str(tmp_path / "volume.py"))
    (kind,) = load_kinds.__wrapped__()
    assert (kind.__name__, kind.members) == ("Added", ("added",))


# -- Layers ----------------------------------------------------------------------------------


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What blkid says of each device that is opened, by its path; * for all others."""
    told: dict[str, str] = {"*": "ext4"}

    def probe(devices: Sequence[BlockDevice]) -> None:
        for device in devices:
            device.probe = {"TYPE": told.get(device.path, told["*"])}

    def opened(path: str, members: tuple[str, ...] = (), *, snapshot: bool = False) -> BlockDevice:
        if told.get(path) == "gone":
            raise FileNotFoundError(2, "no such device", path)
        return BlockDevice(path, 1, members=members, snapshot=snapshot)

    monkeypatch.setattr(disks, "probe", probe)
    monkeypatch.setattr(disks, "volume", opened)
    return told


def disk(path: str, kind: str, size: int = 1) -> BlockDevice:
    return BlockDevice(path, size, disk=0, probe={"TYPE": kind})


def layers(kinds: Sequence[VolumeKind], *devices: BlockDevice) -> VolumeLayers:
    found = VolumeLayers(kinds)
    found.open(devices)
    return found


@pytest.mark.parametrize("kind", [Paired, ListedAnew])
def test_volumes_on_volumes_are_opened_once_each(
    content: dict[str, str], kind: type[VolumeKind]
) -> None:
    content["a+"] = "pair"
    found = layers([kind()], disk("a", "pair"), disk("b", "ext4"))
    assert [item.path for item in found.opened] == ["a+", "a++"]
    assert [item.name for item in found.volumes] == ["a+", "a++"]
    assert found.warnings == []


@pytest.mark.usefixtures("content")
def test_a_kind_that_takes_the_place_of_partitions_goes_first_and_once() -> None:
    kinds = [Paired(), Instead()]
    found = layers(kinds, disk("a", "ext4"), disk("b", "pair"))
    assert [item.path for item in found.opened] == ["a+", "b+", "b+"]
    assert [len(kind.volumes) for kind in kinds] == [1, 2]


def test_nesting_without_an_end_is_ended(content: dict[str, str]) -> None:
    content["*"] = "pair"
    found = layers([Paired()], disk("a", "pair"))
    assert [item.path for item in found.opened] == ["a" + "+" * count for count in range(1, 9)]
    assert found.warnings == ["volumes are nested more than 8 deep"]


@pytest.mark.usefixtures("content")
def test_a_kind_that_fails_hides_neither_its_own_volumes_nor_those_of_others() -> None:
    broken = disk("b", "pair", size=0)
    found = layers([Paired(), Other()], disk("a", "pair"), broken, disk("c", "other"))
    assert [item.path for item in found.opened] == ["a+", "c+"]
    assert found.warnings == ["volumes cannot be opened: b is empty"]


def test_a_volume_whose_device_is_gone_is_a_warning(content: dict[str, str]) -> None:
    content["a+"] = "gone"
    found = layers([Paired()], disk("a", "pair"), disk("b", "pair"))
    assert [item.path for item in found.opened] == ["b+"]
    assert [warning for warning in found.warnings if "no such device" in warning]
