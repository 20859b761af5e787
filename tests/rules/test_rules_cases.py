from __future__ import annotations

from pathlib import Path

import pytest

from fleetscan.appliance.ground.errors import UsageError
from fleetscan.rules import case_facts
from fleetscan.rules.case_facts import FactError
from fleetscan.rules.cases import run_cases
from fleetscan.rules.load import load_packs
from fleetscan.rules.model import Pack
from fleetscan.scanner.tables import load_tables

RULE = """
id: some-rule
title: Nobody is bad
severity: high
rationale: It matters.
remediation: Do it.
violations: SELECT machine_id, root, name FROM users WHERE name = 'bad'
"""


def make_pack(folder: Path, cases: str, rule: str = RULE) -> list[Pack]:
    pack = folder / "some-pack"
    (pack / "cases").mkdir(parents=True)
    (pack / "pack.yaml").write_text("title: Some pack\ndescription: For tests.\n")
    (pack / "rule.yaml").write_text(rule)
    (pack / "cases" / "some-rule.yaml").write_text(cases)
    return list(load_packs([pack]))


def test_a_case_passes_or_tells_the_difference(tmp_path: Path) -> None:
    packs = make_pack(
        tmp_path,
        """
- name: right
  facts: {users: [{name: good}]}
  expect: pass
- name: wrong state
  facts: {users: [{name: bad}]}
  expect: pass
- name: wrong number
  facts: {users: [{name: bad}]}
  expect: [{state: fail, violations: 2}]
- name: no such machine
  facts: {users: [{name: good}]}
  expect: [{state: pass}, {machine: n, state: pass}]
- name: one machine too many
  facts: {users: [{name: good}, {machine_id: n, name: good}]}
  expect: pass
""",
    )

    outcomes = run_cases(packs)

    assert [outcome.problem for outcome in outcomes] == [
        "",
        'm /dev/sda1: expected pass, got fail of 1 ({"name":"bad"})',
        'm /dev/sda1: expected fail of 2, got fail of 1 ({"name":"bad"})',
        "n /dev/sda1: no result",
        "n /dev/sda1: not expected",
    ]
    assert [outcome.line for outcome in outcomes] == [2, 5, 8, 11, 14]
    assert [outcome.passed for outcome in outcomes] == [True, False, False, False, False]


def test_cases_do_not_see_each_others_machines(tmp_path: Path) -> None:
    rule = RULE + "fleet: true\n"
    rule = rule.replace("name = 'bad'", "1 < (SELECT count(*) FROM users)")
    case = "- {name: a, facts: {users: [{name: x}]}, expect: pass}\n"

    assert all(outcome.passed for outcome in run_cases(make_pack(tmp_path, case * 3, rule)))


def test_a_rule_before_its_table_is_an_error_and_not_a_bad_case(tmp_path: Path) -> None:
    case = "- {name: a, facts: {hereafter: [{x: 1}]}, expect: error}\n"
    rule = RULE.replace("FROM users", "FROM hereafter")

    assert [outcome.problem for outcome in run_cases(make_pack(tmp_path, case, rule))] == [""]


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        ("{name: a, facts: {user: []}, expect: pass}", "2: there is no fact table user"),
        ("{name: a, facts: {users: [{nam: x}]}, expect: pass}", "2: users has no column nam"),
        ("{name: a, facts: {users: [{uid: x}]}, expect: pass}", "2: uid: 'x' is no uint32"),
        ("{name: a, facts: {users: [{uid: true}]}, expect: pass}", "2: uid: True is no uint32"),
        (
            "{name: a, facts: {users: [{password: none-such}]}, expect: pass}",
            "2: password: 'none-such' is not one of",
        ),
        ("{name: a, facts: {users: []}, expect: good}", "2: expect"),
        ("{name: a, coverage: [{table_name: users, status: bad}], expect: pass}", "2: status: "),
    ],
)
def test_a_case_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, case: str, problem: str
) -> None:
    packs = make_pack(tmp_path, f"\n- {case}\n")

    with pytest.raises(UsageError) as caught:
        run_cases(packs)

    assert f"some-rule.yaml:{problem}" in str(caught.value)


def test_a_case_file_needs_its_rule(tmp_path: Path) -> None:
    packs = make_pack(tmp_path, "- {name: a, expect: unknown}\n")
    (tmp_path / "some-pack" / "cases" / "other-rule.yaml").write_text("[]")

    with pytest.raises(UsageError, match=r"other-rule\.yaml: no rule has this id"):
        run_cases(packs)


def test_tables_have_the_columns_of_the_views() -> None:
    with case_facts.connect({}) as connection:
        for name, table in load_tables().items():
            rows = connection.execute(f"DESCRIBE {name}").fetchall()
            names = [row[0] for row in rows]
            assert names[:2] == ["run_id", "machine_id"]
            assert names[-len(table.columns) :] == [column.name for column in table.columns]


def test_rows_are_completed_with_neutral_values() -> None:
    rows = case_facts.complete({"packages": [{"name": "bash"}]}, [])

    [package] = rows["packages"]
    assert (package["machine_id"], package["root"]) == ("m", "/dev/sda1")
    assert (package["status"], package["held"], package["epoch"]) == ("installed", False, None)
    assert [row["machine_id"] for row in rows["machines"]] == ["m"]
    assert [row["root"] for row in rows["operating_systems"]] == ["/dev/sda1"]
    coverage = {row["table_name"]: row["status"] for row in rows["coverage"]}
    assert (coverage["packages"], coverage["users"]) == ("ok", "empty")
    assert coverage["filesystems"] == "empty"


def test_coverage_that_is_given_is_not_added_to() -> None:
    said = [{"root": "/dev/sda1", "table_name": "users", "status": "missing"}]

    rows = case_facts.complete({"users": [{"name": "root"}]}, said)

    assert "users" not in {row["table_name"] for row in rows["coverage"]}


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(FactError, match="there is no fact table x"):
        case_facts.connect({"x": []})
