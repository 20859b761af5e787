"""The commands over facts in an object store, beside the same facts in a directory."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest

from fleetscan.appliance.built import Appliance
from fleetscan.scanner.cli import exits, run
from fleetscan.scanner.fact_access import open_facts
from fleetscan.scanner.store import layout
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from tests.scanner.store.making import ROOT, group_rows, machine_rows
from tests.scanner.store.object_store import Bucket, served

pytestmark = pytest.mark.timeout(180)

PACK = "title: Test\ndescription: Rules for tests.\n"
RULE = """\
id: no-sudo
title: No group is called sudo
severity: high
rationale: A test.
remediation: None.
violations: select machine_id, root, name from groups where name = 'sudo'
"""
ORDER: Any = [(name, "ascending") for name in ("run_id", "machine_id", "name")]
Told = pytest.CaptureFixture[str]

_copy_files: Any = pyarrow.fs.copy_files  # pyarrow's stubs differ from version to version


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    monkeypatch.setenv("FLEETSCAN_CACHE", str(tmp_path / "cache"))
    with served(monkeypatch) as bucket:
        yield bucket


def scan(facts: Path, machines: dict[str, list[str]]) -> str:
    """A run whose machines have these groups."""
    begun = Store(facts).begin(machines, settings={})
    for name, groups in machines.items():
        row = Coverage(
            root=ROOT,
            table_name="groups",
            status=CoverageStatus.OK,
            rows=len(groups),
            seconds=0.0,
            error=None,
            unread=None,
        )
        with begun.machine_writer(name) as writer:
            writer.write("machines", machine_rows(name, begun.run_id))
            coverage = rows_to_arrow(load_tables()["coverage"], [row], machine_id=name)
            writer.write("coverage", coverage)
            writer.write("groups", group_rows(name, groups))
            writer.commit({})
    return begun.finish().run_id


@pytest.fixture
def two(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A directory of two runs, and a bucket with the same files."""
    ids = (f"2026013{night}T020000Z-00000{night}" for night in (0, 1))
    with monkeypatch.context() as patched:
        patched.setattr(layout, "new_run_id", lambda now: next(ids))
        for machines in ({"a": ["adm"]}, {"a": ["sudo", "adm"], "b": ["wheel"]}):
            scan(tmp_path / "facts", machines)
    _copy_files(str(tmp_path / "facts"), "bucket/facts", destination_filesystem=bucket.filesystem)
    return str(tmp_path / "facts"), bucket.url()


def told(words: list[str], facts: str, capsys: Told) -> tuple[int, str, str]:
    status = run([*words, "--facts", facts])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def without_times(value: Any) -> Any:  # Any: JSON
    """A report without what differs between two that are made one after the other."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("checked", "generated")}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def test_query_check_and_report_answer_as_over_a_directory(
    two: tuple[str, str], tmp_path: Path, capsys: Told
) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "pack.yaml").write_text(PACK)
    (pack / "no-sudo.yaml").write_text(RULE)
    rules = ["--pack", str(pack)]
    for words in (
        ["query", "select * from groups order by all", "--output", "json"],
        ["query", "select * from history.groups order by all", "--output", "json"],
        ["query", "select * from groups order by all", "--run", "20260130T020000Z-000000"],
        ["check", *rules],
        ["check", *rules, "--run", "20260130T020000Z-000000"],
        ["check", *rules, "--output", "json"],
        ["query", "select * exclude (checked) from results order by all", "--output", "json"],
        ["query", "select * from history.failures order by all", "--output", "json"],
        ["report", *rules, "--json", "-"],
        ["runs"],
        ["runs", "--output", "json"],
        ["runs", "verify"],
    ):
        local, remote = (told(words, facts, capsys) for facts in two)
        if words[-1] in ("json", "-"):
            local, remote = (
                (status, without_times(json.loads(out)), err)
                for status, out, err in (local, remote)
            )
            assert local[1]
        assert remote == local, words


def test_results_of_a_check_are_there_for_other_hosts(
    bucket: Bucket,
    two: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Told,
) -> None:
    assert run(["check", "--facts", two[1], "--pack", "linux-baseline"]) == exits.FINE
    monkeypatch.setenv("FLEETSCAN_CACHE", str(tmp_path / "other"))
    count = ["query", "select count(*) as n from results", "--output", "csv"]
    capsys.readouterr()
    status, out, _ = told(count, two[1], capsys)
    assert status == exits.FINE
    assert int(out.split()[1]) > 100


def test_the_python_interface_takes_a_url(two: tuple[str, str]) -> None:
    found = []
    for place in two:
        with open_facts(place) as facts:
            found.append([one["groups"].arrow().sort_by(ORDER) for one in (facts, facts.history)])
    assert found[0] == found[1]
    assert [table.num_rows for table in found[0]] == [3, 4]


def test_a_scan_is_published_and_its_address_is_the_url(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    nowhere = Appliance(Path("/none"), "inputs", "content", "6.12", "trixie", {})
    monkeypatch.setattr("fleetscan.appliance.built.find", lambda: nowhere)
    monkeypatch.setattr("fleetscan.appliance.built.verify", lambda appliance: None)
    monkeypatch.setattr("fleetscan.scanner.isolation.require_start", lambda asked, keys: None)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.qcow2").write_bytes(b"QFI")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    scanning = ["scan", str(tmp_path / "images"), "-q", "--output", "json"]
    for _ in range(2):  # the second one looks the first one up
        status, out, _ = told(scanning, bucket.url(), capsys)
        assert status == exits.NOT_SCANNED  # that image is corrupt
        assert json.loads(out)["facts"] == bucket.url()
    status, out, _ = told(["runs", "--output", "json"], bucket.url(), capsys)
    assert [one["machines"] for one in json.loads(out)["runs"]] == [1, 1]
    assert len([name for name in bucket.names() if name.startswith("runs/")]) == 2
    assert not list((tmp_path / "home").iterdir())
    run_id = json.loads(out)["runs"][0]["run_id"]
    assert told(["runs", "--keep", "1"], bucket.url(), capsys)[2] == f"deleted {run_id}\n"
    assert not [name for name in bucket.names() if run_id in name]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://nobucket/facts?endpoint_override={}&scheme=http&region=us-east-1", "nobucket"),
        (
            "s3://bucket/facts?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1",
            "127.0.0.1:1",
        ),
        ("ftp://bucket/facts", "no URL of the scheme ftp"),
        ("s3://key:secret@bucket/facts", "credentials"),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_before_anything_is_scanned(
    url: str,
    says: str,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Told,
) -> None:
    monkeypatch.setattr("fleetscan.scanner.cli.scan._scan", lambda *_, **__: 1 / 0)
    monkeypatch.chdir(tmp_path)
    status, out, error = told(["scan", "images"], url.format(bucket.place), capsys)
    assert (status, out) == (exits.BAD_USAGE, "")
    assert says in error
    assert "\nhint: " in error
    assert "secret@" not in error


class _Forbidding(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does to who has no right to be there."""

    def _refuse(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = _refuse  # noqa: N815 - names of http.server's

    def log_message(self, *_: object) -> None:
        pass


def test_without_credentials_nothing_is_scanned(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    monkeypatch.setattr("fleetscan.scanner.cli.scan._scan", lambda *_, **__: 1 / 0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Forbidding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"s3://bucket/facts?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=x"
        status, _, error = told(["scan", "images"], url, capsys)
        server.shutdown()
    assert status == exits.BAD_USAGE
    assert "ACCESS_DENIED" in error
    assert "credentials are in the environment" in error


def test_workers_elsewhere_cannot_use_a_local_copy(bucket: Bucket, capsys: Told) -> None:
    words = ["scan", "images", "--scheduler", "tcp://127.0.0.1:8786"]
    status, _, error = told(words, bucket.url(), capsys)
    assert status == exits.BAD_USAGE
    assert "--scheduler" in error
