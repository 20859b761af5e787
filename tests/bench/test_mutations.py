"""The bench that damages images: that it damages, undoes it, and sees what is wrong."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench import mutations
from tests.bench.mutating import Mutation, Region, applied, contents, ends, mutation
from tests.bench.mutation_findings import Seen, compare
from tests.vm.machines import image_of, small_system

WHOLE = Seen(
    "ok",
    None,
    None,
    rows={("/dev/sda", "users"): 2, (None, "filesystems"): 1},
    states={("/dev/sda", "pack:rule"): "fail"},
)
DAMAGE = Mutation("1 bit flipped", "first MiB")


def kinds(damaged: Seen, damage: Mutation = DAMAGE) -> list[str]:
    return [finding.kind for finding in compare(WHOLE, damaged, damage)]


def chance(number: int) -> random.Random:
    return random.Random(number)  # noqa: S311 - to be repeated


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return image_of(small_system(tmp_path / "tree"), tmp_path / "disk.raw", 8)


def test_what_lies_inside_an_image_is_found(disk: Path) -> None:
    found = {region.kind for region in contents(disk)}
    assert {"ext superblock", "ext directory", "passwd", "dpkg status", "os-release"} <= found
    (passwd,) = [region for region in contents(disk) if region.kind == "passwd"]
    content = disk.read_bytes()[passwd.offset : passwd.offset + passwd.length]
    assert content.endswith(b"/bin/bash\n")


def test_every_damage_can_be_repeated_and_is_undone(disk: Path) -> None:
    before = disk.read_bytes()
    regions = [*ends(disk), *contents(disk)]
    done = []
    for number in range(200):
        damage = mutation(chance(number), disk, regions)
        assert damage == mutation(chance(number), disk, regions)
        with applied(disk, damage):
            done.append(disk.read_bytes() != before)
        assert disk.read_bytes() == before
    assert sum(done) > 150  # a zero that is overwritten by zero is no damage


def test_a_cut_file_is_whole_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with applied(path, Mutation("cut", "last MiB", ((8, b"x"),), length=4)):
        assert path.read_bytes() == b"0123"
    assert path.read_bytes() == b"0123456789"


def test_the_same_again_is_no_finding() -> None:
    assert kinds(WHOLE) == []


def test_errors_that_are_none_of_ours_are_bugs() -> None:
    assert kinds(replace(WHOLE, outcome="failed", error_kind="KeyError")) == ["bug"]
    assert kinds(replace(WHOLE, outcome="failed", error_kind="PreflightError")) == []
    assert kinds(replace(WHOLE, outcome="failed", error_kind="ApplianceError")) == ["ended"]
    covered: dict[tuple[str | None, str], str] = {
        ("/dev/sda", "users"): "KeyError: 'x'",
        ("/dev/sda", "groups"): "IncompleteError: y",
    }
    assert kinds(replace(WHOLE, covered=covered)) == ["bug"]


def test_rows_and_systems_that_are_gone_without_a_word_are_looked_at() -> None:
    fewer = replace(WHOLE, rows={**WHOLE.rows, ("/dev/sda", "users"): 1})
    assert kinds(fewer) == ["lost"]
    assert kinds(fewer, replace(DAMAGE, kind="passwd")) == []
    assert kinds(replace(WHOLE, rows={(None, "filesystems"): 1})) == ["lost"]
    warned = replace(WHOLE, outcome="partial", error="damaged", rows={(None, "filesystems"): 0})
    assert kinds(warned) == []


def test_a_rule_that_damage_turns_into_a_pass_is_looked_at() -> None:
    assert kinds(replace(WHOLE, states={("/dev/sda", "pack:rule"): "pass"})) == ["pass"]
    assert kinds(replace(WHOLE, states={("/dev/sda", "pack:rule"): "unknown"})) == []


@pytest.mark.vm
def test_damaged_images_are_scanned_the_whole_way(disk: Path, tmp_path: Path) -> None:
    regions = (*ends(disk), *contents(disk), Region("whole", 0, disk.stat().st_size))
    one = mutations.Subject("small", (mutations.Form((disk,), (regions,)),))
    bench = mutations.Bench(tmp_path, mutations.SEED)
    try:
        bench.look_at_the_whole(one)
        bench.batch(one, range(4))
    finally:
        bench.close()
    assert one.whole[0].outcome == "ok"
    assert (one.done, one.outcomes.total()) == (4, 4)
    assert [finding for _, _, finding in one.findings if finding.certain] == []
    assert 0 < bench.worker_mib < mutations.WORKER_MIB
