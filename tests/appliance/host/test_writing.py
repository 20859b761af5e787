"""Files and directories of the host: their modes, and what lies in their way."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetscan.appliance.host import writing
from tests.conftest import PROJECT

HOST = ("scanner", "appliance", "rules", "reports")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Each umask that people have, and the one that protects nothing."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def put(path: Path, content: bytes = b"content", **options: int) -> None:
    with writing.replacing(path, mode=options.get("mode")) as stream:
        stream.write(content)


@pytest.mark.usefixtures("umask")
def test_what_is_made_is_for_us_alone_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    writing.make_directory(folder)
    put(folder / "file")
    writing.new_file(folder / "new").close()
    with writing.locked(folder / "lock"):
        pass
    assert {mode(folder), mode(folder.parent)} == {0o700}
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_the_umask_is_read_without_changing_it(umask: int) -> None:
    assert writing.umask() == umask
    assert writing.umask() == umask


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(
    ("wish", "directories", "files"),
    [(0o2750, 0o2750, 0o640), (0o2770, 0o2770, 0o660), (0o2777, 0o2770, 0o660)],
)
def test_a_set_group_id_directory_shares_with_its_group_and_nobody_else(
    tmp_path: Path, wish: int, directories: int, files: int
) -> None:
    tmp_path.chmod(wish)
    folder = tmp_path / "a" / "b"
    writing.make_directory(folder)
    put(folder / "file")
    assert (mode(folder.parent), mode(folder), mode(folder / "file")) == (
        directories,
        directories,
        files,
    )


@pytest.mark.parametrize("wish", [0o755, 0o775, 0o777, 0o1777])
def test_without_that_bit_a_wide_directory_gives_nobody_anything(tmp_path: Path, wish: int) -> None:
    tmp_path.chmod(wish)
    put(tmp_path / "file")
    writing.make_directory(tmp_path / "folder")
    assert (mode(tmp_path / "file"), mode(tmp_path / "folder")) == (0o600, 0o700)


def test_a_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    writing.make_directory(tmp_path)
    assert mode(tmp_path) == 0o711


def test_something_else_in_a_directorys_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for name in ("file", "nowhere", "file/below"):
        with pytest.raises(OSError, match=name):
            writing.make_directory(tmp_path / name)
    assert not (tmp_path / "missing").exists()


def test_many_may_make_the_same_directory_at_once(tmp_path: Path) -> None:
    errors: list[OSError] = []

    def make() -> None:
        try:
            writing.make_directory(tmp_path / "a" / "b" / "c" / "d")
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert mode(tmp_path / "a" / "b" / "c" / "d") == 0o700


# -- Attacks ---------------------------------------------------------------------------------


def test_a_link_that_has_the_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    target = tmp_path / "target"
    target.symlink_to(victim)
    put(target)
    assert (victim.read_bytes(), target.read_bytes()) == (b"precious", b"content")
    assert not target.is_symlink()


@pytest.mark.parametrize("kind", ["link", "hard link", "file", "fifo"])
def test_what_was_planted_under_the_temporary_name_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    victim, planted = tmp_path / "victim", tmp_path / "guessed"
    victim.write_bytes(b"precious")
    if kind == "link":
        planted.symlink_to(victim)
    elif kind == "hard link":
        planted.hardlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(planted)
    else:
        planted.touch()
    monkeypatch.setattr(writing, "temporary_beside", lambda path: planted)
    with pytest.raises(FileExistsError):
        put(tmp_path / "target")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "target").exists()


def test_the_temporary_name_cannot_be_guessed(tmp_path: Path) -> None:
    names = {writing.temporary_beside(tmp_path / ("x" * 250)).name for _ in range(100)}
    assert len(names) == 100
    assert all(len(name) < 250 and name.startswith(".") for name in names)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="lock"), writing.locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("name", ["/dev/null", "/dev/none", "/dev/fd/1", "folder", "fifo"])
def test_devices_descriptors_pipes_and_directories_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")

    def never(path: Path, mode: int | None = None) -> None:
        raise AssertionError(f"{path} would have been made")

    monkeypatch.setattr(writing, "new_file", never)
    with pytest.raises(FileExistsError, match="not the name of a regular file"):
        put(tmp_path / name)


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    put(tmp_path / "target", b"before")

    def fail() -> None:
        with writing.replacing(tmp_path / "target") as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target").read_bytes() == b"before"


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from fleetscan.appliance.host import writing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "with writing.replacing(Path(sys.argv[1])) as stream: stream.write(bytes(1000))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "target"], capture_output=True, text=True
    )
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


# -- Nobody goes another way -----------------------------------------------------------------

_MAKERS = {
    *("write_text", "write_bytes", "mkdir", "makedirs", "touch", "mkfifo", "mknod"),
    *("mkstemp", "mkdtemp", "TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile"),
    *("symlink_to", "hardlink_to", "copyfile", "copy", "copy2", "copytree", "move"),
}
_ALLOWED = {
    "appliance/build.py": "builds in a private directory",
    "appliance/cgroup.py": "a directory and files of the kernel's",
    "appliance/confinement/identity.py": "a file of locks in /run, which only root can write",
    "appliance/confinement/syscalls.py": "names the flags in order to forbid them",
    "appliance/doctor.py": "tries by using, in private directories and files without a name",
    "appliance/exchange.py": "unpacks in a private directory",
    "appliance/placing.py": "the private directory, and each file's mode at the end",
    "appliance/template.py": "builds in a private directory",
    "scanner/store/files.py": "links that are finished files already; renames by the store",
    "reports/report_process.py": "writes to a file that is open already",
    "scanner/cli/check_and_report.py": "a private file that is printed",
    "appliance/host/child.py": "a file without a name, and one of the kernel's",
    "appliance/host/scratch.py": "private directories",
    "appliance/host/writing.py": "the one way",
}


def host_modules() -> list[Path]:
    """The modules that run on the host."""
    modules = [path for top in HOST for path in (PROJECT / top).rglob("*.py")]
    guests = (PROJECT / "appliance" / "guest", PROJECT / "scanner" / "tables")
    return [path for path in modules if not any(path.is_relative_to(top) for top in guests)]


def makes_files(call: ast.Call) -> bool:
    """Whether a call makes a file or directory, by its name or the mode that it opens with."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in ("open", "fdopen"):
        texts = [node.value for node in call.args if isinstance(node, ast.Constant)]
        return any(re.fullmatch("[wxa]b?[+]?|[wxa][+]b", str(text)) for text in texts)
    return name in _MAKERS


def test_no_module_of_the_host_makes_files_another_way() -> None:
    found = set()
    for path in host_modules():
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        created = any(isinstance(n, ast.Attribute) and n.attr == "O_CREAT" for n in ast.walk(tree))
        if created or any(makes_files(call) for call in calls):
            found.add(str(path.relative_to(PROJECT)))
    assert found <= set(_ALLOWED)
    assert set(_ALLOWED) <= found
