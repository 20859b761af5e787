"""Container stores: databases and JSON files that may hold anything."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.schema import MICROSECOND
from fleetscan.scanner.tables.containers import bolt, stores
from fleetscan.scanner.tables.containers.bolt import BoltDatabase, BoltError, Bucket
from tests.scanner.tables.run_case import REPOSITORY, run
from tests.strategies import guest_texts

ENGINES = REPOSITORY / "scanner/tables/containers/cases/engines/tree"
META = (ENGINES / "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db").read_bytes()
PODMAN = (ENGINES / "var/lib/containers/storage/libpod/bolt_state.db").read_bytes()


def everything(bucket: Bucket, left: int = 20) -> int:
    count = 0
    for _, value in bucket.items() if left else ():
        count += 1 + (everything(value, left - 1) if isinstance(value, Bucket) else 0)
    return count


def test_databases_of_real_engines_are_read_to_the_end() -> None:
    assert everything(BoltDatabase(META).root()) > 100
    assert everything(BoltDatabase(PODMAN).root()) > 20


@settings(max_examples=200)
@given(
    st.sampled_from([META, PODMAN]),
    st.lists(st.tuples(st.integers(0, 1 << 18), st.binary(min_size=1, max_size=8)), max_size=20),
    st.integers(0, 1 << 18),
)
def test_damaged_databases_give_what_is_whole(
    data: bytes, changes: list[tuple[int, bytes]], cut: int
) -> None:
    damaged = bytearray(data)
    for place, put in changes:
        damaged[place % len(data) : place % len(data) + len(put)] = put
    content = bytes(damaged[: cut % len(data)] if cut % 3 == 0 else damaged)
    try:
        everything(BoltDatabase(content).root())
    except BoltError as error:
        assert str(error)  # noqa: PT017 - some are sound, most are not


def test_pages_that_refer_to_each_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bolt, "VISITS", 1000)
    database = BoltDatabase(META)
    page = bytearray(4096)
    struct.pack_into("<QHHI", page, 0, database.root().page, 1, 200, 0)
    for index in range(200):
        struct.pack_into("<IIQ", page, 16 + index * 16, 16, 0, database.root().page)
    start = database.root().page * 4096
    looped = META[:start] + bytes(page) + META[start + 4096 :]
    with pytest.raises(BoltError, match="damaged pages"):
        list(BoltDatabase(looped).root().items())


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01T01:00:00.5+01:00", 0.5),
        ("1969-12-31T23:00:00.000000999-01:00", 0),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59-23:00", None),
        ("2026-13-01T00:00:00Z", None),
        ("yesterday", None),
        (7, None),
    ],
)
def test_times(written: object, seconds: float | None) -> None:
    assert stores.time(written) == (None if seconds is None else seconds * MICROSECOND)


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | guest_texts(),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("id", "names", "metadata", "image", "created", "Repositories", "rootfs"),
                    *("diff_ids", "Config", "State", "MountPoints", "PortBindings", "80/tcp"),
                    *("layer", "parent", "diff-size", "Name", "Privileged", "CapAdd", "digest"),
                ]
            ),
            below,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(content=_JSON)
def test_any_json_gives_rows_that_fit(
    content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tree = tmp_path_factory.mktemp("tree")
    docker, podman = tree / "var/lib/docker", tree / "var/lib/containers/storage"
    for path in (
        docker / "containers/a/config.v2.json",
        docker / "containers/a/hostconfig.json",
        docker / "image/vfs/repositories.json",
        docker / "image/vfs/imagedb/content/sha256/aa",
        podman / "vfs-images/images.json",
        podman / "vfs-layers/layers.json",
        podman / "vfs-containers/containers.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    for table in ("containers", "container_images"):
        outcome = run(table, tree)
        assert all(json.loads(row)["engine"] in ("docker", "podman") for row in outcome.rows)


def test_files_beyond_the_limit_are_not_parsed(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/docker/containers/a"
    folder.mkdir(parents=True)
    (folder / "config.v2.json").write_text("[" + "[]," * (2 << 20) + "[]]")
    assert "larger than" in run("containers", tmp_path).error
