"""Usage of directories, against du over the same tree."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from fleetscan.appliance.guest.root import Root
from fleetscan.rules import case_facts
from fleetscan.scanner.derived.directory_usage import DirectoryUsages
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.tables import load_collector, load_tables
from fleetscan.scanner.tables.directory_usage.spec import DirectoryUsage
from fleetscan.scanner.tables.files.spec import File


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for folder in ("a/b/c", "a/d", "empty", "caf\udce9\\x41 \n"):
        (top / folder).mkdir(parents=True)
        (top / folder / "file").write_bytes(b"x" * 5000)
    (top / "sparse").touch()
    os.truncate(top / "sparse", 1 << 20)
    (top / "a/link").symlink_to("b")
    (top / "a/b/hard").hardlink_to(top / "a/b/c/file")
    (top / "top-hard").hardlink_to(top / "a/b/c/file")
    return top


def _usages(tree: Path, depth: int) -> DirectoryUsages:
    with Root("case", str(tree)) as root:
        files = list(load_collector("files")(root))
    usages = DirectoryUsages(depth)
    for start in range(0, len(files), 3):  # names of a file in different batches
        some = files[start : start + 3]
        usages.add(rows_to_arrow(load_tables()["files"], some, machine_id="m", root="/"))
    return usages


def _usage(tree: Path, depth: int) -> dict[str, DirectoryUsage]:
    return {row.path: row for row in _usages(tree, depth).rows()}


def _du(tree: Path, *options: str) -> dict[str, int]:
    command = ["du", "--block-size=1", "--null", *options, "."]
    shown = subprocess.run(command, cwd=tree, check=True, capture_output=True).stdout
    lines = [os.fsdecode(line).partition("\t") for line in shown.split(b"\0")[:-1]]
    return {path[1:] or "/": int(size) for size, _, path in lines}


def test_sums_are_those_of_du(tree: Path) -> None:
    found = _usage(tree, 9)
    allocated, size = _du(tree), _du(tree, "--apparent-size")
    for path in ("/", "/empty", "/caf\udce9\\x41 \n"):  # which hold all names of their files
        assert (found[path].allocated, found[path].size) == (allocated[path], size[path])
    assert found.keys() == allocated.keys()


def test_entries_are_all_that_is_below(tree: Path) -> None:
    found = _usage(tree, 9)
    assert found["/"].entries == sum(1 for _ in tree.rglob("*"))
    assert found["/a/d"].entries == 1


@pytest.mark.parametrize(("depth", "paths"), [(0, 1), (1, 4), (2, 6), (3, 7)])
def test_depth_decides_which_directories_have_a_row(depth: int, paths: int, tree: Path) -> None:
    found = _usage(tree, depth)
    assert len(found) == paths
    assert max(row.depth for row in found.values()) == depth
    assert found["/"] == _usage(tree, 9)["/"]


def test_rows_are_written_in_parts(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetscan.scanner.derived.directory_usage._ROWS_AT_ONCE", 2)
    assert [part.num_rows for part in _usages(tree, 9).tables("m", "/")] == [2, 2, 2, 1]


def test_without_files_there_are_no_rows() -> None:
    assert list(DirectoryUsages(2).rows()) == []


def test_too_many_directories_are_counted_above(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _usage(tree, 9)["/"]
    monkeypatch.setattr("fleetscan.scanner.derived.directory_usage._DIRECTORIES", 2)
    found = _usage(tree, 9)
    assert found["/"] == whole
    assert len(found) < 7


# -- Rows that only a liar sends -------------------------------------------------------------------


def lies(number: int, **columns: object) -> pa.Table:
    """Rows of the table of files, of which every one has the columns given."""
    row = case_facts.complete({"files": [{"type": "file", "links": 1}]})["files"][0]
    own = [column.name for column in load_tables()["files"].columns]
    plain = {name: row[name] for name in own} | dict.fromkeys(
        ("accessed", "modified", "changed"), 0
    )
    rows = [
        File(**{**plain, **{name: _of(value, index) for name, value in columns.items()}})
        for index in range(number)
    ]
    return rows_to_arrow(load_tables()["files"], rows, machine_id="m", root="/")


def _of(value: object, index: int) -> object:
    return value(index) if callable(value) else value


def peak_of(usages: DirectoryUsages, batches: Iterable[pa.Table]) -> int:
    """Bytes of Python's at most while they are added up and told."""
    tracemalloc.start()
    try:
        for batch in batches:
            usages.add(batch)
        for part in usages.tables("m", "/"):
            assert part.num_rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_sums_past_the_largest_number_stay_there() -> None:
    usages = DirectoryUsages(1)
    for _ in range(2):
        usages.add(lies(3, path="/a/b", size=2**64 - 1, allocated=2**63))
    sizes = {row.path: (row.size, row.allocated) for row in usages.rows()}
    assert sizes == {"/": (2**64 - 1, 2**64 - 1), "/a": (2**64 - 1, 2**64 - 1)}


def test_names_of_devices_are_not_kept_however_long() -> None:
    batches = (
        lies(
            20,
            path="/a",
            links=2,
            device=lambda index, batch=batch: f"{batch}-{index}".ljust(1 << 17),
        )
        for batch in range(40)
    )
    assert peak_of(DirectoryUsages(2), batches) < 32 << 20


def test_paths_of_directories_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetscan.scanner.derived.directory_usage._DIRECTORY_BYTES", 1 << 20)
    monkeypatch.setattr("fleetscan.scanner.derived.directory_usage._BYTES_AT_ONCE", 1 << 18)
    usages = DirectoryUsages(1)
    batches = (
        lies(20, path=lambda index, batch=batch: f"/{batch}-{index}".ljust(1 << 17, "x") + "/y")
        for batch in range(20)
    )
    assert peak_of(usages, batches) < 32 << 20
    rows = list(usages.rows())
    assert len(rows) == 1 + 8
    assert next(row.entries for row in rows if row.path == "/") == 399


@pytest.mark.parametrize(
    ("paths", "depth", "short"),
    [
        (None, 2, None),
        (("/srv/",), 2, {"/srv/", "/srv", "/"}),
        (("/srv/a/b/",), 2, {"/srv/a/b/", "/srv/a", "/srv", "/"}),
        (("/srv/a/b/",), 0, {"/srv/a/b/", "/"}),
        (("/",), 2, {"/"}),
    ],
)
def test_sums_above_what_is_missing_are_short(
    paths: tuple[str, ...] | None, depth: int, short: set[str] | None
) -> None:
    found = DirectoryUsages(depth).unread(paths)
    assert (None if found is None else set(found)) == short


def test_a_path_that_never_ends_costs_no_more_than_the_depth() -> None:
    (path,) = paths = ("/a" * 30_000 + "/",)
    found = DirectoryUsages(2).unread(paths)
    assert found is not None
    assert set(found) == {path, "/", "/a", "/a/a"}
