from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleetscan.rules import case_facts
from fleetscan.rules.checks import Check
from fleetscan.rules.evaluate import evaluate
from tests.rules.rule_builder import make_pack, make_rule


def run(check: dict[str, Any], rows: dict[str, list[case_facts.Row]]) -> tuple[str, list[Any]]:
    with case_facts.connect(rows) as connection:
        [row] = evaluate(connection, [make_pack(make_rule(check=check))]).table.to_pylist()
    return row["state"], [json.loads(text) for text in row["evidence"]]


PACKAGES: list[case_facts.Row] = [
    {"name": "telnetd", "version": "1"},
    {"name": "rsh-server", "version": "2"},
    {"name": "nis", "status": "config-files"},
    {"name": "aide", "manager": "npm"},
]


@pytest.mark.parametrize(
    ("check", "found"),
    [
        ({"names": ["telnetd"], "present": False}, ["telnetd"]),
        ({"names": ["rsh-*", "telnet?"], "present": False}, ["rsh-server", "telnetd"]),
        ({"names": ["nis", "telnet", "aide"], "present": False}, []),
    ],
)
def test_packages_that_must_be_absent(check: dict[str, Any], found: list[str]) -> None:
    state, evidence = run({"package": check}, {"packages": PACKAGES})

    assert state == ("fail" if found else "pass")
    assert [row["name"] for row in evidence] == found


@pytest.mark.parametrize(
    ("names", "state"), [(["aide", "telnetd"], "pass"), (["nis"], "fail"), (["aide*"], "fail")]
)
def test_packages_of_which_one_must_be_there(names: list[str], state: str) -> None:
    found, evidence = run({"package": {"names": names, "present": True}}, {"packages": PACKAGES})

    assert found == state
    assert evidence == ([{"missing": " or ".join(names)}] if state == "fail" else [])


def file(**fields: Any) -> dict[str, list[case_facts.Row]]:
    usual = {"path": "/etc/x", "mode": 0o640, "owner": "root", "group_name": "root"}
    return {"files": [{**usual, **fields}]}


PROPERTIES: dict[str, Any] = {
    "paths": ["/etc/x", "/etc/x.d/*"],
    "owners": ["root"],
    "groups": ["root", "shadow"],
    "mode": "0640",
    "types": ["file"],
}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "pass"),
        ({"group_name": "shadow", "mode": 0o400}, "pass"),
        ({"owner": "ann"}, "fail"),
        ({"owner": None}, "fail"),
        ({"group_name": None}, "fail"),
        ({"mode": 0o644}, "fail"),
        ({"mode": 0o4640}, "fail"),
        ({"type": "fifo"}, "fail"),
        ({"type": "symlink", "mode": 0o777}, "pass"),
        ({"path": "/etc/other", "mode": 0o777}, "pass"),
        ({"path": "/etc/x.d/a", "mode": 0o777}, "fail"),
    ],
)
def test_properties_of_files(fields: dict[str, Any], state: str) -> None:
    assert run({"file": PROPERTIES}, file(**fields))[0] == state


def test_modes_in_evidence_read_as_chmod_takes_them() -> None:
    _, [row] = run({"file": {"paths": ["/etc/x"], "mode": "0600"}}, file())

    assert row["mode"] == "0640"


@pytest.mark.parametrize(("present", "state"), [(True, "pass"), (False, "fail")])
def test_presence_of_files(present: bool, state: str) -> None:
    assert run({"file": {"paths": ["/etc/x"], "present": present}}, file())[0] == state
    other = "fail" if state == "pass" else "pass"
    assert run({"file": {"paths": ["/etc/y"], "present": present}}, file())[0] == other


@pytest.mark.parametrize(
    ("enabled", "unit", "state"),
    [
        (False, "enabled", "fail"),
        (False, "static", "pass"),
        (False, "masked", "pass"),
        (True, "enabled", "pass"),
        (True, "disabled", "fail"),
    ],
)
def test_services(enabled: bool, unit: str, state: str) -> None:
    rows: dict[str, list[case_facts.Row]] = {"services": [{"name": "x.service", "state": unit}]}

    assert run({"service": {"names": ["x.*"], "enabled": enabled}}, rows)[0] == state


@pytest.mark.parametrize(
    ("check", "state"),
    [
        ({"present": True}, "pass"),
        ({"present": False}, "fail"),
        ({"passwords": ["locked", "none"]}, "fail"),
        ({"passwords": ["set"]}, "pass"),
        ({"shells": ["/bin/sh"]}, "pass"),
        ({"shells": ["/bin/bash"]}, "fail"),
    ],
)
def test_users(check: dict[str, Any], state: str) -> None:
    rows: dict[str, list[case_facts.Row]] = {
        "users": [{"name": "root", "password": "set", "shell": ""}]
    }

    assert run({"user": {"names": ["root"], **check}}, rows)[0] == state


@pytest.mark.parametrize(
    ("path", "check", "found"),
    [
        ("/tmp", {"options": ["nodev"]}, []),
        ("/tmp", {"options": ["nodev", "noexec"]}, ["noexec"]),
        ("/var", {"options": ["nodev"]}, []),
        ("/tmp", {"separate": True}, []),
        ("/var", {"separate": True}, [None]),
        ("/tmp", {"separate": True, "options": ["nosuid"]}, ["nosuid"]),
    ],
)
def test_filesystems(path: str, check: dict[str, Any], found: list[str | None]) -> None:
    rows: dict[str, list[case_facts.Row]] = {
        "mountpoints": [{"path": "/tmp", "options": ["nodev"]}]
    }

    state, evidence = run({"filesystem": {"path": path, **check}}, rows)

    assert state == ("fail" if found else "pass")
    assert [row.get("lacks") for row in evidence] == found


@pytest.mark.parametrize(
    "check",
    [
        {},
        {"package": {"names": ["a"], "present": True}, "user": {"names": ["a"], "present": True}},
        {"package": {"names": [], "present": True}},
        {"package": {"names": ["a"]}},
        {"file": {"paths": ["/a"]}},
        {"file": {"paths": ["/a"], "present": True, "owners": ["root"]}},
        {"file": {"paths": ["/a"], "mode": "640"}},
        {"file": {"paths": ["/a"], "mode": 416}},
        {"user": {"names": ["a"]}},
        {"user": {"names": ["a"], "passwords": ["weak"]}},
        {"filesystem": {"path": "/tmp"}},
        {"sysctl": {"name": "x"}},
    ],
)
def test_checks_that_check_nothing_or_too_much_are_refused(check: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Check.model_validate(check)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0*?["), min_size=1))
def test_names_are_bound_and_never_become_sql(name: str) -> None:
    compiled = Check.model_validate({"user": {"names": [name], "present": False}}).compile()

    assert compiled.parameters == {"check_0": name}
    assert "$check_0" in compiled.sql
    assert len(name) < 2 or name in "t.name = $check_0" or f"'{name}'" not in compiled.sql


def test_quotes_in_names_match_themselves() -> None:
    rows: dict[str, list[case_facts.Row]] = {"users": [{"name": "o'brien\" --"}]}

    assert run({"user": {"names": ["o'brien\" --"], "present": True}}, rows)[0] == "pass"
