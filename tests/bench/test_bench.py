from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetscan.scanner.store.views import connect
from tests.bench import agreement, inspector, invented, memory, recorded, scale
from tests.bench.agreement import Difference, Explanation
from tests.bench.figures import Spread
from tests.bench.findings import Findings
from tests.bench.memory import Memory, Peaks

RUN = "20260131T000000Z-000000"


def test_own_memory_is_what_is_not_shared_memory() -> None:
    rollup = "5581e3c0-7ffd7000 ---p 00000000 00:00 0 [rollup]\nPss: 100 kB\nPss_Shmem: 30 kB\n"

    assert memory.parse(rollup) == Memory(own=70 << 10, shared=30 << 10)


def test_a_process_and_its_workers_are_distinguished() -> None:
    code = "import sys; spawn_main = 0; print('up', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        seen = memory.look(os.getpid())
        child.communicate()

    assert seen[os.getpid()][0] == "coordinator"
    assert seen[child.pid][0] == "worker"
    assert all(found.own > 0 for _, found in seen.values())


def test_peaks_keep_the_largest_process_of_each_role_and_the_largest_sum() -> None:
    peaks = Peaks()
    peaks.add({1: ("worker", Memory(own=10)), 2: ("worker", Memory(own=30, shared=5))})
    peaks.add({1: ("worker", Memory(own=20))})

    assert peaks.processes["worker"] == 30
    assert peaks.total == 45


def test_a_spread_is_of_the_values_given() -> None:
    assert Spread.of([3.0, 1.0, 2.0]).cells() == ["2.00", "1.00", "3.00"]


def test_invented_machines_have_the_rows_asked_for(tmp_path: Path) -> None:
    size = invented.Size(machines=3, packages=4, least_files=5, most_files=9)

    rows = invented.generate(tmp_path, RUN, size)

    assert (rows["machines"], rows["packages"]) == (3, 12)
    with contextlib.closing(connect(tmp_path, RUN)) as connection:
        sql = "SELECT count(*), count(DISTINCT machine_id) FROM files GROUP BY machine_id"
        counts = connection.sql(sql).fetchall()
    assert len(counts) == 3
    assert all(5 <= count <= 9 and machines == 1 for count, machines in counts)


def test_a_night_with_recorded_facts_takes_the_fleets_path_and_the_next_scans_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(recorded.PACKAGES, "5")
    monkeypatch.setenv(recorded.FILES, "5")
    images, facts = tmp_path / "images", tmp_path / "facts"
    scale.make_images(images, 3)
    first = scale.night(images, facts, 1)
    second = scale.night(images, facts, 1)
    assert (first.machines, first.scanned, second.scanned, second.files) == (3, 3, 0, 1)
    runs = (first.run_id, second.run_id)
    one, other = (scale.digests(facts, run_id) for run_id in runs)
    assert {name for name in one if one[name] != other[name]} == {"machines"}
    assert len(set(one.values())) > 5
    assert [goal.measured for goal in scale.retention(facts, 1)] == [1, 0, 0]


# -- agreement ---------------------------------------------------------------------------------

XML = """<?xml version="1.0"?>
<!DOCTYPE operatingsystems [<!ENTITY name SYSTEM "file:///etc/hostname">]>
<operatingsystems>
  <operatingsystem>
    <root>btrfsvol:/dev/sda1/@rootfs</root>
    <name>linux</name>
    <distro>debian</distro>
    <major_version>12</major_version>
    <package_format>deb</package_format>
    <hostname>&name;</hostname>
    <mountpoints><mountpoint dev="btrfsvol:/dev/sda1//@home">/home</mountpoint></mountpoints>
    <filesystems>
      <filesystem dev="/dev/md127"><type>ext4</type><label>data</label><uuid>1-2</uuid></filesystem>
    </filesystems>
    <applications>
      <application><name>vim</name><epoch>2</epoch><version>9</version><release>1</release>
        <arch>amd64</arch></application>
      <application><name>vim</name><version>8</version><arch>amd64</arch></application>
    </applications>
  </operatingsystem>
</operatingsystems>
"""
TABLE = "Name,Type,VFS,Label,Size,Parent,UUID\n/dev/md127,filesystem,ext4,data,9,,1-2\n"
ROOT = "/dev/sda1[/@rootfs]"


def difference(ours: str | None = "a", theirs: str | None = "b") -> Difference:
    return Difference("m", "", "product", "", ours, theirs)


def explanation(**patterns: str | None) -> Explanation:
    whole = {"field": "product", "right": "both", "why": "so", **patterns}
    return Explanation.model_validate(whole)


def test_what_virt_inspector_prints_is_read_and_its_entities_are_not() -> None:
    ((root, system),) = inspector.systems(XML)
    assert root == ROOT
    assert (system["type"], system["package format"]) == ({"": "linux"}, {"": "dpkg"})
    assert (system["hostname"], system["minor version"]) == ({}, {})
    assert system["mountpoints"] == {"/home": "/dev/sda1[/@home]"}
    assert system["applications"] == {"vim amd64": "2:9-1, 8"}


def test_a_device_that_libguestfs_numbers_otherwise_is_known_by_what_it_holds() -> None:
    theirs = inspector.read(inspector.Answer(XML, TABLE, ""))
    found = agreement.renamed(theirs, {"/dev/md/data": "ext4 LABEL=data UUID=1-2"})
    assert found.filesystems == {"/dev/md/data": "ext4 LABEL=data UUID=1-2"}
    assert list(found.systems[ROOT]["filesystems"]) == ["/dev/md/data"]


def test_rows_are_told_in_the_terms_of_the_comparison() -> None:
    system = {
        **dict.fromkeys(("root", "product", "version_minor", "hostname", "package_manager")),
        "root": ROOT,
        "family": "linux",
        "inspector_distro": "debian",
        "version_major": 12,
        "architecture": "i686",
        "package_format": "dpkg",
    }
    mount = {"root": ROOT, "path": "/home", "device": "/dev/sda1", "subvolume": "@home"}
    filesystem = {"device": "/dev/sda1", "type": "btrfs", "label": None, "uuid": "1"}
    package = {"root": ROOT, "manager": "dpkg", "name": "vim", "status": "installed", "epoch": 0}
    package |= {"upstream_version": "9", "release": "1", "architecture": "i386"}
    tables: dict[str, list[agreement.Row]] = {
        "operating_systems": [system],
        "mountpoints": [mount, {**mount, "path": "/mnt", "device": None}],
        "filesystems": [{**filesystem, "usage": "filesystem"}],
        "volumes": [{"kind": "btrfs_subvolume", "name": "@home", "members": ["/dev/sda1"]}],
        "packages": [package, {**package, "name": "gone", "status": "config-files"}],
    }
    found = agreement.findings(tables, opened=True)
    names = "btrfs UUID=1"
    assert found.filesystems == {"/dev/sda1": names, "/dev/sda1[/@home]": names}
    ours = found.systems[ROOT]
    assert (ours["architecture"], ours["major version"]) == ({"": "i386"}, {"": "12"})
    assert ours["mountpoints"] == {"/home": "/dev/sda1[/@home]"}
    assert ours["applications"] == {"vim i386": "9-1"}


def test_differences_are_told_by_machine_root_field_and_key() -> None:
    theirs = inspector.read(inspector.Answer(XML, TABLE, ""))
    changed = {**theirs.systems[ROOT], "distro": {"": "ubuntu"}, "hostname": {"": "web"}}
    ours = Findings(True, {ROOT: changed}, theirs.filesystems)
    assert list(agreement.compare("m", ours, theirs)) == [
        Difference("m", ROOT, "distro", "", "ubuntu", "debian"),
        Difference("m", ROOT, "hostname", "", "web", None),
    ]


def test_an_explanation_covers_what_fits_all_of_its_patterns() -> None:
    assert explanation().covers(difference())
    assert explanation(machine="x | m", ours="a*").covers(difference())
    assert not explanation(machine="x").covers(difference())
    assert not explanation(field="distro").covers(difference())
    assert not explanation(theirs=None).covers(difference())
    assert explanation(theirs=None).covers(difference(theirs=None))
    assert not explanation(theirs="b").covers(difference(theirs=None))


def test_what_is_not_explained_and_what_explains_nothing_make_the_status() -> None:
    explained, found = [explanation()], [difference()]
    assert agreement.show([], found, explained, whole=True) == 0
    assert agreement.show([], [], explained, whole=True) == 1
    assert agreement.show([], [], explained, whole=False) == 0
    assert agreement.show([], found, [], whole=False) == 1


def test_the_documentation_has_the_explanations_as_they_are() -> None:
    text = agreement.README.read_text()
    assert text == agreement.with_table(text), "run: bash tests/bench/agreement.sh --markdown"
