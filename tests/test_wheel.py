"""The wheel: all of the package, under one name, beside other people's packages."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
FOLDERS = ("scanner", "appliance", "rules", "reports")
NAMESAKE = "rules"  # a distribution of somebody else's with a top-level package of this name


def run(*command: str | Path) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def tracked() -> set[str]:
    """The files of the four folders that are in the repository, cases of tables left out."""
    listed = run("git", "-C", PROJECT, "ls-files", "-z", "--", *FOLDERS).split("\0")
    return {name for name in listed if name and "/cases/" not in name.partition("tables/")[2]}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    # A clean copy: setuptools writes beside what it builds.
    run("git", "clone", "--quiet", "--no-hardlinks", PROJECT, source / "fleetscan")
    for name in (*tracked(), "pyproject.toml", "README.md", "LICENSE"):
        copy = source / "fleetscan" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((PROJECT / name).read_bytes())
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source / "fleetscan")
    (built,) = target.glob("*.whl")
    return built


def test_everything_is_in_it_and_under_one_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {f"fleetscan/{name}" for name in tracked()}


def test_it_survives_the_removal_of_a_namesake(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=True)
    pip = (tmp_path / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q")
    run(*pip, "install", "--no-deps", wheel, NAMESAKE)
    run(*pip, "uninstall", "-y", NAMESAKE)
    (packages,) = tmp_path.glob("lib/python3*/site-packages")
    for name in tracked():
        assert (packages / "fleetscan" / name).read_bytes() == (PROJECT / name).read_bytes(), name
    # What it depends on comes from this environment, its own code from that one.
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    script = (
        f"import sys; sys.path.append({ours!r})\n"
        "from fleetscan.appliance import initrd\n"
        "from fleetscan.rules.load import load_packs\n"
        "from fleetscan.scanner.cli import main\n"
        "assert 'fleetscan/appliance/guest/root.py' in initrd.agent_files()\n"
        "print(main.__code__.co_filename, len(load_packs([])))\n"
    )
    place, packs = run(tmp_path / "bin" / "python", "-I", "-c", script).split()
    assert Path(place).is_relative_to(packages)
    assert int(packs) == len(list((PROJECT / "rules" / "packs").glob("*/pack.yaml")))
