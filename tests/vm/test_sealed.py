"""What a running appliance holds, and what it cannot do."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance import qemu_args
from fleetscan.appliance.confinement import identity
from fleetscan.appliance.plugging import PluggedLayer
from fleetscan.appliance.session import SessionLimits
from fleetscan.appliance.vm import ApplianceVM
from tests.vm.machines import Host, checksum, eventually, has_ended, prepared, qemus, soon

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

USERS = range(identity.FIRST, identity.FIRST + identity.COUNT)
DISK_BYTES = 1 << 20

RUNNING = ["clone", "boot"]
COMMON = {
    r"/dev/null",
    r"/memfd:fleetscan-(messages|console) \(deleted\)",
    r"socket:\[\d+\]",
    r"anon_inode:\[(eventfd|eventpoll|signalfd)\]",
    r"/\S+/root\.erofs",
    r"\S+/target\.raw",
}
ONLY = {
    "clone": {r"/memfd:fleetscan-memory \(deleted\)"},
    "boot": {r"/memfd:fleetscan-(kernel|initrd) \(deleted\)"},
}
KVM = {r"/dev/kvm", r"anon_inode:kvm-(vm|vcpu:\d+|vcpu-stats:\d+|vm-stats)"}


@pytest.fixture(scope="module")
def host() -> Host:
    return prepared()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disks") / "target.raw"
    path.write_bytes(os.urandom(DISK_BYTES))
    return path


@pytest.fixture(scope="module")
def running(host: Host, disk: Path) -> Iterator[dict[str, ApplianceVM]]:
    """A clone and a booted appliance, a disk plugged into each."""
    with contextlib.ExitStack() as stack:
        booted = ApplianceVM(host.appliance, host.options, soon(240), SessionLimits())
        machines = {
            "clone": stack.enter_context(host.clone()),
            "boot": stack.enter_context(booted),
        }
        for machine in machines.values():
            descriptor = os.open(disk, os.O_RDONLY)
            machine.plug(0, [PluggedLayer("raw", (descriptor,))], soon())
            os.close(descriptor)
        yield machines


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def opened(pid: int) -> dict[int, str]:
    """A process' descriptors and what they lead to."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them, of ourselves
            found[int(path.name)] = str(path.readlink())
    return found


def may_write(pid: int, descriptor: int) -> bool:
    (flags,) = re.findall(
        r"^flags:\s+(\d+)$", Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(), re.MULTILINE
    )
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


# -- Identity, privileges and limits ---------------------------------------------------------


@pytest.mark.parametrize("kind", RUNNING)
def test_it_is_never_root_and_has_no_capabilities(
    running: dict[str, ApplianceVM], kind: str
) -> None:
    found = status(running[kind].pid)
    user, group = set(found["Uid"].split()), set(found["Gid"].split())
    if os.geteuid() == 0:
        assert user == group
        assert int(*user) in USERS
    else:
        assert (user, group) == ({str(os.getuid())}, {str(os.getgid())})
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(found[name], 16) == 0
    assert int(found["CapBnd"], 16) == 0
    assert "0" not in found["Groups"].split()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to give")
def test_no_two_have_the_same_user(running: dict[str, ApplianceVM]) -> None:
    first, second = (status(machine.pid)["Uid"] for machine in running.values())
    assert first != second


@pytest.mark.parametrize("kind", RUNNING)
def test_it_has_namespaces_of_its_own(running: dict[str, ApplianceVM], kind: str) -> None:
    pid = running[kind].pid
    for name in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts"):
        theirs, ours = Path(f"/proc/{pid}/ns/{name}"), Path(f"/proc/self/ns/{name}")
        assert theirs.readlink() != ours.readlink(), name


@pytest.mark.parametrize("kind", RUNNING)
def test_its_root_holds_programs_and_libraries_and_is_read_only(
    running: dict[str, ApplianceVM], kind: str
) -> None:
    pid = running[kind].pid
    root = Path(f"/proc/{pid}/root")
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    known = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "start", "usr"}
    assert {path.name for path in root.iterdir()} <= known
    assert {path.name for path in (root / "etc").iterdir()} <= {"ld.so.cache"}
    kvm = {"kvm"} if running[kind].accelerator == "kvm" else set()
    assert {path.name for path in (root / "dev").iterdir()} == {"null", "urandom"} | kvm
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    writable = [line.split()[4] for line in lines if "rw" in line.split()[5].split(",")]
    assert set(writable) <= {"/dev/null", "/dev/urandom", "/dev/kvm"}


@pytest.mark.parametrize("kind", RUNNING)
def test_system_calls_are_filtered_and_no_privilege_can_be_gained(
    running: dict[str, ApplianceVM], kind: str
) -> None:
    for task in Path(f"/proc/{running[kind].pid}/task").iterdir():
        found = status(int(task.name))
        assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")


@pytest.mark.parametrize("kind", RUNNING)
def test_it_leads_a_session_and_a_group_of_its_own(
    running: dict[str, ApplianceVM], kind: str
) -> None:
    pid = running[kind].pid
    assert os.getpgid(pid) == os.getsid(pid) == pid
    assert os.getsid(pid) != os.getsid(0)


@pytest.mark.parametrize("kind", RUNNING)
def test_memory_files_and_dumps_are_limited(
    running: dict[str, ApplianceVM], host: Host, kind: str
) -> None:
    lines = Path(f"/proc/{running[kind].pid}/limits").read_text().splitlines()[1:]
    hard = {line[:25].strip(): line[46:67].strip() for line in lines}
    assert hard["Max address space"] == str(qemu_args.address_space(host.options))
    assert hard["Max file size"] == str(4 << 20)
    assert hard["Max open files"] == "1024"
    assert hard["Max core file size"] == "0"


@pytest.mark.parametrize("kind", RUNNING)
def test_the_address_space_leaves_room_for_threads(
    running: dict[str, ApplianceVM], host: Host, kind: str
) -> None:
    used = int(status(running[kind].pid)["VmPeak"].split()[0]) << 10
    threads = 64 * (8 << 20)  # as many as QEMU starts for requests to disks
    assert used + threads <= qemu_args.address_space(host.options)


@pytest.mark.parametrize("kind", RUNNING)
def test_our_environment_is_not_its_own(running: dict[str, ApplianceVM], kind: str) -> None:
    words = Path(f"/proc/{running[kind].pid}/environ").read_bytes().split(b"\0")
    names = {word.partition(b"=")[0].decode() for word in words if word}
    known = {"PATH", "LC_ALL", "MALLOC_ARENA_MAX", "PWD", "OLDPWD", "_", "SHLVL"}
    assert names <= known | {"FLEETSCAN_MARK"}


# -- Descriptors -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RUNNING)
def test_nothing_is_open_but_disks_template_and_what_leads_to_us(
    running: dict[str, ApplianceVM], host: Host, kind: str
) -> None:
    allowed = COMMON | ONLY[kind] | (KVM if host.options.accelerator == "kvm" else set())
    targets = opened(running[kind].pid)
    assert not [
        target
        for target in targets.values()
        if not any(re.fullmatch(pattern, target) for pattern in allowed)
    ]
    assert sum(target.endswith("target.raw") for target in targets.values()) >= 1
    assert sum(target.startswith("socket:") for target in targets.values()) == 2


@pytest.mark.parametrize("kind", RUNNING)
def test_disks_root_image_and_kernel_are_open_for_reading_alone(
    running: dict[str, ApplianceVM], kind: str
) -> None:
    pid = running[kind].pid
    files = {
        descriptor: target
        for descriptor, target in opened(pid).items()
        if target.startswith("/") and not target.startswith(("/memfd:", "/dev/"))
    }
    assert {Path(target).name for target in files.values()} >= {"root.erofs", "target.raw"}
    assert not [target for descriptor, target in files.items() if may_write(pid, descriptor)]


def test_no_file_of_the_host_is_mapped_for_sharing_and_writing(
    running: dict[str, ApplianceVM],
) -> None:
    for machine in running.values():
        for line in Path(f"/proc/{machine.pid}/maps").read_text().splitlines():
            words = line.split(maxsplit=5)
            if len(words) == 6 and words[1][1] == "w" and words[1][3] == "s":
                assert not words[5].startswith("/"), line


# -- The template's memory -------------------------------------------------------------------


def memory_of(machine: ApplianceVM) -> str:
    """The memory file, by way of the process that maps it."""
    (first, *_) = [
        descriptor
        for descriptor, target in opened(machine.pid).items()
        if "fleetscan-memory" in target
    ]
    return f"/proc/{machine.pid}/fd/{first}"


def test_nobody_can_write_the_memory_that_clones_map(running: dict[str, ApplianceVM]) -> None:
    path = memory_of(running["clone"])
    descriptor = os.open(path, os.O_RDWR)  # even as root, even with the right to open it
    try:
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        with pytest.raises(PermissionError):
            mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ)
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            os.posix_fallocate(descriptor, 0, 1 << 40)
        with pytest.raises(PermissionError):
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0)
    finally:
        os.close(descriptor)


def test_a_private_mapping_of_it_is_private(running: dict[str, ApplianceVM]) -> None:
    descriptor = os.open(memory_of(running["clone"]), os.O_RDONLY)
    try:
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(descriptor, 4096, mmap.MAP_PRIVATE, protection) as private:
            before = bytes(private[:])
            private[:] = bytes(byte ^ 0xFF for byte in before)
            assert os.pread(descriptor, 4096, 0) == before
    finally:
        os.close(descriptor)


def test_clones_map_what_the_template_holds_and_leave_it_so(host: Host) -> None:
    path = f"/proc/self/fd/{host.template.memory}"
    before = {name: checksum(host.place / name) for name in ("memory", "state")}
    assert checksum(path) == before["memory"]
    with host.clone() as machine:
        machine.call("warm_up", soon())  # writes memory all over
    assert checksum(path) == before["memory"]
    assert {name: checksum(host.place / name) for name in before} == before


# -- Its end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM])
def test_the_end_of_the_block_is_its_end_whatever_its_state(
    host: Host, number: signal.Signals
) -> None:
    with host.clone() as machine:
        os.kill(machine.pid, number)
    assert has_ended(machine.pid)
    assert machine.pid not in qemus()


def test_an_exception_in_the_block_is_its_end_too(host: Host) -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with host.clone() as machine:
            pids.append(machine.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert has_ended(pids[0])


def test_nothing_stays_open_in_us(host: Host) -> None:
    def descriptors() -> list[str]:
        return sorted(target for target in opened(os.getpid()).values() if "socket" not in target)

    with host.clone():
        pass
    before, sockets = descriptors(), len(opened(os.getpid()))
    for _ in range(3):
        with host.clone():
            pass
    assert descriptors() == before
    assert eventually(lambda: len(opened(os.getpid())) == sockets)
