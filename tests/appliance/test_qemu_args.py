from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance import qemu_args
from fleetscan.appliance.qemu_args import Accelerator, Descriptors, OpenLayer, VMOptions

FILES = Descriptors(root=11, agent=12, qmp=13, console=14, kernel=15, initrd=16, memory=17)
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
ACCELERATORS: tuple[Accelerator, ...] = ("kvm", "tcg")

Node = dict[str, Any]  # Any: values of block nodes are words, truth values and nodes

drivers = st.sampled_from(["raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi", "parallels"])
parts = st.none() | st.integers(1, 1 << 40)


def layers_of(drivers: list[str], length: int | None = None) -> list[OpenLayer]:
    return [
        OpenLayer(
            driver,
            fd_set=100 + place,
            block_device=place == len(drivers) - 1,
            start=512 * place,
            length=length,
            overlay=200 if driver == "vhdx" else None,
        )
        for place, driver in enumerate(drivers)
    ]


chains = st.builds(
    lambda overlays, bottom, length: layers_of([*overlays, bottom], length),
    st.lists(st.sampled_from(["qcow2", "vmdk"]), max_size=12),
    drivers,
    parts,
)


def argvs(accelerator: Accelerator) -> dict[str, list[str]]:
    options = VMOptions(accelerator)
    return {
        "boot": qemu_args.boot_argv(options, FILES),
        "clone": qemu_args.clone_argv(options, FILES),
        "probe": qemu_args.probe_argv(options, "/proc/self/fd/15", "/proc/self/fd/16"),
    }


ALL = [(kind, accelerator) for accelerator in ACCELERATORS for kind in argvs(accelerator)]


def option(argv: list[str], name: str) -> list[str]:
    """The values that an option was given."""
    return [value for word, value in itertools.pairwise(argv) if word == name]


def nodes(*found: Node) -> Iterator[Node]:
    """Nodes, and those that they have inside."""
    for node in found:
        yield node
        yield from nodes(*(node[name] for name in ("file", "backing") if is_node(node, name)))


def is_node(node: Node, name: str) -> bool:
    return isinstance(node.get(name), dict)


def one_layer(layer: OpenLayer) -> Node:
    (node,) = qemu_args.disk_nodes("d", [layer])
    return node


# -- Every command line ----------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "accelerator"), ALL)
def test_the_sandbox_is_on_and_nothing_is_there_by_default(
    kind: str, accelerator: Accelerator
) -> None:
    argv = argvs(accelerator)[kind]
    assert argv[0] == "qemu-system-x86_64"
    assert option(argv, "-sandbox") == [SANDBOX]
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert option(argv, "-display") == ["none"]


@pytest.mark.parametrize(("kind", "accelerator"), ALL)
def test_there_is_no_network_no_shared_folder_and_no_usb(
    kind: str, accelerator: Accelerator
) -> None:
    argv = argvs(accelerator)[kind]
    assert option(argv, "-nic") == ["none"]
    words = " ".join(argv)
    assert not re.search(r"netdev|net-|9p|virtfs|vhost|fsdev|vfio|usb-|ide-|pflash|-drive", words)


@pytest.mark.parametrize(("kind", "accelerator"), ALL)
def test_no_path_of_the_host_is_named(kind: str, accelerator: Accelerator) -> None:
    guests = option(argvs(accelerator)[kind], "-append")  # paths in there are the guest's
    words = [word for word in argvs(accelerator)[kind] if word not in guests]
    paths = re.findall(r"/[\w./-]+", " ".join(words))
    assert paths
    assert all(re.fullmatch(r"/proc/self/fd/\d+|/dev/fdset/\d+", path) for path in paths), paths


@pytest.mark.parametrize(("kind", "accelerator"), ALL)
def test_the_processor_is_a_named_model_and_the_machine_type_has_a_version(
    kind: str, accelerator: Accelerator
) -> None:
    argv = argvs(accelerator)[kind]
    assert option(argv, "-cpu") == ["Nehalem" if accelerator == "kvm" else "qemu64"]
    assert option(argv, "-machine")[0].startswith("pc-q35-6.2,")
    assert option(argv, "-accel")[0].split(",")[0] == accelerator
    assert option(argv, "-smp") == ["1"]


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_a_clone_has_the_devices_of_a_boot_in_the_same_order(accelerator: Accelerator) -> None:
    boot, clone = argvs(accelerator)["boot"], argvs(accelerator)["clone"]
    for name in ("-device", "-blockdev", "-chardev", "-serial", "-machine", "-cpu", "-m", "-accel"):
        assert option(boot, name) == option(clone, name)


@pytest.mark.parametrize("accelerator", ACCELERATORS)
def test_a_clone_maps_the_memory_privately_and_waits_for_its_state(
    accelerator: Accelerator,
) -> None:
    clone = argvs(accelerator)["clone"]
    (memory,) = option(clone, "-object")
    assert "mem-path=/proc/self/fd/17" in memory
    assert memory.endswith(",share=off")
    assert option(clone, "-incoming") == ["defer"]
    assert not {"-kernel", "-initrd", "-append"} & set(clone)


def test_a_template_is_booted_in_shared_memory() -> None:
    (memory,) = option(argvs("tcg")["boot"], "-object")
    assert memory.endswith(",share=on")


def test_a_boot_without_memory_file_has_memory_of_its_own() -> None:
    files = Descriptors(root=1, agent=2, qmp=3, console=4, kernel=5, initrd=6)
    (memory,) = option(qemu_args.boot_argv(VMOptions("tcg"), files), "-object")
    assert memory == "memory-backend-ram,id=ram,size=512M"


def test_the_root_disk_is_read_only() -> None:
    (text,) = option(argvs("tcg")["boot"], "-blockdev")
    root: Node = json.loads(text)
    assert all(node["read-only"] is True for node in nodes(root))


def test_every_descriptor_is_handed_over_and_no_other() -> None:
    assert sorted(FILES.all()) == list(range(11, 18))
    clone = Descriptors(root=11, agent=12, qmp=13, console=14, memory=17)
    assert sorted(clone.all()) == [11, 12, 13, 14, 17]


@given(st.sampled_from(ACCELERATORS), st.integers(64, 8192))
def test_memory_is_what_was_asked_for_and_the_address_space_holds_it(
    accelerator: Accelerator, mebibytes: int
) -> None:
    options = VMOptions(accelerator, mebibytes)
    argv = qemu_args.clone_argv(options, FILES)
    assert option(argv, "-m") == [f"{mebibytes}M"]
    space = qemu_args.address_space(options) >> 20
    assert mebibytes + 512 <= space <= mebibytes + 1024


def test_room_for_translated_code_is_bounded_and_counted() -> None:
    (accel,) = option(argvs("tcg")["clone"], "-accel")
    room = int(accel.removeprefix("tcg,tb-size="))
    more = qemu_args.address_space(VMOptions("tcg")) - qemu_args.address_space(VMOptions("kvm"))
    assert more == room << 20


def test_the_kernel_command_line_takes_further_words() -> None:
    assert qemu_args.kernel_command_line("rdinit=/probe").endswith(" rdinit=/probe")
    assert "panic=-1" in qemu_args.kernel_command_line().split()


# -- Block graphs ----------------------------------------------------------------------------


@given(chains)
def test_every_node_of_a_disk_is_read_only_and_stays_so(chain: list[OpenLayer]) -> None:
    for node in nodes(*qemu_args.disk_nodes("disk0", chain)):
        assert node["read-only"] is True
        assert node["auto-read-only"] is False
        assert node["discard"] == "ignore"


@given(chains)
def test_every_node_is_explicit_down_to_the_end_of_the_chain(chain: list[OpenLayer]) -> None:
    found = qemu_args.disk_nodes("disk0", chain)
    below = None
    for node, layer in zip(found, reversed(chain), strict=True):
        assert node["driver"] == layer.driver
        if layer.driver in ("qcow2", "vmdk"):
            assert node["backing"] == below  # null at the end: QEMU must not read it from the image
        below = node["node-name"]
    assert below == "disk0"


@given(chains)
def test_files_are_descriptor_sets_and_nothing_else(chain: list[OpenLayer]) -> None:
    found = {
        (node["filename"], node["driver"], node["locking"])
        for node in nodes(*qemu_args.disk_nodes("d", chain))
        if "filename" in node
    }
    files = {(layer.fd_set, layer.block_device) for layer in chain}
    files |= {(layer.overlay, False) for layer in chain if layer.overlay is not None}
    assert found == {
        (f"/dev/fdset/{number}", "host_device" if is_device else "file", "off")
        for number, is_device in files
    }


@given(drivers, st.integers(0, 1 << 40), st.integers(1, 1 << 40))
def test_a_part_of_a_file_is_read_through_a_raw_node(driver: str, start: int, length: int) -> None:
    layer = OpenLayer(driver, fd_set=10, start=start, length=length)
    (part,) = [node for node in nodes(one_layer(layer)) if "offset" in node]
    assert (part["driver"], part["offset"], part["size"]) == ("raw", start, length)
    assert part["file"]["filename"] == "/dev/fdset/10"


def test_an_overlay_lies_between_a_driver_and_its_file() -> None:
    top = one_layer(OpenLayer("vhdx", fd_set=10, overlay=11))
    assert top["driver"] == "vhdx"
    overlay = next(itertools.islice(nodes(top), 1, None))
    assert (overlay["driver"], overlay["file"]["filename"]) == ("qcow2", "/dev/fdset/11")
    assert overlay["backing"]["file"]["filename"] == "/dev/fdset/10"


@given(chains)
def test_node_names_are_unique(chain: list[OpenLayer]) -> None:
    found = nodes(*qemu_args.disk_nodes("disk3", chain))
    names = [node["node-name"] for node in found if "node-name" in node]
    assert len(set(names)) == len(names) == len(chain)
    assert names[-1] == "disk3"


def test_a_raw_image_has_no_backing_file_whatever_stands_in_it() -> None:
    assert "backing" not in one_layer(OpenLayer("raw", fd_set=10))


def test_a_key_is_named_in_the_graph_and_stands_only_in_its_object() -> None:
    node = qemu_args.encrypted(one_layer(OpenLayer("qcow2", fd_set=10)), "d-key")
    assert node["encrypt"] == {"format": "luks", "key-secret": "d-key"}
    secret = qemu_args.secret_object("d-key", b"\xff\n")
    assert (secret["qom-type"], secret["id"], secret["data"]) == ("secret", "d-key", "/wo=")


@given(st.integers(0, 255))
def test_disks_are_scsi_targets_by_their_place(index: int) -> None:
    device = qemu_args.disk_device(f"disk{index}", index, 4096)
    assert (device["driver"], device["bus"]) == ("scsi-hd", "scsi0.0")
    assert (device["scsi-id"], device["lun"]) == (index, 0)
    assert device["drive"] == device["serial"] == f"disk{index}"
    assert device["logical_block_size"] == device["physical_block_size"] == 4096
