"""The wheel: all of the package, under one name, beside other people's packages."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from fleetscan.scanner import extras

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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the project as it is: setuptools writes beside what it builds."""
    copy = tmp_path_factory.mktemp("source") / "fleetscan"
    run("git", "clone", "--quiet", "--no-hardlinks", PROJECT, copy)
    for name in (*tracked(), "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((PROJECT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", target, source)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment in which nothing but the wheel was installed."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", wheel)
    return folder / "bin"


def content(wheel: Path) -> dict[str, int]:
    """Checksums of a wheel's files."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def test_everything_is_in_it_and_under_one_name(wheel: Path) -> None:
    names = {name for name in content(wheel) if ".dist-info/" not in name}
    short = {"fleetscan/facts/__init__.py"}  # the Python interface, by a short name
    assert names == {f"fleetscan/{name}" for name in tracked()} | short


def test_the_source_distribution_gives_the_same_wheel(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path, source)  # a wheel from the sdist
    assert len(list(tmp_path.glob("*.tar.gz"))) == 1
    (built,) = tmp_path.glob("*.whl")
    assert content(built) == content(wheel)


@pytest.mark.vm
@pytest.mark.timeout(900)
def test_an_installation_without_extras_scans(
    clean: Path, example_images: Path, tmp_path: Path
) -> None:
    installed = run(clean / "python", "-m", "pip", "list", "--format", "freeze")
    names = {line.partition("==")[0].lower() for line in installed.splitlines()}
    assert names.isdisjoint({"duckdb", "pandas", "numpy", "altair", "vl-convert-python"})
    facts = tmp_path / "facts"
    scan = (clean / "fleetscan", "scan", example_images / "fleet" / "rpm.qcow2", "--facts", facts)
    for earlier in range(2):
        summary = json.loads(run(*scan, "--output", "json"))
        assert summary["unchanged"] == earlier
        assert summary["outcomes"] == {"ok": 1, "partial": 0, "failed": 0}
    assert "ok      appliance" in run(clean / "fleetscan", "doctor")


@pytest.mark.parametrize(
    "command",
    [
        ("rules", "test"),
        ("query", "select 1", "--facts", "/nonexistent"),
        ("check", "--facts", "/nonexistent"),
        ("report", "--facts", "/nonexistent", "--html", "-"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_lacks_its_extra_says_what_to_install(
    clean: Path, command: tuple[str, ...]
) -> None:
    done = subprocess.run([clean / "fleetscan", *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "fleetscan: this command needs duckdb, which is not installed\n"
        "hint: install fleetscan with the extra check or report, or run: "
        f"{clean}/python -m pip install 'duckdb>=2.0'\n"
    )


def test_a_command_works_once_its_extra_is_installed(clean: Path) -> None:
    run(clean / "python", "-m", "pip", "install", "-q", *extras.requirements("check"))
    assert "cases passed" in run(clean / "fleetscan", "rules", "test")


@pytest.mark.parametrize("module", extras.EXTRAS)
def test_every_library_of_an_extra_has_its_advice(module: str) -> None:
    advice = extras.advice(ModuleNotFoundError(name=f"{module}.core"))
    assert advice is not None
    assert all(name in advice for name in extras.EXTRAS[module])
    assert "pip install 'duckdb>=2.0'" in advice


def test_other_modules_that_are_missing_are_bugs() -> None:
    assert extras.advice(ModuleNotFoundError(name="fleetscan.nothing")) is None


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
