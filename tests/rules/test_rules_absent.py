"""What a rule's verdict is where nothing is there that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fleetscan.rules import lint
from fleetscan.rules.cases import run_cases
from fleetscan.rules.load import load_packs
from tests.rules.rule_builder import make_rule, only, run

SUBJECT = "SELECT machine_id, root FROM users WHERE name = 'kiosk'"
KIOSK = "SELECT machine_id, root, name FROM users WHERE name = 'kiosk' AND password = 'empty'"
OTHERS = {"users": [{"name": "root"}]}


@pytest.mark.parametrize(
    ("absent", "state"),
    [("fail", "fail"), ("notapplicable", "notapplicable"), ("unknown", "unknown")],
)
def test_an_absent_subject_gives_the_state_that_the_rule_says(absent: str, state: str) -> None:
    rule = make_rule(violations=KIOSK, absent=absent, subject=SUBJECT)
    row = only(run(rule, given=OTHERS))
    assert (row["state"], row["violations"]) == (state, 0)
    assert row["message"] == "what the rule is about is not there"
    assert only(run(rule, given={"users": [{"name": "kiosk"}]}))["state"] == "pass"
    bad = {"users": [{"name": "kiosk", "password": "empty"}]}
    assert only(run(rule, given=bad))["state"] == "fail"


def test_a_rule_that_says_nothing_passes_as_it_did() -> None:
    assert only(run(make_rule(violations=KIOSK), given=OTHERS))["state"] == "pass"
    assert only(run(make_rule(violations=KIOSK, absent="pass"), given=OTHERS))["state"] == "pass"


def test_an_informational_rule_stays_so() -> None:
    rule = make_rule(violations=KIOSK, absent="fail", subject=SUBJECT, informational=True)
    assert only(run(rule, given=OTHERS))["state"] == "informational"


def test_what_could_not_be_read_is_not_absent() -> None:
    rule = make_rule(violations=KIOSK, absent="notapplicable", subject=SUBJECT)
    lost = [{"root": "/dev/sda1", "table_name": "users", "status": "failed", "error": "damaged"}]
    assert only(run(rule, given=OTHERS, coverage=lost))["state"] == "unknown"


def test_one_machine_has_it_and_the_other_does_not() -> None:
    rule = make_rule(violations=KIOSK, absent="notapplicable", subject=SUBJECT)
    users = [{"machine_id": "a", "name": "kiosk"}, {"machine_id": "b", "name": "root"}]
    states = {row["machine_id"]: row["state"] for row in run(rule, given={"users": users})}
    assert states == {"a": "pass", "b": "notapplicable"}


def test_rows_about_the_machine_count_for_each_of_its_roots() -> None:
    rule = make_rule(
        violations="SELECT machine_id, device FROM partitions WHERE false",
        absent="notapplicable",
        subject="SELECT machine_id FROM partitions",
        empty_ok=["partitions"],
    )
    systems = [{"root": "/dev/sda1"}, {"root": "/dev/sda2"}]
    given = {"operating_systems": systems, "partitions": [{"device": "/dev/sda1"}]}
    assert [row["state"] for row in run(rule, given=given)] == ["pass", "pass"]
    none = {"operating_systems": systems}
    assert {row["state"] for row in run(rule, given=none)} == {"notapplicable"}


@pytest.mark.parametrize(
    ("check", "given", "state"),
    [
        ({"file": {"paths": ["/etc/x"], "mode": "0600"}}, {"files": [{"path": "/y"}]}, "fail"),
        ({"user": {"names": ["a"], "passwords": ["locked"]}}, {"users": [{"name": "b"}]}, "fail"),
        (
            {"filesystem": {"path": "/tmp", "options": ["nodev"]}},
            {"mountpoints": [{"path": "/"}]},
            "fail",
        ),
        ({"file": {"paths": ["/etc/x"], "present": False}}, {"files": [{"path": "/y"}]}, "pass"),
    ],
)
def test_checks_know_what_they_are_about(check: dict[str, Any], given: Any, state: str) -> None:
    assert only(run(make_rule(check=check, absent="fail"), given=given))["state"] == state


@pytest.mark.parametrize(
    "fields",
    [
        {"absent": "notapplicable"},
        {"subject": SUBJECT},
        {"subject": SUBJECT, "absent": "pass"},
        {"absent": "maybe"},
        {"absent": "fail", "subject": "DELETE FROM users"},
        {
            "absent": "notapplicable",
            "violations": None,
            "check": {"package": {"names": ["x"], "present": False}},
        },
    ],
)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make_rule(**fields)


def test_our_packs_say_what_absence_means_and_show_it() -> None:
    packs = load_packs()
    outcomes = run_cases(packs)
    assert [text for pack in packs for text in lint.missing(pack, outcomes)] == []
    assert all(lint.is_own(pack) for pack in packs)


def test_a_pack_of_a_site_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "pack.yaml").write_text("title: Ours\ndescription: For tests.\n")
    rule = "id: {}\ntitle: A\nseverity: low\nrationale: B\nremediation: C\nviolations: {}\n"
    (tmp_path / "a.yaml").write_text(rule.format("one", KIOSK))
    (tmp_path / "b.yaml").write_text(rule.format("two", KIOSK) + "absent: pass\n")
    (pack,) = load_packs([tmp_path])
    first, second = lint.missing(pack, run_cases([pack]))
    assert "one: absent is not stated" in first
    assert "two: no case with absent: true shows that it is pass" in second
    assert not lint.is_own(pack)
