from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.build_fleet import HERE
from examples.builder.images import SETS, TREES, Image
from tests.vm.commands import Workplace

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

BUILD = (sys.executable, "-m", "examples.build_fleet")
IMAGES = [image for images in SETS.values() for image in images]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_has_what_it_is_made_of(image: Image) -> None:
    made_by_script = not image.cut_from and not image.empty_files
    assert (HERE / "fleet" / f"{image.name}.sh").is_file() == made_by_script
    assert image.tree in {"", *TREES}


@pytest.mark.parametrize("images", SETS.values(), ids=SETS.keys())
def test_what_an_image_needs_comes_before_it_in_its_set(images: tuple[Image, ...]) -> None:
    names = [image.name for image in images]
    for index, image in enumerate(images):
        assert {*image.needs, image.cut_from} - {""} <= set(names[:index])


def test_a_second_build_finds_nothing_to_do(example_images: Path) -> None:
    command = [*BUILD, "fleet", "extra", "--directory", str(example_images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_interrupted_build_leaves_no_half_image_behind(
    example_images: Path, tmp_path: Path
) -> None:
    with Workplace() as place:
        command = place.start("extra", "--directory", str(tmp_path), command=BUILD)
        place.wait_for_vm()
        os.killpg(command.pid, signal.SIGINT)
        _, errors = command.communicate(timeout=180)
        assert command.returncode == 130, errors
        assert place.leftovers() == []
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".raw", ".qcow2")]
    assert list(tmp_path.glob(".new-*")) == []
