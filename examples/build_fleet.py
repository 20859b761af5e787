"""Build the example fleet: real disk images, each beside what a scan has to find in it.

Run from the project's root:
``.venv/bin/python -m examples.build_fleet [fleet|extra|huge|large]...``.

An image is made inside a VM of the appliance's kernel and tools by its script in fleet/. What is
there already and was made from the same script and packages stays as it is.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

from examples.builder import commands, genuine, million, sources, trees, vm
from examples.builder.images import SETS, TREES, Disk, Image
from fleetscan.appliance import built
from fleetscan.appliance.ground.errors import ApplianceError, FleetscanError

HERE = Path(__file__).resolve().parent
BUILDER = HERE / "builder"
DEFAULT = HERE.parent / ".fleetscan"
WORKERS = 2
"""Builds at a time; more than the VMs' one processor each would gain nothing on small hosts."""

_APPLIANCE = "appliance"  # whose tools make the images
_APPLIANCE_SECONDS = 1800
_MADE = {
    "rpm": trees.rpm,
    "windows": trees.windows,
    "genuine": genuine.windows,
    "images": sources.images,
}
Task = Callable[[], object]


def main() -> int:
    """Parse arguments, build, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sets", nargs="*", default=["fleet"], help=", ".join(SETS))
    parser.add_argument("--directory", type=Path, default=default_directory())
    options = parser.parse_args()
    if unknown := set(options.sets) - set(SETS):
        parser.error(f"no set of images is called {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        build_sets(options.sets, options.directory)
    except FleetscanError as error:
        print(f"cannot build the example fleet: {error}\n{error.hint}".rstrip(), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 0


def default_directory() -> Path:
    """Where the images are kept: FLEETSCAN_EXAMPLES_DIR, else .fleetscan in the project."""
    return Path(os.environ.get("FLEETSCAN_EXAMPLES_DIR") or DEFAULT)


def build_sets(names: Sequence[str], directory: Path) -> None:
    """Build what is missing of the sets, each in the sub-folder of its name.

    Raises:
        FleetscanError: a tool or the appliance is missing, or a build failed.
    """
    with _lock(directory), _work_directory(directory) as work:
        whole = Build(directory, work)
        for name in names:
            whole.add_set(name)
        whole.run()


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _work_directory(directory: Path) -> Iterator[Path]:
    for leftover in directory.glob(".new-*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".new-") as name:
        Path(name).chmod(0o755)  # mmdebstrap writes there under other ids
        yield Path(name)


class Build:
    """A build in order: what a task needs was added before it.

    Args:
        directory: where sets and trees are kept.
        work: where they are made, on the same filesystem.
    """

    def __init__(self, directory: Path, work: Path) -> None:
        self.directory = directory
        self.work = work
        self.begun = time.monotonic()
        self._tasks: dict[str, tuple[tuple[str, ...], Task]] = {}
        self._places: dict[str, Path] = {}

    def add_set(self, name: str) -> None:
        """Add the images of a set that are missing, and the trees that those unpack."""
        folder = self.directory / name
        self._add_appliance()
        for image in SETS[name]:
            self._places[image.name] = folder
            if _read_key(folder / image.expected) != _image_key(image):
                if image.tree:
                    self._add_tree(image.tree)
                self._add(
                    image.name,
                    (_APPLIANCE, f"tree of {image.tree}", *image.needs),
                    functools.partial(self._build_image, image, folder),
                )

    def _add_appliance(self) -> None:
        try:
            built.find()
        except ApplianceError:
            command = [sys.executable, "-m", "fleetscan.scanner.cli", "appliance", "build"]
            task = functools.partial(
                commands.run, "building the appliance", command, seconds=_APPLIANCE_SECONDS
            )
            self._add(_APPLIANCE, (), task)

    @functools.cached_property
    def _appliance(self) -> built.Appliance:
        return built.find()

    def _add_tree(self, name: str) -> None:
        target = self._tree_path(name)
        if not target.exists():
            self._add(f"tree of {name}", (), functools.partial(self._build_tree, name, target))

    def _add(self, name: str, needs: tuple[str, ...], task: Task) -> None:
        self._tasks.setdefault(name, (needs, task))

    def run(self) -> None:
        """Do all tasks, those independent of each other side by side.

        Raises:
            FleetscanError: the first that failed; the others are stopped.
        """
        futures: dict[str, concurrent.futures.Future[None]] = {}
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            try:
                # What waits for nothing goes first, so that waiting tasks hold no worker up.
                for name, (needs, task) in sorted(
                    self._tasks.items(), key=lambda item: len(item[1][0]) > 0
                ):
                    earlier = [futures[need] for need in needs if need in futures]
                    futures[name] = pool.submit(self._do, name, earlier, task)
                for future in concurrent.futures.as_completed(futures.values()):
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                commands.stop_all()
                raise

    def _do(
        self, name: str, earlier: Sequence[concurrent.futures.Future[None]], task: Task
    ) -> None:
        for future in earlier:
            future.result()
        begun = time.monotonic()
        task()
        now = time.monotonic()
        print(f"{now - self.begun:5.0f} s  {name} ({now - begun:.0f} s)", flush=True)

    def _tree_path(self, name: str) -> Path:
        return self.directory / "trees" / f"{name}-{_tree_key(name)}.tar"

    def _build_tree(self, name: str, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        partial = self.work / target.name
        suite, packages = TREES[name]
        if suite:
            trees.debian(suite, packages.split(), partial)
        else:
            _MADE[name](partial)
        for old in target.parent.glob(f"{name}-*.tar"):
            old.unlink()
        partial.rename(target)

    def _build_image(self, image: Image, folder: Path) -> None:
        work = self.work / image.name
        expected = work / image.expected
        expected.mkdir(parents=True)
        if image.cut_from:
            self._cut(image, work)
        elif image.empty_files:
            disk, tree = image.disks[0], self._tree_path(image.tree)
            million.write(work / disk.file, tree, disk.size, image.empty_files)
        else:
            self._fill(image, folder, work, expected)
        (expected / "key").write_text(_image_key(image))
        _publish(image, work, folder)

    def _cut(self, image: Image, work: Path) -> None:
        whole = _image(image.cut_from)
        source = self._places.get(whole.name, self.directory / "fleet") / whole.disks[0].file
        with source.open("rb") as stream:
            (work / image.disks[0].file).write_bytes(stream.read(image.cut_bytes))

    def _fill(self, image: Image, folder: Path, work: Path, expected: Path) -> None:
        folder.mkdir(exist_ok=True)
        for disk in image.disks:
            _create_disk(disk, folder, work)
        outputs = [vm.OutputDisk(work / disk.file, disk.format) for disk in image.disks]
        scripts = {
            "image.sh": (HERE / "fleet" / f"{image.name}.sh").read_bytes(),
            "lib.sh": (BUILDER / "lib.sh").read_bytes(),
        }
        tree = self._tree_path(image.tree) if image.tree else None
        vm.run(self._appliance, scripts, outputs, expected, tree=tree)
        for disk in image.disks:
            if disk.backing:  # from now on it lies beside its base
                _rebase(work / disk.file, disk.backing)


def _create_disk(disk: Disk, folder: Path, work: Path) -> None:
    path = work / disk.file
    path.parent.mkdir(exist_ok=True)
    command = ["qemu-img", "create", "-q", "-f", disk.format]
    if disk.backing:
        command += ["-F", "qcow2", "-b", str(folder.resolve() / disk.backing)]
    command += [str(path), *([disk.size] if disk.size else [])]
    commands.run("creating a disk", command, seconds=60)


def _rebase(path: Path, backing: str) -> None:
    command = ["qemu-img", "rebase", "-q", "-u", "-F", "qcow2", "-b", backing, str(path)]
    commands.run("naming a disk's backing file", command, seconds=60)


def _publish(image: Image, work: Path, folder: Path) -> None:
    """Move a finished image to its place; its key, which makes it count, goes last."""
    folder.mkdir(exist_ok=True)
    shutil.rmtree(folder / image.expected, ignore_errors=True)
    for disk in image.disks:
        target = folder / disk.file
        target.parent.mkdir(exist_ok=True)
        (work / disk.file).rename(target)
    if len(image.disks) > 1:
        names = "".join(f"  - {Path(disk.file).name}\n" for disk in image.disks)
        (folder / image.disks[0].file).with_name("machine.yaml").write_text(f"disks:\n{names}")
    (work / image.expected).rename(folder / image.expected)


def _image(name: str) -> Image:
    return next(image for images in SETS.values() for image in images if image.name == name)


def _read_key(expected: Path) -> str:
    try:
        return (expected / "key").read_text()
    except OSError:
        return ""


def _image_key(image: Image) -> str:
    """Content address of what decides how an image is built."""
    digest = hashlib.sha256(repr(astuple(image)).encode())
    if image.cut_from:
        digest.update(_image_key(_image(image.cut_from)).encode())
        return digest.hexdigest()[:16]
    parts = [HERE / "fleet" / f"{image.name}.sh", BUILDER / "lib.sh", BUILDER / "guest.py"]
    for path in [BUILDER / "million.py"] if image.empty_files else parts:
        digest.update(path.read_bytes())
    for need in image.needs:
        digest.update(_image_key(_image(need)).encode())
    if image.tree:
        digest.update(_tree_key(image.tree).encode())
    return digest.hexdigest()[:16]


def _tree_key(name: str) -> str:
    """Content address of what decides how a tree is built, mirrors and their changes aside."""
    suite, packages = TREES[name]
    if suite:
        recipe = repr(trees.debian_command(suite, packages.split(), "")).encode()
        return hashlib.sha256(recipe).hexdigest()[:16]
    if name == "images":
        return hashlib.sha256((BUILDER / "sources.py").read_bytes()).hexdigest()[:16]
    digest = hashlib.sha256((BUILDER / "trees.py").read_bytes())
    if name in ("windows", "genuine"):
        digest.update((BUILDER / "hives.py").read_bytes())
    if name == "genuine":
        for module in ("genuine.py", "hivelogs.py"):
            digest.update((BUILDER / module).read_bytes())
    folder = trees.WINDOWS if name == "genuine" else trees.FLEET / name
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
