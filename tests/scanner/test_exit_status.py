"""How commands end, and what they say then, as their users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetscan.appliance.built import Appliance
from fleetscan.scanner.cli import exits, run
from fleetscan.scanner.store.arrow import rows_to_arrow
from fleetscan.scanner.store.runs import Store
from fleetscan.scanner.tables import load_tables
from fleetscan.scanner.tables.coverage.spec import Coverage, CoverageStatus
from fleetscan.scanner.tables.machines.spec import Outcome
from tests.scanner.store.making import ROOT, add_machine, group_rows, machine_rows

PACK = "title: Test\ndescription: Rules for tests.\n"
RULE = """\
id: {id}
title: No group is called sudo
severity: high
rationale: A test.
remediation: None.
violations: {sql}
"""
SUDO = "select machine_id, root, name from groups where name = 'sudo'"
ADM = "select machine_id, root, name from groups where name = 'adm'"
DIVIDED = "select machine_id, root, 1 // (gid - 1) as n, cast(name as integer) as m from groups"

Told = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Site:
    """A facts directory and a pack."""

    folder: Path

    @property
    def facts(self) -> Path:
        return self.folder / "facts"

    def rules(self, *statements: str) -> list[str]:
        """The options that choose a pack of such rules."""
        pack = self.folder / "pack"
        pack.mkdir()
        (pack / "pack.yaml").write_text(PACK)
        for number, sql in enumerate(statements):
            (pack / f"rule-{number}.yaml").write_text(RULE.format(id=f"rule-{number}", sql=sql))
        return ["--facts", str(self.facts), "--pack", str(pack)]

    def scan(self, groups: str = "ok", failed: Sequence[str] = (), fine: int = 1) -> None:
        """A run whose fine machines have the group sudo, as far as that table could be read."""
        names = [f"fine-{number}" for number in range(fine)]
        begun = Store(self.facts).begin([*names, *failed], settings={})
        for name in names:
            row = Coverage(
                root=ROOT,
                table_name="groups",
                status=CoverageStatus(groups),
                rows=1,
                seconds=0.0,
                error=None if groups == "ok" else "a bad sector",
                unread=None,
            )
            with begun.machine_writer(name) as writer:
                writer.write("machines", machine_rows(name, begun.run_id))
                coverage = rows_to_arrow(load_tables()["coverage"], [row], machine_id=name)
                writer.write("coverage", coverage)
                if groups == "ok":
                    writer.write("groups", group_rows(name, ["sudo"]))
                writer.commit({})
        for name in failed:
            add_machine(begun, name, (), outcome=Outcome.FAILED)
        begun.finish()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class TestCheck:
    def test_a_fleet_that_was_seen_and_complies_is_fine(self, site: Site) -> None:
        site.scan()
        assert run(["check", *site.rules(ADM)]) == exits.FINE

    def test_nothing_seen_is_never_success(self, site: Site, capsys: Told) -> None:
        site.scan(groups="failed")
        arguments = site.rules(SUDO)
        for more in ([], ["--fail-on", "none"], ["--output", "json"]):
            assert run(["check", *arguments, *more]) == exits.NOT_SCANNED
            assert "no rule has a verdict on 1 of 1 machines: fine-0" in capsys.readouterr().err

    def test_rules_that_only_err_are_no_success(self, site: Site, capsys: Told) -> None:
        site.scan()
        assert run(["check", *site.rules(ADM, DIVIDED)]) == exits.NOT_SCANNED
        assert "rules that gave nothing but errors: rule-1" in capsys.readouterr().err

    def test_a_pack_that_is_about_nothing_here_is_no_success(
        self, site: Site, capsys: Told
    ) -> None:
        site.scan()
        arguments = site.rules(
            "\napplies_to: ".join([ADM, "select machine_id, root from groups where false"])
        )
        assert run(["check", *arguments]) == exits.NOT_SCANNED
        assert "nothing was checked" in capsys.readouterr().err

    def test_a_finding_outweighs_machines_without_verdict(self, site: Site, capsys: Told) -> None:
        site.scan(failed=["broken"])
        arguments = site.rules(SUDO)
        assert run(["check", *arguments]) == exits.FINDINGS
        assert "no rule has a verdict on 1 of 2 machines: broken" in capsys.readouterr().err
        assert run(["check", *arguments, "--fail-on", "none"]) == exits.NOT_SCANNED

    def test_mass_failure_is_a_failure_where_a_share_is_named(self, site: Site) -> None:
        site.scan(failed=["a", "b"], fine=3)
        arguments = site.rules(SUDO)
        assert run(["check", *arguments, "--fail-over", "39.9"]) == exits.FAILED
        assert run(["check", *arguments, "--fail-over", "40"]) == exits.FINDINGS
        assert run(["check", *arguments, "--fail-over", "140"]) == exits.BAD_USAGE

    def test_a_failed_machine_is_one_line_and_not_one_a_rule(
        self, site: Site, capsys: Told
    ) -> None:
        site.scan(failed=["broken", "torn"])
        run(["check", *site.rules(*[ADM] * 9), "--output", "json"])
        found = json.loads(capsys.readouterr().out)
        errors = [row for row in found["results"] if row["state"] == "error"]
        assert [(row["machine_id"], row["rule_id"]) for row in errors] == [
            ("broken", "machine-readable"),
            ("torn", "machine-readable"),
        ]
        assert len(found["results"]) == 11


@pytest.fixture
def appliance(monkeypatch: pytest.MonkeyPatch) -> None:
    """An appliance that is there, and starts where nothing else is said."""
    nowhere = Appliance(Path("/none"), "inputs", "content", "6.12", "trixie", {})
    monkeypatch.setattr("fleetscan.appliance.built.find", lambda: nowhere)
    monkeypatch.setattr("fleetscan.appliance.built.verify", lambda appliance: None)
    monkeypatch.setattr("fleetscan.scanner.isolation.require_start", lambda asked, keys: None)


@pytest.mark.usefixtures("appliance")
class TestHost:
    """What would make every machine fail is found before the first one."""

    @pytest.fixture
    def refused(self, tmp_path: Path, capsys: Told) -> Callable[..., str]:
        (tmp_path / "a.img").write_bytes(bytes(512))

        def told(*words: str) -> str:
            scan = ["scan", str(tmp_path / "a.img"), "--facts", str(tmp_path / "facts"), "-q"]
            assert run([*scan, *words]) == exits.FAILED
            assert not (tmp_path / "facts").exists()
            return capsys.readouterr().err

        return told

    @pytest.mark.parametrize("lost", ["qemu-system-x86_64", "qemu-img"])
    def test_a_missing_program(
        self,
        refused: Callable[..., str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        lost: str,
    ) -> None:
        programs = tmp_path / "bin"
        programs.mkdir()
        for folder in os.get_exec_path():
            for path in Path(folder).glob("*"):
                if path.name != lost and not (programs / path.name).exists():
                    (programs / path.name).symlink_to(path)
        monkeypatch.setenv("PATH", str(programs))
        monkeypatch.setattr(
            "fleetscan.appliance.confinement.layers.require", lambda confinement: None
        )
        said = refused()
        assert f"{lost} is not installed" in said
        assert "hint: on Debian: apt-get install qemu-" in said

    def test_too_little_memory(
        self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("fleetscan.appliance.doctor.SLOT_MIB", 1 << 40)
        said = refused()
        assert "this host cannot scan now: " in said
        assert "a scan needs" in said
        assert "fleetscan doctor" in said

    def test_an_appliance_that_does_not_start(
        self, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from fleetscan.appliance.ground.errors import ApplianceError

        def dead(asked: object, keys: bool) -> None:
            raise ApplianceError("the appliance does not start", hint="run fleetscan doctor")

        monkeypatch.setattr("fleetscan.scanner.isolation.require_start", dead)
        assert "hint: run fleetscan doctor" in refused()

    def test_mass_failure_is_a_failure_where_a_share_is_named(self, tmp_path: Path) -> None:
        for name in ("a.img", "b.img"):
            (tmp_path / name).touch()
        scan = ["scan", str(tmp_path), "--facts", str(tmp_path / "facts"), "-q", "-P", "1"]
        assert run([*scan, "--fail-over", "99"]) == exits.FAILED
        assert Store(tmp_path / "facts").latest().outcomes == {"failed": 2}  # nothing is lost
        assert run([*scan, "--fail-over", "100"]) == exits.NOT_SCANNED


class TestOutput:
    def test_json_of_a_slow_query_is_json(self, site: Site, capfd: Told) -> None:
        site.scan()
        slow = "select count(*) as n from range(60000) a, range(25000) b where a.range > b.range"
        query = ["query", "--facts", str(site.facts), "--output", "json"]
        assert run([*query, "select current_setting('enable_progress_bar') as bar"]) == exits.FINE
        assert json.loads(capfd.readouterr().out) == [{"bar": False}]
        assert run([*query, slow]) == exits.FINE
        assert json.loads(capfd.readouterr().out)[0]["n"] > 0

    @pytest.mark.parametrize("form", ["table", "json", "csv"])
    def test_a_reader_that_stops_reading_ends_a_command_as_sigpipe_does(
        self, site: Site, form: str
    ) -> None:
        site.scan()
        query = "select range as n, repeat('x', 100) as x from range(20000)"
        argv = [sys.executable, "-m", "fleetscan.scanner.cli", "query", query, "--output", form]
        process = subprocess.Popen(
            [*argv, "--facts", str(site.facts)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == exits.BROKEN_PIPE


MISTAKES = [
    (("scan", "nothere"), 64, "'{}/nothere' does not exist", "give a folder of images"),
    (("scan", "empty"), 64, "no machines to scan", "--include and --exclude"),
    (("scan", "a.img", "--exclude", "*"), 64, "no machines to scan", "--include and --exclude"),
    (("scan", "bad.yaml"), 64, "bad.yaml:3: machines.0.colour", "shows an inventory"),
    (("scan", "bad.json"), 64, "bad.json:1: not JSON", "shows an inventory"),
    (("scan", "bad.csv"), 64, "bad.csv:1: the columns must be", "the first line names the columns"),
    (("scan", "a.img", "a.img"), 64, "is given twice", "give it only once"),
    (("scan", "a.img", "--facts", "a.img"), 64, "a.img' is not a directory", "--facts takes"),
    (("scan", "a.img", "--tls-ca", "x"), 64, "must be given together", "give all three"),
    (("scan", "--resume", "20260131T020304Z-3f9a1c"), 1, "cannot be resumed", "fleetscan runs"),
    (("check", "--facts", "nothere"), 1, "there is no facts directory", "fleetscan scan"),
    (("check", "--facts", "empty"), 1, "there is no finished run", "fleetscan scan"),
    (("check", "--waivers", "nothere"), 64, "nothere: cannot be read: No such file", ""),
    (("check", "--pack", "empty"), 64, "neither a pack nor a folder", "linux-baseline"),
    (("check", "--fail-on", "grave"), 64, "'grave' is not one of", "check --help"),
    (("query", "selec"), 64, "the SQL is not valid: syntax error", "fleetscan tables"),
    (("query", "select * from nothing"), 64, "Table with name nothing does not", "Did you mean"),
    (("query", "drop table x"), 64, "not one SELECT statement", "give a single SELECT"),
    (("report", "--html", "nothere/x.html"), 1, "cannot be written: No such file", "directory"),
    (("runs", "--publish", "20260131T020304Z-3f9a1c"), 1, "cannot be resumed", "fleetscan runs"),
    (("inspect",), 64, "give either disks", "fleetscan inspect -a"),
    (("inspect", "-a", "nothere"), 64, "'nothere' does not exist", "disk image or block device"),
    (("inspect", "-a", "empty"), 64, "'empty' is a directory", "--directory"),
    (("inspect", "--directory", "a.img"), 64, "is not a directory", "-a inspects an image"),
    (("appliance", "import", "nothere"), 1, "No such file or directory", "appliance export"),
    (("appliance", "import", "a.img"), 1, "not an exported appliance", "appliance export"),
]


@pytest.mark.parametrize(
    ("words", "status", "says", "hint"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES]
)
def test_a_mistake_is_reported_with_what_to_do_and_leaves_nothing(
    words: tuple[str, ...],
    status: int,
    says: str,
    hint: str,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Told,
) -> None:
    folder = site.folder
    site.scan()
    (folder / "empty").mkdir()
    (folder / "a.img").write_bytes(bytes(512))
    (folder / "bad.yaml").write_text("- id: a\n  disks: [a.img]\n  colour: red\n")
    (folder / "bad.json").write_text("{")
    (folder / "bad.csv").write_text("a,b\n1,2\n")
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FLEETSCAN_FACTS", str(site.facts))
    monkeypatch.setenv("FLEETSCAN_CACHE", str(folder.parent / f"{folder.name}-cache"))
    assert run(words) == status
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("fleetscan: ")
    assert says.format(folder) in told.err
    assert "\nhint: " in told.err or not hint
    assert hint in told.err.partition("\nhint: ")[2]
    assert "bug" not in told.err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", [["scan", "images"], ["query", "select 1"], ["runs"]])
def test_a_url_is_no_facts_directory(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*command, "--facts", "ftp://user:secret@host/facts"]) == exits.BAD_USAGE
    error = capsys.readouterr().err
    assert "no URL of the scheme ftp" in error
    assert "secret" not in error
    assert not list(tmp_path.iterdir())
