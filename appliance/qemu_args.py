"""From options to QEMU's arguments and block graphs: pure functions, nothing is started here.

File descriptors stand for every file that QEMU uses: it needs no right to open a path, and no
path that an image names can reach it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Accelerator = Literal["kvm", "tcg"]
RanBy = Literal["kvm", "tcg", "none"]
"""What runs an agent: an accelerator, or no VM at all."""

MACHINE_TYPE = "pc-q35-6.2"
"""Versioned, so that the same devices come out of every QEMU build from 6.2 on."""

# Named models: a guest sees the same processor on every host. "host" would tie a saved state to
# one machine.
_CPU_MODEL: dict[str, str] = {"kvm": "Nehalem", "tcg": "qemu64"}

_KERNEL_WORDS = (
    "console=ttyS0",
    "quiet",
    "loglevel=3",
    "panic=-1",  # with -no-reboot: QEMU exits when the agent, as first process, ends
    "random.trust_cpu=on",
    "raid=noautodetect",
    "8250.nr_uarts=1",
    "cryptomgr.notests",
    "audit=0",
    # No policy is ever loaded; security modules without one cost a tenth of every file's price.
    "lsm=capability",
    "init_on_alloc=0",
    "ipv6.disable=1",
    # The VM is the boundary; inside it one process reads one machine's disks.
    "mitigations=off",
    "no_timer_check",
    "rcupdate.rcu_expedited=1",
    # Emulation translates code by its virtual address: a program that starts a second time, at
    # the same place, is not translated again.
    "norandmaps",
)

_TRANSLATION_MIB = 128
"""Room for translated code, of which a boot and a warm-up fill 116 MiB and a clone's scan 51."""

_OWN_MIB = 768
"""Address space that QEMU needs besides the guest's memory and translated code. Measured with
QEMU 7.2: 180 MiB for a clone with eight disks, 222 MiB for a boot, to which up to 64 threads for
disk requests come, 8 MiB of stack each."""

_SEALED = (
    "qemu-system-x86_64",
    *("-nodefaults", "-no-user-config", "-no-reboot", "-nic", "none", "-display", "none"),
    *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
)

_READ_ONLY: dict[str, object] = {
    "read-only": True,
    "auto-read-only": False,
    "discard": "ignore",
}
_FILE_DRIVERS = ("file", "host_device")
_WITH_BACKING = ("qcow2", "vmdk")  # null at a chain's end: QEMU must not read it from the image

ROOT_SET, CONSOLE_SET, FIRST_DISK_SET = 1, 2, 10
"""Numbers of the descriptor sets that hold the root image, the console log and the disks."""


@dataclass(frozen=True)
class VMOptions:
    """How the appliance is run.

    Attributes:
        accelerator: kvm, or tcg for software emulation.
        memory_mib: the guest's memory.
    """

    accelerator: Accelerator
    memory_mib: int = 512


@dataclass(frozen=True)
class Descriptors:
    """The open files that a VM starts with, as numbers valid in QEMU.

    Attributes:
        root: the appliance's root image, open for reading.
        agent, qmp: our ends' peers of two socket pairs.
        console: where the guest's serial console is written to.
        kernel, initrd: open for reading; None for a clone, which has them in its memory.
        memory: the file that is the guest's memory; None for memory of QEMU's own.
    """

    root: int
    agent: int
    qmp: int
    console: int
    kernel: int | None = None
    initrd: int | None = None
    memory: int | None = None

    def all(self) -> tuple[int, ...]:
        """Every descriptor, for handing them to the process."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if value is not None)


@dataclass(frozen=True)
class OpenLayer:
    """One file of a disk's backing chain.

    Attributes:
        driver: QEMU's driver for its format, as preflight decided.
        fd_set: number of the descriptor set that holds the file, open for reading.
        block_device: whether the file is a block device.
        start: where in the file the image begins, in bytes.
        length: length of the image, in bytes; None for the rest of the file.
        joined: the file is a vmdk descriptor of those that, one after another, are the image.
        overlay: number of the descriptor set that holds a qcow2 image, which the driver reads on
            top of the file.
        described: numbers of the descriptor sets that the file, a vmdk descriptor, names.
    """

    driver: str
    fd_set: int
    block_device: bool = False
    start: int = 0
    length: int | None = None
    joined: bool = False
    overlay: int | None = None
    described: tuple[int, ...] = ()


def fd_path(fd_set: int) -> str:
    """The path under which QEMU opens a descriptor set."""
    return f"/dev/fdset/{fd_set}"


def kernel_command_line(*extra: str) -> str:
    """The guest kernel's command line."""
    return " ".join((*_KERNEL_WORDS, *extra))


def boot_argv(options: VMOptions, files: Descriptors) -> list[str]:
    """QEMU's arguments for booting the appliance from its kernel.

    Target disks are not among them: they are plugged once the agent is ready. With a memory
    file the guest's memory is that file, shared, so that it can become a template.
    """
    return [
        *_SEALED,
        *_machine(options, _memory(options, files.memory, share=True)),
        *("-kernel", f"/proc/self/fd/{files.kernel}"),
        *("-initrd", f"/proc/self/fd/{files.initrd}"),
        *("-append", kernel_command_line()),
        *_devices(files),
    ]


def clone_argv(options: VMOptions, files: Descriptors) -> list[str]:
    """QEMU's arguments for a clone: the same devices, memory mapped privately, state to come."""
    return [
        *_SEALED,
        *_machine(options, _memory(options, files.memory, share=False)),
        *("-incoming", "defer"),
        *_devices(files),
    ]


def probe_argv(options: VMOptions, kernel: str, initrd: str) -> list[str]:
    """QEMU's arguments for a kernel that only says on the serial console that it runs."""
    return [
        *_SEALED,
        *_machine(options, _memory(options, None, share=False)),
        *("-kernel", kernel, "-initrd", initrd),
        *("-append", kernel_command_line("rdinit=/probe")),
        *("-serial", "stdio"),
    ]


def address_space(options: VMOptions) -> int:
    """Address space that QEMU needs with these options, in bytes."""
    translation = _TRANSLATION_MIB if options.accelerator == "tcg" else 0
    return (options.memory_mib + translation + _OWN_MIB) << 20


def _memory(options: VMOptions, file: int | None, *, share: bool) -> str:
    size = f"id=ram,size={options.memory_mib}M"
    if file is None:
        return f"memory-backend-ram,{size}"
    sharing = "on" if share else "off"
    return f"memory-backend-file,{size},mem-path=/proc/self/fd/{file},share={sharing}"


def _machine(options: VMOptions, memory: str) -> list[str]:
    machine = f"{MACHINE_TYPE},sata=off,smbus=off,usb=off,hpet=off,vmport=off"
    translation = f",tb-size={_TRANSLATION_MIB}" if options.accelerator == "tcg" else ""
    return [
        *("-machine", f"{machine},memory-backend=ram"),
        *("-accel", f"{options.accelerator}{translation}"),
        *("-object", memory),
        *("-m", f"{options.memory_mib}M"),
        *("-cpu", _CPU_MODEL[options.accelerator]),
        *("-smp", "1"),
    ]


def _devices(files: Descriptors) -> list[str]:
    (root,) = disk_nodes("root", [OpenLayer("raw", ROOT_SET)])
    return [
        *("-add-fd", f"fd={files.root},set={ROOT_SET}"),
        *("-add-fd", f"fd={files.console},set={CONSOLE_SET}"),
        *("-chardev", f"file,id=console,path={fd_path(CONSOLE_SET)},append=on"),
        *("-serial", "chardev:console"),
        *("-chardev", f"socket,id=qmp,fd={files.qmp}"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-device", "virtio-serial-pci,id=serial0"),
        *("-chardev", f"socket,id=agent,fd={files.agent}"),
        *("-device", "virtserialport,chardev=agent,name=agent,nr=1"),
        *("-device", "virtio-rng-pci"),
        *("-device", "virtio-scsi-pci,id=scsi0"),
        *("-blockdev", json.dumps(root)),
        *("-device", "virtio-blk-pci,drive=root"),
    ]


def disk_nodes(name: str, chain: Sequence[OpenLayer]) -> list[dict[str, object]]:
    """The block nodes of one disk, each explicit and as ``blockdev-add`` takes it, lowest first.

    Args:
        name: node name for the top of the chain; the others' names begin with it.
        chain: the disk's layers, top first.
    """
    names = [name, *(f"{name}-{depth}" for depth in range(1, len(chain)))]
    below = [*names[1:], None]
    nodes = [_node(*described) for described in zip(names, chain, below, strict=True)]
    return nodes[::-1]


OpenNode = tuple[str, str | None]
"""A block node: QEMU's driver, and the path of those that open a file."""

ROOT_NODES: tuple[OpenNode, ...] = (("raw", None), ("file", fd_path(ROOT_SET)))
"""The nodes that a VM starts with."""


def nodes_opened(node: dict[str, object], layer: OpenLayer) -> Iterator[OpenNode]:
    """All the nodes that there must be once a layer's node was added.

    Args:
        node: as :func:`disk_nodes` gives it.
        layer: the layer that it is for.
    """
    yield from _nodes_in(node)
    for fd_set in layer.described:
        yield "file", fd_path(fd_set)


def open_node(described: dict[str, object]) -> OpenNode:
    """A node as ``query-named-block-nodes`` describes it."""
    driver = str(described.get("drv"))
    return driver, str(described.get("file")) if driver in _FILE_DRIVERS else None


def _nodes_in(node: dict[str, object]) -> Iterator[OpenNode]:
    filename = node.get("filename")
    yield str(node["driver"]), None if filename is None else str(filename)
    for value in node.values():
        if isinstance(value, dict) and "driver" in value:
            yield from _nodes_in(value)


def encrypted(node: dict[str, object], secret: str) -> dict[str, object]:
    """A qcow2 node that is opened with the passphrase in a secret object.

    Args:
        node: the node without it.
        secret: the object's name.
    """
    return {**node, "encrypt": {"format": "luks", "key-secret": secret}}


def secret_object(name: str, key: bytes) -> dict[str, object]:
    """The arguments of ``object-add`` that hand a key over. They hold it: not for any log."""
    data = base64.b64encode(key).decode("ascii")
    return {"qom-type": "secret", "id": name, "format": "base64", "data": data}


def _node(name: str, layer: OpenLayer, below: str | None) -> dict[str, object]:
    return {
        "driver": layer.driver,
        "node-name": name,
        **_READ_ONLY,
        # A vmdk's extents are opened with what they inherit, which leaves locks on.
        **({"force-share": True} if layer.driver == "vmdk" else {}),
        **_content(layer),
        **({"backing": below} if layer.driver in _WITH_BACKING else {}),
    }


def _content(layer: OpenLayer) -> dict[str, object]:
    """Where a layer's driver finds its bytes."""
    file = _file_node(layer.fd_set, block_device=layer.block_device)
    part: dict[str, object] = {"file": file}
    if layer.length is not None:
        part |= {"offset": layer.start, "size": layer.length}
    if layer.driver == "raw":
        return part
    if layer.joined:
        described = {"driver": "vmdk", **_READ_ONLY, "force-share": True, "backing": None}
        return {"file": {**described, "file": file}}
    if layer.overlay is not None:
        top = {"driver": "qcow2", **_READ_ONLY, "file": _file_node(layer.overlay)}
        return {"file": {**top, "backing": {"driver": "raw", **_READ_ONLY, **part}}}
    return {"file": file if layer.length is None else {"driver": "raw", **_READ_ONLY, **part}}


def _file_node(fd_set: int, *, block_device: bool = False) -> dict[str, object]:
    return {
        "driver": _FILE_DRIVERS[block_device],
        "filename": fd_path(fd_set),
        "locking": "off",
        **_READ_ONLY,
    }


def disk_device(name: str, index: int, sector_size: int) -> dict[str, object]:
    """The arguments of ``device_add`` that plug a disk as the SCSI target ``index``.

    Args:
        name: the block node's name.
        index: the disk's place on the machine.
        sector_size: the logical sector size that the guest sees, in bytes.
    """
    return {
        "driver": "scsi-hd",
        "id": f"{name}-device",
        "bus": "scsi0.0",
        "scsi-id": index,
        "lun": 0,
        "drive": name,
        "serial": name,
        "logical_block_size": sector_size,
        "physical_block_size": sector_size,
    }
