"""Root: every path means what it means inside the tree, and none leads out of it."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetscan.appliance.guest.lookups import told
from fleetscan.appliance.guest.root import FileTooLargeError, Mount, Root

SECRET = b"of the host"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A tree with a file, beside a secret that no path inside may reach."""
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    (top / "etc/hostname").write_bytes(b"guest\n")
    (top / "etc/secret").write_bytes(b"of the guest")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_bytes(SECRET)
    with Root("r", str(top)) as tree:
        yield tree


def inside(root: Root) -> Path:
    return Path(root.top)


# -- Never out of it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname",
        "etc/hostname",
        "//etc//hostname",
        "/../etc/hostname",
        "/../../../etc/hostname",
    ],
)
def test_a_path_begins_at_the_top_of_the_tree(root: Root, path: str) -> None:
    assert root.read_bytes(path) == b"guest\n"


@pytest.mark.parametrize(
    "target", ["/etc/hostname", "/../etc/hostname", "../../../../etc/hostname"]
)
def test_links_lead_where_they_lead_in_the_guest(root: Root, target: str) -> None:
    (inside(root) / "etc/link").symlink_to(target)
    assert root.read_bytes("/etc/link") == b"guest\n"


def test_links_to_places_of_the_host_lead_nowhere(root: Root, tmp_path: Path) -> None:
    (inside(root) / "out").symlink_to(tmp_path)
    (inside(root) / "file").symlink_to(tmp_path / "secret")
    for path in ("/out", "/out/secret", "/file", "/../secret"):
        assert not root.exists(path)
        with pytest.raises(FileNotFoundError):
            root.read_bytes(path)


@pytest.mark.parametrize("target", ["self/root", "self/cwd", "1/root", "self/fd/0"])
def test_magic_links_are_not_followed(target: str) -> None:
    with Root("proc", "/proc") as proc:
        path = target if target != "1/root" else f"{os.getpid()}/root"
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            proc.open_fd(path)
        assert not proc.exists(f"{path}/etc")


def test_a_descriptor_of_a_directory_does_not_widen_the_tree(root: Root) -> None:
    (inside(root) / "etc/up").symlink_to("..")
    assert sorted(root.listdir("/etc/up/../..")) == ["etc"]


parts = st.sampled_from(
    ["..", ".", "etc", "loop", "up", "top", "abs", "deep", "", "hostname", "secret"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(parts, max_size=12).map("/".join))
def test_no_path_over_any_link_reaches_the_host(root: Root, path: str) -> None:
    top = inside(root)
    links = {"loop": "loop", "up": "..", "top": "/", "abs": "/etc/../..", "deep": "etc/../../.."}
    for name, target in links.items():
        if not (top / name).is_symlink():
            (top / name).symlink_to(target)
    try:
        assert root.read_bytes(path) in (b"guest\n", b"of the guest")
    except OSError:
        assert not root.is_file(path)


# -- What must not hold a collector up ---------------------------------------------------------


@pytest.fixture
def alarm() -> Iterator[None]:
    """Ends a test that hangs in the kernel, where no other clock of ours runs."""

    def ring(*_: object) -> None:
        raise TimeoutError("a call into the tree hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_fifo_or_socket_is_refused_at_once(root: Root) -> None:
    os.mkfifo(inside(root) / "fifo")
    here = Path.cwd()
    os.chdir(inside(root))  # a socket's address is at most 108 bytes long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    os.chdir(here)
    for name in ("fifo", "socket"):
        with pytest.raises(OSError, match=r"regular file|No such device"):
            root.read_bytes(f"/{name}")
        assert not root.is_file(f"/{name}")
        assert root.exists(f"/{name}")


@pytest.mark.usefixtures("alarm")
def test_a_device_is_refused() -> None:
    with Root("dev", "/dev") as tree, pytest.raises(OSError, match="not a regular file"):
        tree.read_bytes("/zero")


def test_a_directory_is_no_file(root: Root) -> None:
    with pytest.raises(IsADirectoryError):
        root.read_bytes("/etc")


def test_a_loop_of_links_is_an_error(root: Root) -> None:
    (inside(root) / "a").symlink_to("b")
    (inside(root) / "b").symlink_to("a")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        root.read_bytes("/a")
    assert not root.exists("/a")
    assert root.is_link("/a")


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_files_up_to_the_limit_are_read(root: Root, size: int) -> None:
    (inside(root) / "file").write_bytes(b"x" * size)
    assert len(root.read_bytes("/file", limit=100)) == size


@pytest.mark.parametrize("size", [101, 10_000])
def test_files_beyond_the_limit_are_refused(root: Root, size: int) -> None:
    (inside(root) / "file").write_bytes(b"x" * size)
    with pytest.raises(FileTooLargeError, match="larger than 100 bytes"):
        root.read_bytes("/file", limit=100)


def test_a_sparse_terabyte_costs_nothing(root: Root, tmp_path: Path) -> None:
    with (inside(root) / "huge").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(FileTooLargeError):
        root.read_bytes("/huge")
    with pytest.raises(FileTooLargeError):
        root.copy_out("/huge", str(tmp_path / "copy"), 1 << 20)


def test_copies_are_whole(root: Root, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    (inside(root) / "database").write_bytes(data)
    root.copy_out("/database", str(tmp_path / "copy"), 4 << 20)
    assert (tmp_path / "copy").read_bytes() == data


# -- What it says of entries -----------------------------------------------------------------


def test_kinds_are_told_with_links_followed(root: Root) -> None:
    (inside(root) / "dir").symlink_to("etc")
    (inside(root) / "file").symlink_to("/etc/hostname")
    (inside(root) / "gone").symlink_to("nowhere")
    assert root.is_dir("/dir")
    assert root.is_file("/file")
    assert root.is_link("/file")
    assert not root.is_link("/etc")
    assert not root.exists("/gone")
    assert root.is_link("/gone")
    assert root.readlink("/gone") == "nowhere"
    assert root.readlink("/file") == "/etc/hostname"


def test_only_a_link_has_a_target(root: Root) -> None:
    with pytest.raises(OSError, match=r".+"):
        root.readlink("/etc")


def test_a_stat_is_that_of_the_link_or_of_what_it_leads_to(root: Root) -> None:
    (inside(root) / "link").symlink_to("/etc/hostname")
    assert root.stat("/link").st_size == 6
    assert root.stat("/link", follow=False).st_size == len("/etc/hostname")


def test_a_missing_text_is_none_and_a_missing_directory_empty(root: Root) -> None:
    assert root.try_text("/etc/nothing") is None
    assert root.try_text("/etc/hostname/below") is None
    assert root.listdir("/nothing") == []
    assert root.glob("/nothing") == []


def test_text_keeps_bytes_that_are_not_utf_8(root: Root) -> None:
    (inside(root) / "latin").write_bytes(b"caf\xe9")
    assert root.read_text("/latin") == "caf\udce9"


def test_names_are_sorted_and_globbed(root: Root) -> None:
    for name in ("b.conf", "a.conf", "c.txt", "odd \udce9.conf"):
        (inside(root) / "etc" / name).touch()
    assert root.listdir("/etc") == sorted(path.name for path in (inside(root) / "etc").iterdir())
    assert root.glob("/etc/", "*.conf") == ["/etc/a.conf", "/etc/b.conf", "/etc/odd \udce9.conf"]


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_closed_root_holds_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    with Root("r", str(tmp_path)) as tree:
        tree.exists("/")
        tree.close()
    assert open_descriptors() == before


def test_calls_leave_no_descriptor_behind(root: Root) -> None:
    before = open_descriptors()
    for path in ("/etc/hostname", "/etc", "/nothing"):
        for call in (root.exists, root.is_dir, root.is_link, root.listdir, root.try_text):
            try:
                call(path)
            except OSError:
                continue
    assert open_descriptors() == before


# -- What is missing of it -------------------------------------------------------------------


def mount(path: str, error: str | None, *options: str) -> Mount:
    return Mount(path, None, error is None, options=options, error=error)


def test_what_is_not_mounted_lacks_and_only_some_of_it_belongs_on_the_disks(tmp_path: Path) -> None:
    mounts = (
        mount("/", None),
        mount("/var", "no such device on this machine", "defaults"),
        mount("/mnt", "no such device on this machine", "noauto"),
        mount("/backup", "no such device on this machine", "ro", "nofail"),
        mount("/home", "why"),
    )
    with Root("r", str(tmp_path), mounts) as tree:
        lacks = {lack.path: lack.local for lack in tree.lookups.lacks}
    assert lacks == {"/var": True, "/mnt": False, "/backup": False, "/home": True}
    assert told([lack for lack in tree.lookups.lacks if lack.local]) == (
        "not mounted: /var (no such device on this machine), /home (why)"
    )


# -- Windows ---------------------------------------------------------------------------------


def windows(top: Path, hive: str = "Windows/System32/config/SYSTEM") -> Path:
    (top / hive).parent.mkdir(parents=True)
    (top / hive).write_text("hive")
    return top


@pytest.mark.parametrize(
    ("hive", "folder"),
    [
        ("Windows/System32/config/SYSTEM", "/Windows"),
        ("WINDOWS/system32/config/software", "/WINDOWS"),
        ("WINNT/system32/CONFIG/System", "/WINNT"),
        ("Windows/System32/config/elsewhere", None),
        ("Backup/System32/config/SYSTEM", None),
    ],
)
def test_windows_is_where_its_hives_are(tmp_path: Path, hive: str, folder: str | None) -> None:
    with Root("r", str(windows(tmp_path, hive))) as tree:
        assert tree.windows == folder


def test_names_of_windows_are_found_whatever_their_case(tmp_path: Path) -> None:
    with Root("r", str(windows(tmp_path))) as tree:
        assert tree.read_text("/WINDOWS/system32/Config/system") == "hive"
        assert tree.listdir("/windows/SYSTEM32") == ["config"]
        assert tree.is_dir("windows/system32/../SYSTEM32")
        assert not tree.exists("/windows/system32/missing/SYSTEM")


def test_a_linux_with_a_windows_disk_mounted_stays_a_linux(tmp_path: Path) -> None:
    (windows(tmp_path) / "etc").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to("dash")
    with Root("r", str(tmp_path)) as tree:
        assert tree.windows is None
        assert not tree.exists("/windows")


@pytest.mark.parametrize("name", ["etc/passwd", "etc/hosts", "etc/os-release", "bin/sh.exe"])
def test_a_windows_stays_one_whatever_a_program_left_in_a_folder_etc(
    tmp_path: Path, name: str
) -> None:
    for path in (windows(tmp_path) / "etc/x", tmp_path / name):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with Root("r", str(tmp_path)) as tree:
        assert tree.windows == "/Windows"


def test_case_is_folded_inside_the_tree_alone(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    tree = tmp_path / "tree"
    tree.mkdir()
    (windows(tree) / "Out").symlink_to("../..")
    with Root("r", str(tree)) as root:
        assert not root.exists("/OUT/SECRET")
        assert not root.exists("/../SECRET")
