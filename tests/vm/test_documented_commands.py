"""Every command that the documentation shows is run, as it stands there, where its files are."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fleetscan.scanner.store.runs import Store
from tests import documentation
from tests.conftest import PROJECT
from tests.vm.commands import Workplace

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

ELSEWHERE = {
    r"openssl |for name in |export DASK|dask ": "tests/scanner/test_cluster_tls.py",
    r"python3 -m venv |(pip|pipx|\S+/pip) |export PATH": "tests/test_wheel.py",
    r"python -m fleetscan\.rules\.refresh": "tests/rules/test_rules_end_of_life.py",
}
"""Commands that another test runs."""

MENTIONS = {
    "fleetscan COMMAND --help": "fleetscan scan --help",
    "fleetscan scan --bases scan": "fleetscan scan --bases scan /srv/images",
    "fleetscan scan --registry KEY": r"fleetscan scan --registry 'HKLM\SOFTWARE\X' /srv/images",
}
"""What text mentions in part, and the whole command."""

STATUSES = {"fleetscan check": {0, 2}, "fleetscan inspect -a laptop.qcow2": {3}}
"""Exit statuses other than 0: rules fail; a volume that holds no system was opened."""

TYPED = {one.text for page in documentation.pages() for one in documentation._typed(page)}
WHERE: dict[str, str] = {}
for _one in documentation.commands():
    WHERE.setdefault(_one.text, f"{_one.page}:{_one.line}")

OURS = [
    text
    for text in WHERE
    if text.startswith(("fleetscan ", "install "))
    and (text in TYPED or not re.fullmatch(r"fleetscan( [a-z]+)+", text))
]
RUN = [one for one in OURS if "--scheduler" not in one]
"""Those that run here. Of the scan over a cluster, test_documentation.py checks the options alone;
tests/scanner/test_cluster_tls.py scans over such a cluster."""

SCRIPTS = [text for text in WHERE if text.startswith("bash ")]
MODULES = [text for text in WHERE if re.match(r"(\.venv/bin/)?python -m ", text)]
PLACEHOLDER = "20260131T020304Z-3f9a1c"


@dataclass(frozen=True)
class Stage:
    """A folder in which every file is that the documentation names.

    Attributes:
        path: the folder.
        unfinished: the run in its facts that was interrupted.
        finished: the other one.
    """

    path: Path
    unfinished: str
    finished: str

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command over facts as they were in the beginning."""
        shutil.rmtree(self.path / "facts", ignore_errors=True)
        shutil.copytree(self.path / "pristine", self.path / "facts")
        run_id = (
            self.unfinished if re.search("--(resume|publish|abandon)", command) else self.finished
        )
        command = re.sub(rf"{PLACEHOLDER}|\bRUN\b", run_id, MENTIONS.get(command, command))
        command = command.replace("/srv/", "").replace("/mnt", "tree")
        command = command.replace("-g auditors", f"-g {os.getgid()}")
        environment = {
            **os.environ,
            "FLEETSCAN_FACTS": "facts",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


def machine(folder: Path, images: Path, name: str) -> None:
    """A small machine's image with its backing file."""
    folder.mkdir(exist_ok=True)
    shutil.copy(images / "fleet" / "rpm.qcow2", folder / name)
    shutil.copy(images / "fleet" / "rpm-base.qcow2", folder / "rpm-base.qcow2")


def block(page: str, first_word: str) -> str:
    """The YAML block of a page that begins so."""
    (found,) = [
        one.text for one in documentation.blocks(page, "yaml") if one.text.startswith(first_word)
    ]
    return found


def write_pack(folder: Path) -> None:
    """The rule that the rules' documentation shows, as a pack with its cases."""
    (folder / "cases").mkdir(parents=True)
    (folder / "pack.yaml").write_text("title: Ours\ndescription: Our own rules.\n")
    rule = block("rules/README.md", "id: ").replace("id: ", "id: our-", 1)  # ids are unique
    (folder / "rules.yaml").write_text(rule)
    cases = [
        {"name": "one", "facts": {"users": [{"name": "root", "uid": 0}]}, "expect": "pass"},
        yaml.safe_load(block("rules/README.md", "- name: "))[0],
    ]
    name = yaml.safe_load(rule)["id"]
    (folder / "cases" / f"{name}.yaml").write_text(yaml.safe_dump(cases))


def write_images(folder: Path, images: Path) -> None:
    for name in ("web01.qcow2", "debian12.qcow2"):
        machine(folder, images, name)
    machine(folder / "images", images, "web01.qcow2")
    for name in ("web02.qcow2", "web03.qcow2"):
        machine(folder / "two", images, name)
    for name in ("os.img", "DISK"):
        (folder / name).symlink_to(images / "extra" / "bare-ext4.raw")
    (folder / "data.img").write_bytes(bytes(1 << 20))
    luks = images / "extra" / "luks.raw"
    command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", luks, folder / "laptop.qcow2"]
    subprocess.run([str(word) for word in command], check=True)
    (folder / "laptop.key").write_text("no key of it")
    (folder / "tree" / "etc").mkdir(parents=True)
    (folder / "tree" / "etc" / "os-release").write_text("ID=debian\nVERSION_ID=13\n")


def write_lists(folder: Path) -> None:
    for name in ("inventory.yaml", "fleet.yaml"):
        (folder / name).write_text("- id: web01\n  disks: [web01.qcow2]\n")
    (folder / "waivers.yaml").write_text(block("rules/README.md", "- rule: "))
    (folder / "site.yaml").write_text(block("rules/README.md", "deselect: "))


def wait_for_machine(facts: Path) -> None:
    """Wait until a run that is not finished has a machine that is."""
    end = time.monotonic() + 240
    while not any(facts.glob(".staging/*/machines/[0-9a-f]*-web*")):
        assert time.monotonic() < end, "no machine was finished"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stage(example_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder = tmp_path_factory.mktemp("stage")
    write_images(folder, example_images)
    write_lists(folder)
    write_pack(folder / "our-rules")
    facts = ("--facts", str(folder / "pristine"), "-P", "1")
    with Workplace() as place:
        assert place.run("scan", str(folder / "images"), *facts).returncode == 0
        command = place.start("scan", str(folder / "two"), *facts)
        wait_for_machine(folder / "pristine")
        os.killpg(command.pid, signal.SIGINT)
        _, errors = command.communicate(timeout=60)
        assert command.returncode == 130, errors
        check = ("check", "--facts", str(folder / "pristine"), "--fail-on", "none")
        assert place.run(*check).returncode == 0
        place.run("appliance", "export", str(folder / "appliance.tar.gz"))
        (folder / "FILE").hardlink_to(folder / "appliance.tar.gz")
    store = Store(folder / "pristine")
    (unfinished,) = store.unfinished()
    return Stage(folder, unfinished, store.latest().run_id)


@pytest.mark.parametrize("command", RUN, ids=WHERE.get)
def test_a_command_works_as_it_is_shown(command: str, stage: Stage) -> None:
    done = stage.run(command)
    allowed = next((known for words, known in STATUSES.items() if command.startswith(words)), {0})
    assert done.returncode in allowed, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("command", SCRIPTS, ids=WHERE.get)
def test_a_script_is_there_and_sound(command: str) -> None:
    subprocess.run(["bash", "-n", command.split()[1]], cwd=PROJECT, check=True)


@pytest.mark.parametrize("command", MODULES, ids=WHERE.get)
def test_a_module_that_is_run_is_there(command: str) -> None:
    assert importlib.util.find_spec(command.partition(" -m ")[2].split()[0])


def elsewhere(command: str) -> Iterator[str]:
    return (test for words, test in ELSEWHERE.items() if re.match(words, command))


def test_every_other_command_is_run_by_another_test() -> None:
    known = {*OURS, *SCRIPTS, *MODULES}
    mentions = {text for text in WHERE if re.fullmatch(r"fleetscan( [a-z]+)+", text)}
    left = [text for text in WHERE if text not in known | mentions]
    assert [text for text in left if not any(elsewhere(text))] == []
    assert all((PROJECT / test).exists() for test in ELSEWHERE.values())
