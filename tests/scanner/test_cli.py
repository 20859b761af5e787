from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from fleetscan.appliance.built import Appliance
from fleetscan.appliance.cache import cache_directory
from fleetscan.appliance.ground.errors import FleetscanError
from fleetscan.appliance.host import writing
from fleetscan.scanner.cli import exits, output, run
from fleetscan.scanner.cli.app import app
from fleetscan.scanner.cli.resume import Given, leave, settings_of
from fleetscan.scanner.options import ScanOptions
from fleetscan.scanner.sources.base import Machine
from fleetscan.scanner.sources.volume_keys import KeySource
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from tests.bench.invented import Size, generate
from tests.scanner.store.making import add_machine, finished_run

HOSTILE = "x\x1b[2J\x1b]0;t\x07[red]\u202e"


def commands(group: Any = None, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Every command with its path; Any, as click's classes have no one name."""
    group = group or typer.main.get_command(app)
    found: list[tuple[tuple[str, ...], Any]] = [(path, group)]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """A store with one run."""
    finished_run(tmp_path / "facts", {"web": ["sudo", "adm"], "db": [HOSTILE]})
    return tmp_path / "facts"


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with an appliance, which the machines of these tests do not live to need."""
    nowhere = Appliance(Path("/none"), "inputs", "content", "6.12", "trixie", {})
    monkeypatch.setattr("fleetscan.appliance.built.find", lambda: nowhere)
    monkeypatch.setattr("fleetscan.appliance.built.verify", lambda appliance: None)
    monkeypatch.setattr("fleetscan.scanner.isolation.require_start", lambda asked, keys: None)


class TestEveryCommand:
    @pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
    def test_explains_itself(
        self, path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run([*path, "--help"]) == exits.FINE
        assert "Usage: fleetscan" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "command",
        [one for _, one in commands() if not hasattr(one, "commands")],
        ids=lambda c: c.name,
    )
    def test_has_examples_and_words_for_each_option(self, command: Any) -> None:
        assert command.epilog
        assert "fleetscan " in command.epilog
        assert command.help
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, parameter.name

    def test_help_comes_at_once(self) -> None:
        argv = [sys.executable, "-X", "importtime", "-m", "fleetscan.scanner.cli", "--help"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        heavy = ("duckdb", "pyarrow", "pandas", "dask", "distributed", "pydantic", "jinja2", "rich")
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert loaded.isdisjoint(heavy)


class TestPaths:
    def test_what_a_scan_is_given_means_the_same_everywhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: None
    ) -> None:
        """Workers, plans and resumed scans have other working directories."""
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.img").touch()
        (tmp_path / "fleet.yaml").write_text("- {id: web, disks: [images/a.img]}\n")
        seen: list[Any] = []

        def stop(machines: Any, begun: Any, options: Any, on_event: Any) -> None:
            seen.extend((machines, begun, options))
            raise FleetscanError("stop")

        monkeypatch.setattr("fleetscan.scanner.fleet.scan_fleet", stop)
        monkeypatch.chdir(tmp_path)
        more = ["--allow-dir", "pool", "--key", "all:file:secret.key", "-q"]
        assert run(["scan", "fleet.yaml", "--facts", "facts", *more]) == exits.FAILED
        (machine,), begun, options = seen
        assert begun.facts == tmp_path / "facts"
        assert begun.settings["sources"] == [str(tmp_path / "fleet.yaml")] == [machine.source]
        assert machine.disks[0].path == str(tmp_path / "images" / "a.img")
        assert options.machine.sources.allowed_directories == (str(tmp_path / "pool"),)
        assert options.machine.secrets.keys[0].value == str(tmp_path / "secret.key")

    def test_a_run_begun_with_relative_paths_is_resumed_from_another_directory(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        ready: None,
    ) -> None:
        def stop(machines: Any, begun: Any, options: Any, on_event: Any) -> None:
            add_machine(begun, "a.img")
            raise FleetscanError("stop")

        (tmp_path / "images").mkdir()
        for name in ("a.img", "b.img"):
            (tmp_path / "images" / name).touch()
        monkeypatch.chdir(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr("fleetscan.scanner.fleet.scan_fleet", stop)
            assert run(["scan", "images", "--facts", "facts", "-q"]) == exits.FAILED
        _, _, words = capsys.readouterr().err.partition("resume with: fleetscan ")
        monkeypatch.chdir("/")
        command = shlex.split(words.splitlines()[0])
        assert run([*command, "-q", "-P", "1"]) == exits.NOT_SCANNED
        assert Store(tmp_path / "facts").latest().outcomes == {"ok": 1, "failed": 1}

    def test_a_tree_is_named_by_its_whole_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "tree").mkdir()
        monkeypatch.chdir(tmp_path)
        run(["inspect", "--directory", "tree", "--output", "json"])
        assert json.loads(capsys.readouterr().out)["machines"][0]["machine_id"] == str(
            tmp_path / "tree"
        )

    def test_a_cache_named_relatively_is_found_by_workers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FLEETSCAN_CACHE", "cache")
        assert cache_directory() == tmp_path / "cache"


class TestEnding:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["bogus"],
            ["scan"],
            ["scan", "--facts"],
            ["scan", "--facts", "x", "--files", "some"],
            ["scan", "--facts", "x", "-P", "0", "y"],
            ["scan", "--facts", "x"],
            ["scan", "--facts", "x", "/nonexistent"],
            ["scan", "--facts", "x", "--resume", "not-a-run"],
            ["scan", "--facts", "x", "y", "--key", "hunter2"],
            ["scan", "--facts", "x", "y", "--bases", "hide"],
            ["inspect"],
            ["inspect", "-a", "x", "--directory", "/"],
            ["inspect", "-a", "x", "--format", "qed"],
            ["inspect", "--directory", "/nonexistent"],
            ["tables", "nothing"],
            ["rules", "show", "nothing"],
            ["rules", "list", "--pack", "nothing"],
            ["report", "--facts", "x"],
            ["query", "select 1", "--facts", "x", "--run", "not-a-run"],
        ],
        ids=" ".join,
    )
    def test_bad_usage_is_told_in_a_line_before_anything_begins(
        self,
        arguments: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run(arguments) == exits.BAD_USAGE
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("fleetscan: ")
        assert "Traceback" not in told.err
        assert not list(tmp_path.iterdir())

    def test_a_bad_inventory_is_found_before_the_scan(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "fleet.yaml").write_text("- id: a\n  disks: 3\n")
        facts = str(tmp_path / "facts")
        assert run(["scan", str(tmp_path / "fleet.yaml"), "--facts", facts]) == exits.BAD_USAGE
        assert "fleet.yaml:2: " in capsys.readouterr().err
        assert not (tmp_path / "facts").exists()

    def test_a_failure_of_the_tool_is_one_and_has_a_hint(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["runs", "--facts", str(tmp_path / "none")]) == exits.FAILED
        assert "\nhint: " in capsys.readouterr().err

    def test_a_traceback_is_shown_when_asked_for(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(["runs", "-v", "--facts", str(tmp_path / "none")])
        assert "Traceback (most recent call last)" in capsys.readouterr().err

    def test_a_bug_is_called_one(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("fleetscan.scanner.table_reference.markdown", lambda: 1 // 0)
        assert run(["tables", "--markdown"]) == exits.FAILED
        assert capsys.readouterr().err == (
            "fleetscan: this is a bug: ZeroDivisionError: integer division or modulo by zero\n"
            "hint: run the command again with -v and report its output\n"
        )

    def test_an_interruption_is_a_shells_130(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt() -> str:
            raise KeyboardInterrupt

        monkeypatch.setattr("fleetscan.scanner.table_reference.markdown", interrupt)
        assert run(["tables", "--markdown"]) == exits.INTERRUPTED

    def test_the_process_exits_with_the_code_of_its_command(self, facts: Path) -> None:
        def code(*arguments: str) -> int:
            argv = [sys.executable, "-m", "fleetscan.scanner.cli", *arguments]
            return subprocess.run(argv, capture_output=True).returncode

        assert code("--version") == exits.FINE
        assert code("runs", "--facts", "/nonexistent") == exits.FAILED
        assert code("bogus") == exits.BAD_USAGE

    def test_a_reader_that_goes_away_is_no_error(self, facts: Path) -> None:
        command = f"{sys.executable} -m fleetscan.scanner.cli tables --markdown | true"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.stderr == ""


class TestPrinting:
    def test_control_characters_of_guests_never_reach_a_terminal(
        self, facts: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for form in ("table", "json"):
            sql = "select name, [name] as names from groups"
            assert run(["query", sql, "--facts", str(facts), "--output", form]) == exits.FINE
        text = capsys.readouterr().out
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "x\\x1b[2J" in text

    def test_errors_and_logs_are_printable_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.configure(0)
        output.error(HOSTILE, HOSTILE)
        logging.getLogger("fleetscan.scanner.test").warning("%s", HOSTILE)
        assert "\x1b" not in capsys.readouterr().err

    def test_csv_holds_no_formulas(self, facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        sql = "select '=1+1' as a, '@x' as b, -1 as c, 'fine' as d, ['=x'] as e, now() as f"
        assert run(["query", sql, "--facts", str(facts), "--output", "csv"]) == exits.FINE
        head, row = csv.reader(io.StringIO(capsys.readouterr().out))
        assert head == ["a", "b", "c", "d", "e", "f"]
        assert row[:5] == ["'=1+1", "'@x", "-1", "fine", '["=x"]']
        assert row[5].endswith("Z")


class TestQuery:
    def test_answers_in_aligned_columns(
        self, facts: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sql = "select machine_id, count(*) as n from groups group by 1 order by 1"
        assert run(["query", sql, "--facts", str(facts)]) == exits.FINE
        assert capsys.readouterr().out == (
            "machine_id  n\n----------  -\ndb          1\nweb         2\n"
        )

    def test_answers_in_json(self, facts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        sql = "select started, seconds, null as x from machines limit 1"
        assert run(["query", sql, "--facts", str(facts), "--output", "json"]) == exits.FINE
        assert json.loads(capsys.readouterr().out) == [
            {"started": "1970-01-01T00:00:00Z", "seconds": 1.5, "x": None}
        ]

    def test_sees_all_runs_in_history(
        self, facts: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        finished_run(facts, {"web": []})
        sql = "select count(distinct run_id) as runs from history.machines"
        assert run(["query", sql, "--facts", str(facts)]) == exits.FINE
        assert capsys.readouterr().out.endswith("2\n")

    @pytest.mark.parametrize("sql", ["drop view groups", "select", "select 1; select 2"])
    def test_takes_nothing_but_a_select(self, facts: Path, sql: str) -> None:
        assert run(["query", sql, "--facts", str(facts)]) == exits.BAD_USAGE


class TestTables:
    def test_lists_all(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["tables"]) == exits.FINE
        assert (
            all(f"\n{name} " in capsys_text for name in load_tables())
            if (capsys_text := capsys.readouterr().out)
            else False
        )

    @pytest.mark.parametrize("name", load_tables())
    def test_describes_each_in_lines_that_fit(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["tables", name]) == exits.FINE
        text = capsys.readouterr().out
        assert all(column.name in text for column in load_tables()[name].columns)

    def test_json_has_types_and_units(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["tables", "disks", "--output", "json"]) == exits.FINE
        (table,) = json.loads(capsys.readouterr().out)
        columns = {column["name"]: column for column in table["columns"]}
        assert columns["virtual_size"]["unit"] == "bytes"
        assert columns["machine_id"]["type"] == "string"


class TestRuns:
    def test_lists_finished_and_unfinished(
        self, facts: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (finished,) = Store(facts).run_ids()
        unfinished = Store(facts).begin(["a"], settings={}).run_id
        assert run(["runs", "--facts", str(facts)]) == exits.FINE
        text = capsys.readouterr().out
        assert f"\n{finished} " in text
        assert f"--resume {unfinished}" in text
        assert run(["runs", "--facts", str(facts), "--output", "json"]) == exits.FINE
        listed = json.loads(capsys.readouterr().out)
        assert [one["run_id"] for one in listed["runs"]] == [finished]
        assert listed["unfinished"] == [unfinished]

    def test_publishes_abandons_deletes_and_prunes(self, facts: Path) -> None:
        begun = Store(facts).begin(["a", "b"], settings={})
        add_machine(begun, "a")
        assert run(["runs", "--facts", str(facts), "--publish", begun.run_id]) == exits.FINE
        assert Store(facts).run(begun.run_id).interrupted
        assert run(["runs", "--facts", str(facts), "--delete", begun.run_id]) == exits.FINE
        lost = Store(facts).begin(["a"], settings={}).run_id
        assert run(["runs", "--facts", str(facts), "--abandon", lost]) == exits.FINE
        finished_run(facts, {"web": []})
        assert run(["runs", "--facts", str(facts), "--keep", "1"]) == exits.FINE
        assert len(Store(facts).run_ids()) == 1
        assert not Store(facts).unfinished()


PACK = """\
title: Test
description: Rules for tests.
"""
RULE = """\
id: groups-none
title: No group is called sudo
severity: {severity}
rationale: A test.
remediation: None.
violations: select machine_id, root, name from groups where name = 'sudo'
"""


class TestCheckAndReport:
    @pytest.fixture
    def pack(self, tmp_path: Path) -> Callable[[str], str]:
        def make(severity: str) -> str:
            folder = tmp_path / "pack"
            folder.mkdir(exist_ok=True)
            (folder / "pack.yaml").write_text(PACK)
            (folder / "rule.yaml").write_text(RULE.format(severity=severity))
            return str(folder)

        return make

    @pytest.mark.parametrize(
        ("severity", "fail_on", "code"),
        [
            ("high", "high", exits.FINDINGS),
            ("critical", "high", exits.FINDINGS),
            ("medium", "high", exits.FINE),
            ("info", "info", exits.FINDINGS),
            ("critical", "none", exits.FINE),
        ],
    )
    def test_check_exits_by_the_gravest_finding(
        self, fleet: Path, pack: Callable[[str], str], severity: str, fail_on: str, code: int
    ) -> None:
        arguments = ["--facts", str(fleet), "--pack", pack(severity), "--fail-on", fail_on]
        assert run(["check", *arguments]) == code

    @pytest.fixture
    def fleet(self, tmp_path: Path) -> Path:
        """A run in which groups were gathered from one root."""
        from fleetscan.scanner.store.arrow import rows_to_arrow
        from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
        from fleetscan.scanner.tables.operating_systems.spec import OperatingSystem
        from tests.scanner.store.making import ROOT, group_rows, machine_rows

        store = Store(tmp_path / "fleet")
        begun = store.begin(["web"], settings={})
        tables = load_tables()
        system: dict[str, Any] = dict.fromkeys(
            column.name for column in tables["operating_systems"].columns
        )
        system |= {"family": "linux", "form": "installed", "inspector_distro": "debian"}
        system |= {"like": (), "kernels": ()}
        coverage = [
            Coverage(
                root=ROOT,
                table_name=name,
                status=CoverageStatus.OK,
                rows=1,
                seconds=0.0,
                error=None,
                unread=None,
            )
            for name in ("groups", "operating_systems")
        ]
        with begun.machine_writer("web") as writer:
            writer.write("machines", machine_rows("web", begun.run_id))
            writer.write("groups", group_rows("web", ["sudo"]))
            rows: list[object] = [OperatingSystem(**system)]
            found = rows_to_arrow(tables["operating_systems"], rows, machine_id="web", root=ROOT)
            writer.write("operating_systems", found)
            writer.write("coverage", rows_to_arrow(tables["coverage"], coverage, machine_id="web"))
            writer.commit({})
        begun.finish()
        return tmp_path / "fleet"

    def test_check_and_report_take_a_large_fleet(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        facts = tmp_path / "facts"
        generate(facts, "20260131T000000Z-000000", Size(2000, 1, 1, 1))

        assert run(["check", "--facts", str(facts), "--fail-on", "none"]) == exits.FINE
        assert run(["report", "--facts", str(facts), "--html", str(tmp_path / "r.html")]) == 0

        assert "accounts-password-max-age" in capsys.readouterr().out

    def test_check_names_what_fails(
        self, fleet: Path, pack: Callable[[str], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["check", "--facts", str(fleet), "--pack", pack("high")]
        assert run(arguments) == exits.FINDINGS
        text = capsys.readouterr().out
        assert "groups-none" in text
        assert "web" in text
        assert run([*arguments, "--output", "json"]) == exits.FINDINGS
        found = json.loads(capsys.readouterr().out)
        assert found["counts"] == [{"severity": "high", "state": "fail", "results": 1}]
        assert found["results"][0]["rule_id"] == "groups-none"

    def test_a_waiver_stays_the_exit_code(
        self, fleet: Path, pack: Callable[[str], str], tmp_path: Path
    ) -> None:
        waivers = tmp_path / "waivers.yaml"
        waivers.write_text(
            "- {rule: groups-none, machine: web, justification: test, expires: 2999-01-01}\n"
        )
        arguments = ["check", "--facts", str(fleet), "--pack", pack("high")]
        assert run([*arguments, "--waivers", str(waivers)]) == exits.FINE

    def test_a_bad_rule_is_found_before_facts_are_read(
        self, pack: Callable[[str], str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["check", "--facts", "/nonexistent", "--pack", pack("grave")]
        assert run(arguments) == exits.BAD_USAGE
        assert "rule.yaml:3: severity" in capsys.readouterr().err

    def test_a_report_is_written_whole_and_of_facts_alone_before_a_check(
        self,
        fleet: Path,
        pack: Callable[[str], str],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        page = tmp_path / "report.html"
        arguments = ["report", "--facts", str(fleet), "--pack", pack("high"), "--json", "-"]
        assert run([*arguments, "--html", str(page)]) == exits.FINE
        told = capsys.readouterr()
        assert "facts alone" in told.err
        assert json.loads(told.out)["results"] == []
        assert page.read_text().rstrip().endswith("</html>")
        assert page.stat().st_mode & 0o777 == 0o640 & ~writing.umask()
        run(["check", "--facts", str(fleet), "--pack", pack("high")])
        capsys.readouterr()
        assert run(arguments) == exits.FINE
        assert len(json.loads(capsys.readouterr().out)["results"]) == 1

    def test_a_report_that_cannot_be_written_leaves_nothing(
        self, fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        target = str(tmp_path / "none" / "report.html")
        assert run(["report", "--facts", str(fleet), "--html", target]) == exits.FAILED
        assert "cannot be written" in capsys.readouterr().err


READ_ONLY = """
mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift
exec "$@"
"""


def on_read_only(facts: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of ours in a mount namespace in which the facts cannot be written."""
    script = ["unshare", "--map-root-user", "--mount", "sh", "-ec", READ_ONLY, "sh", str(facts)]
    command = [
        *script,
        sys.executable,
        "-m",
        "fleetscan.scanner.cli",
        *arguments,
        "--facts",
        str(facts),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class TestReadOnlyFacts:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("query", "select count(*) from machines", "--output", "json"),
            ("runs",),
            ("report", "--json", "-"),
        ],
        ids=lambda arguments: arguments[0],
    )
    def test_what_only_reads_works(self, facts: Path, arguments: tuple[str, ...]) -> None:
        done = on_read_only(facts, *arguments)
        assert done.returncode == exits.FINE, done.stderr
        assert done.stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            ("check",),
            ("runs", "--keep", "1"),
            ("runs", "--delete", "RUN"),
            ("scan", "--no-template", "SOURCE"),
        ],
        ids=lambda arguments: " ".join(arguments[:2]),
    )
    def test_what_writes_says_so_and_what_to_do(
        self, facts: Path, tmp_path: Path, arguments: tuple[str, ...]
    ) -> None:
        (tmp_path / "disk.raw").write_bytes(bytes(4096))
        finished_run(facts, {"later": []})
        oldest = Store(facts).run_ids()[0]
        named = {"RUN": oldest, "SOURCE": str(tmp_path / "disk.raw")}
        done = on_read_only(facts, *(named.get(word, word) for word in arguments))
        assert done.returncode == exits.FAILED, (done.stdout, done.stderr)
        assert "Read-only file system" in done.stderr
        assert "hint: the filesystem is mounted read-only" in done.stderr
        assert "bug" not in done.stderr

    def test_what_may_not_be_read_is_not_taken_for_empty(
        self, facts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(path: Path) -> list[str]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(os, "listdir", refuse)
        assert run(["runs", "--facts", str(facts)]) == exits.FAILED
        said = capsys.readouterr().err
        assert "Permission denied" in said
        assert "hint: " in said

    def test_a_full_disk_anywhere_is_no_bug_of_ours(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], facts: Path
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), HOSTILE)

        monkeypatch.setattr("fleetscan.scanner.store.views.connect", full)
        assert run(["query", "select 1", "--facts", str(facts)]) == exits.FAILED
        said = capsys.readouterr().err
        assert "No space left on device" in said
        assert "hint: free some space" in said
        assert "bug" not in said
        assert "\x1b" not in said


class TestReportFile:
    @pytest.mark.parametrize(
        ("umask", "options", "mode"),
        [
            (0o000, (), 0o640),
            (0o022, (), 0o640),
            (0o027, (), 0o640),
            (0o077, (), 0o600),
            (0o077, ("--mode", "644"), 0o644),
            (0o000, ("--mode", "0600"), 0o600),
        ],
    )
    def test_it_is_as_the_umask_says_and_no_wider_than_the_group_unless_asked(
        self, facts: Path, tmp_path: Path, umask: int, options: tuple[str, ...], mode: int
    ) -> None:
        page = tmp_path / "report.json"
        before = os.umask(umask)
        try:
            assert run(["report", "--facts", str(facts), "--json", str(page), *options]) == 0
        finally:
            os.umask(before)
        assert page.stat().st_mode & 0o7777 == mode

    @pytest.mark.parametrize("mode", ["rw", "888", "4755", "64", "-1", ""])
    def test_a_mode_that_is_none_is_refused(
        self, facts: Path, mode: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["report", "--facts", str(facts), "--json", "-", f"--mode={mode}"]
        assert run(arguments) == exits.BAD_USAGE
        assert "644" in capsys.readouterr().err


class TestRules:
    def test_lists_shows_and_tests_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["rules", "list", "--output", "json"]) == exits.FINE
        rule = json.loads(capsys.readouterr().out)[0]
        assert run(["rules", "show", rule["id"]]) == exits.FINE
        text = capsys.readouterr().out
        assert rule["title"] in text
        assert "SELECT" in text.upper()

    def test_cases_that_fail_are_a_failure(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "cases").mkdir()
        (tmp_path / "pack.yaml").write_text(PACK)
        (tmp_path / "rule.yaml").write_text(RULE.format(severity="low"))
        (tmp_path / "cases" / "groups-none.yaml").write_text(
            "- name: wrong\n  facts: {groups: []}\n  expect: fail\n"
        )
        assert run(["rules", "test", "--pack", str(tmp_path)]) == exits.FAILED
        assert "0 of 1 cases passed" in capsys.readouterr().out


class TestInspect:
    def test_a_disk_that_cannot_be_read_is_told_and_exits_with_three(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.img").touch()
        assert run(["inspect", "-a", str(tmp_path / "a.img")]) == exits.NOT_SCANNED
        assert "a.img: failed: " in capsys.readouterr().out

    def test_json_is_one_object_of_all_tables(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.img").touch()
        arguments = ["inspect", "-a", str(tmp_path / "a.img"), "--output", "json"]
        assert run(arguments) == exits.NOT_SCANNED
        facts = json.loads(capsys.readouterr().out)
        assert list(facts) == list(load_tables())
        assert facts["machines"][0]["machine_id"] == "a.img"
        assert facts["machines"][0]["started"].endswith("Z")
        assert facts["disks"][0]["error"].endswith("empty")
        assert facts["packages"] == []

    def test_a_directory_is_read_without_a_vm(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "os-release").write_text("ID=debian\nVERSION_ID=12\n")
        (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        metadata = tmp_path / "opt/venv/x-1.dist-info/METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text("Name: x\nVersion: 1\n")
        arguments = ["inspect", "--directory", str(tmp_path), "--output", "json"]
        assert run([*arguments, "--packages", "all"]) == exits.FINE
        facts = json.loads(capsys.readouterr().out)
        assert [package["purl"] for package in facts["packages"]] == ["pkg:pypi/x@1"]
        assert run(arguments) == exits.FINE
        facts = json.loads(capsys.readouterr().out)
        assert facts["packages"] == []
        assert facts["operating_systems"][0]["distro"] == "debian"
        assert [user["name"] for user in facts["users"]] == ["root"]
        assert "etc/passwd" in "".join(entry["path"] for entry in facts["files"])
        assert run(arguments[:3]) == exits.FINE
        assert "operating systems" in capsys.readouterr().out


PLANNED = ScanOptions.of(files="none", deadline=60.0)


@pytest.mark.usefixtures("ready")
class TestResume:
    """A plan in the facts directory may have been written by somebody else."""

    def begun(self, tmp_path: Path, sources: object = None, **settings: object) -> list[str]:
        """The command that resumes a run with such a plan: options as ``group__name``."""
        plan = settings_of(Given([str(tmp_path / "a.img")], PLANNED))
        if sources is not None:
            plan["sources"] = sources
        for name, value in settings.items():
            group, _, option = name.partition("__")
            if option:
                plan["options"].setdefault(group, {})[option] = value
            else:
                plan[name] = value
        (tmp_path / "a.img").touch()
        store = Store(tmp_path / "facts")
        begun = store.begin(["a.img"], settings=plan)
        return ["scan", "--facts", str(store.path), "--resume", begun.run_id, "-q"]

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"secrets__keys": ["all:command:touch owned"]}, "another version"),
            ({"secrets__keys": 1}, "1 --key options"),
            ({"sources__key_commands": True}, "another version"),
            ({"appliance__confinement": "any"}, "another version"),
            ({"sources__allowed_directories": ["/"]}, "--allow-dir /"),
            ({"sources": 5}, "another version"),
            ({"sources": [5]}, "another version"),
            ({"facts__files": {}}, "another version"),
            ({"facts__unheard": 1}, "another version"),
            ({"unheard__of": 1}, "another version"),
            ({"unheard": 1}, "another version"),
            ({"options": 5}, "another version"),
            ({"options": {}}, "another version"),
            ({"options": {"facts": 5}}, "another version"),
        ],
    )
    def test_a_plan_grants_nothing(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        settings: dict[str, object],
        says: str,
    ) -> None:
        assert run(self.begun(tmp_path, **settings)) == exits.BAD_USAGE
        assert says in capsys.readouterr().err

    def test_an_inventory_that_only_the_plan_names_gives_no_keys(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        inventory = tmp_path / "evil.yaml"
        inventory.write_text("- {id: a.img, disks: [a.img], keys: ['all:file:/etc/shadow']}\n")
        arguments = self.begun(tmp_path, sources=[str(inventory)])
        assert run(arguments) == exits.BAD_USAGE
        assert str(inventory) in capsys.readouterr().err

    def test_a_command_of_an_inventory_is_not_run_on_the_word_of_a_plan(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        inventory = tmp_path / "evil.yaml"
        inventory.write_text("- {id: a.img, disks: [a.img], keys: ['all:command:id']}\n")
        arguments = self.begun(tmp_path, sources=[str(inventory)])
        assert run(arguments) == exits.BAD_USAGE
        assert run([*arguments, str(inventory)]) == exits.BAD_USAGE
        assert "--allow-key-commands" in capsys.readouterr().err
        assert run([*arguments, str(inventory), "--allow-key-commands"]) == exits.NOT_SCANNED

    def test_what_was_granted_is_granted_again(self, tmp_path: Path) -> None:
        arguments = self.begun(
            tmp_path, secrets__keys=1, sources__allowed_directories=["/srv/pool"]
        )
        again = ["--key", "all:env:KEY", "--allow-dir", "/srv/pool"]
        assert run([*arguments, *again]) == exits.NOT_SCANNED

    def test_an_interrupted_run_says_what_must_be_given_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        begun = Store(tmp_path / "facts").begin(["a", "b"], settings={})
        add_machine(begun, "a")
        key = KeySource("all", "env", "HUNTER2")
        options = ScanOptions.of(
            allowed_directories=("/srv/my pool",), keys=(key,), key_commands=True
        )
        given = Given(["/srv/fleet.yaml"], options)
        leave(begun, [Machine("a", (), "/srv/fleet.yaml", keys=(key,))], given)
        told = capsys.readouterr().err
        assert f"scan /srv/fleet.yaml --facts {tmp_path}/facts --resume {begun.run_id}" in told
        assert "--allow-dir '/srv/my pool' --allow-key-commands and the same --key" in told
        assert "HUNTER2" not in told

    def test_other_sources_than_the_plan_has_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run([*self.begun(tmp_path), "/srv"]) == exits.BAD_USAGE
        assert "scans other sources" in capsys.readouterr().err

    def test_a_plan_that_anybody_may_have_written_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = self.begun(tmp_path)
        (plan,) = (tmp_path / "facts").glob(".staging/*/plan.json")
        plan.chmod(0o666)
        assert run(arguments) == exits.BAD_USAGE
        assert "could have been written by others" in capsys.readouterr().err


@pytest.mark.usefixtures("ready")
class TestScan:
    def test_a_fleet_that_cannot_be_read_is_a_run_of_failed_machines(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "empty.img").touch()
        (tmp_path / "images" / "other.qed").write_bytes(b"QED\0" + bytes(508))
        facts = tmp_path / "facts"
        arguments = ["scan", str(tmp_path / "images"), "--facts", str(facts), "-P", "1", "-q"]
        assert run(arguments) == exits.NOT_SCANNED
        told = capsys.readouterr()
        assert told.err == ""
        assert "0 ok, 0 partial, 2 failed" in told.out
        assert "format qed is not supported" in told.out
        (info,) = Store(facts).runs()
        assert info.outcomes == {"failed": 2}
        assert info.settings["sources"] == [str(tmp_path / "images")]

    def test_an_unfinished_run_is_resumed_with_its_own_settings(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "a.img").touch()
        (tmp_path / "b.img").touch()
        options = ScanOptions.of(include=("*.img",), files="none", deadline=60.0)
        settings = settings_of(Given([str(tmp_path)], options))
        store = Store(tmp_path / "facts")
        begun = store.begin(["a.img", "b.img"], settings=settings)
        add_machine(begun, "a.img")
        arguments = ["scan", "--facts", str(store.path), "--resume", begun.run_id, "-P", "1"]
        assert run([*arguments, "--output", "json"]) == exits.NOT_SCANNED
        summary = json.loads(capsys.readouterr().out)
        assert (summary["resumed"], summary["scanned"]) == (1, 1)
        assert summary["outcomes"] == {"ok": 1, "partial": 0, "failed": 1}
        assert run(arguments) == exits.FAILED  # it is finished

    def test_no_text_of_a_key_is_stored(self, tmp_path: Path) -> None:
        (tmp_path / "a.img").touch()
        facts = tmp_path / "facts"
        keys = ["--key", "all:command:vault -token=hunter2", "--key", "all:file:/hunter2"]
        assert run(["scan", str(tmp_path / "a.img"), "--facts", str(facts), "-q", *keys]) == 3
        (info,) = Store(facts).runs()
        assert info.settings["options"]["secrets"] == {"keys": 2}
        assert [path for path in facts.rglob("*.json") if "hunter2" in path.read_text()] == []

    def test_images_that_belong_to_others_are_rows(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, facts = tmp_path / "images", tmp_path / "facts"
        folder.mkdir()
        (folder / "golden.img").write_bytes(bytes(1 << 20))
        for name in ("a.qcow2", "b.qcow2"):
            create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "golden.img", "-F", "raw"]
            subprocess.run([*create, name], cwd=folder, check=True)
        (folder / "c.img").symlink_to("b.qcow2")
        (folder / "out.img").symlink_to("/etc/passwd")
        scan = ["scan", str(folder), "--facts", str(facts), "-q", "--exclude", "a*"]
        assert run([*scan, "--no-template"]) == exits.NOT_SCANNED
        assert "2 images belong to other machines" in capsys.readouterr().out
        sql = "SELECT machine_id, path, why::VARCHAR AS why, named_by FROM left_out ORDER BY path"
        assert run(["query", "--facts", str(facts), sql, "--output", "json"]) == exits.FINE
        assert json.loads(capsys.readouterr().out) == [
            {
                "machine_id": "b.qcow2",
                "path": str(folder / name),
                "why": why,
                "named_by": str(folder / "b.qcow2"),
            }
            for name, why in (("c.img", "alias"), ("golden.img", "base"))
        ]
        sql = "SELECT machine_id, error FROM machines ORDER BY ALL"
        assert run(["query", "--facts", str(facts), sql, "--output", "json"]) == exits.FINE
        rows = json.loads(capsys.readouterr().out)
        assert [row["machine_id"] for row in rows] == ["b.qcow2", "out.img"]
        assert "--allow-dir" in rows[1]["error"]

    def test_a_scan_that_cannot_begin_leaves_no_run(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def no_keys(scratch: Path) -> None:
            raise FleetscanError("making keys failed")

        (tmp_path / "a.img").touch()
        arguments = ["scan", str(tmp_path), "--facts", str(tmp_path / "facts"), "-q"]
        assert run([*arguments, "--scheduler", "bogus://x"]) == exits.BAD_USAGE
        assert not (tmp_path / "facts").exists()
        monkeypatch.setattr("fleetscan.scanner.cluster_tls.of_our_own", no_keys)
        assert run(arguments) == exits.FAILED
        assert "nothing was kept" in capsys.readouterr().err
        assert not Store(tmp_path / "facts").unfinished()

    @pytest.mark.parametrize("damage", ["run file", "part", "no part"])
    def test_a_damaged_run_costs_a_full_scan_and_no_more(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
    ) -> None:
        (tmp_path / "a.img").touch()
        facts = tmp_path / "facts"
        command = ["scan", str(tmp_path / "a.img"), "--facts", str(facts), "-q", "-P", "1"]
        assert run(command) == exits.NOT_SCANNED
        (part,) = facts.glob("machines/*/*.parquet")
        (file,) = facts.glob("runs/*.json")
        if damage == "no part":
            part.unlink()
        else:
            (file if damage == "run file" else part).write_bytes(b"{")
        capsys.readouterr()
        assert run(command) == exits.NOT_SCANNED
        told = capsys.readouterr()
        assert "cannot be used for unchanged machines" in told.err
        assert "1 failed" in told.out

    def test_a_host_without_an_appliance_is_told_before_the_scan(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fleetscan.appliance.ground.errors import ApplianceError

        def nothing() -> None:
            raise ApplianceError("no appliance")

        monkeypatch.setattr("fleetscan.appliance.built.find", nothing)
        (tmp_path / "a.img").touch()
        assert run(["scan", str(tmp_path), "--facts", str(tmp_path / "facts")]) == exits.FAILED
        assert not (tmp_path / "facts").exists()


def test_times_and_lists_are_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [([1, "x"], None), ("y", 1.5)])
    assert capsys.readouterr().out == "a       b\n----  ---\n1, x\ny     1.5\n"
