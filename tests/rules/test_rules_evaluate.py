from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.rules import case_facts
from fleetscan.rules.evaluate import evaluate
from fleetscan.rules.model import Config, PackInfo
from fleetscan.rules.query import EVIDENCE_ROWS, EVIDENCE_TEXT
from fleetscan.rules.results import SCHEMA
from tests.rules.rule_builder import (
    NAMED_BAD,
    NOW,
    Facts,
    make_pack,
    make_rule,
    only,
    run,
    status,
)

# -- States ---------------------------------------------------------------------------------------


def test_no_violation_passes() -> None:
    row = only(run(make_rule("some-rule", violations=NAMED_BAD)))

    assert row["state"] == "pass"
    assert (row["machine_id"], row["root"]) == ("m", "/dev/sda1")
    assert (row["run_id"], row["pack"], row["rule_id"]) == (
        case_facts.RUN_ID,
        "some-pack",
        "some-rule",
    )
    assert (row["title"], row["severity"]) == ("Something holds", "high")
    assert (row["violations"], row["evidence"], row["message"]) == (0, [], None)


def test_a_violation_fails_with_its_evidence() -> None:
    given: Facts = {"users": [{"name": "bad"}, {"name": "good"}]}

    row = only(run(make_rule(violations=NAMED_BAD), given=given))

    assert row["state"] == "fail"
    assert row["violations"] == 1
    assert [json.loads(text) for text in row["evidence"]] == [{"name": "bad"}]


def test_an_informational_rule_does_not_fail() -> None:
    given: Facts = {"users": [{"name": "bad"}]}

    row = only(run(make_rule(violations=NAMED_BAD, informational=True), given=given))

    assert (row["state"], row["violations"]) == ("informational", 1)
    assert len(row["evidence"]) == 1


@pytest.mark.parametrize(
    ("coverage", "state", "message"),
    [
        (status("users", "failed", "bad sector"), "unknown", "users: bad sector"),
        (status("users", "missing"), "unknown", "users: was not gathered"),
        (status("users", "empty"), "unknown", "users: nothing was found"),
        (status("users", "not_applicable", "no accounts"), "notapplicable", "users: no accounts"),
        (
            status("users", "not_applicable", "not asked for: --files none"),
            "notchecked",
            "users: not asked for",
        ),
    ],
)
def test_a_table_that_was_not_seen_never_passes(
    coverage: case_facts.Row, state: str, message: str
) -> None:
    row = only(run(make_rule(violations=NAMED_BAD), coverage=[coverage]))

    assert row["state"] == state
    assert row["message"].startswith(message)


def test_a_table_read_in_a_subquery_counts_as_well() -> None:
    sql = "SELECT machine_id, root FROM users WHERE name IN (SELECT name FROM packages)"

    row = only(run(make_rule(violations=sql), coverage=[status("packages", "failed", "torn")]))

    assert (row["state"], row["message"]) == ("unknown", "packages: torn")


def test_a_table_that_is_not_read_does_not_count() -> None:
    row = only(run(make_rule(violations=NAMED_BAD), coverage=[status("packages", "failed", "x")]))

    assert row["state"] == "pass"


def test_the_gravest_of_several_reasons_is_reported() -> None:
    sql = "SELECT u.machine_id FROM users u, packages, groups WHERE false"
    coverage = [
        status("users", "not_applicable", "none"),
        status("packages", "failed", "torn"),
        status("groups", "not_applicable", "not asked for"),
    ]

    assert only(run(make_rule(violations=sql), coverage=coverage))["message"] == "packages: torn"
    assert only(run(make_rule(violations=sql), coverage=coverage[:1] + coverage[2:]))["state"] == (
        "notchecked"
    )


@pytest.mark.parametrize("kind", ["empty", "not_applicable"])
def test_empty_ok_takes_no_rows_for_an_answer(kind: str) -> None:
    rule = make_rule(violations=NAMED_BAD, empty_ok=["users"])

    assert only(run(rule, coverage=[status("users", kind, "none")]))["state"] == "pass"


@pytest.mark.parametrize("coverage", [status("users", "failed"), status("users", "missing")])
def test_empty_ok_does_not_forgive_a_failure(coverage: case_facts.Row) -> None:
    rule = make_rule(violations=NAMED_BAD, empty_ok=["users"])

    assert only(run(rule, coverage=[coverage]))["state"] == "unknown"


def test_evidence_in_a_table_that_broke_off_still_fails_and_says_so() -> None:
    given: Facts = {"users": [{"name": "bad"}]}

    row = only(
        run(
            make_rule(violations=NAMED_BAD),
            given=given,
            coverage=[status("users", "failed", "torn")],
        )
    )

    assert (row["state"], row["message"]) == ("fail", "users: torn")


PERMIT = "SELECT machine_id, root FROM config WHERE path = 'permitrootlogin' AND value = 'yes'"
READS = {"config": ["/etc/ssh/*", "/usr/etc/ssh/sshd_config"]}
SETTING: Facts = {"config": [{"file": "/etc/ssh/sshd_config", "path": "port", "value": "22"}]}


@pytest.mark.parametrize(
    ("unread", "state"),
    [
        (["/etc/pam.d/login"], "pass"),
        (["/etc/pam.d/login", "/etc/sudoers"], "pass"),
        (["/etc/ssh/sshd_config"], "unknown"),
        (["/etc/pam.d/login", "/etc/ssh/sshd_config.d/10-local.conf"], "unknown"),
        (["/ETC/SSH/sshd_config"], "unknown"),
        ([], "unknown"),
        (None, "unknown"),
    ],
)
@pytest.mark.parametrize("complete", [[], ["config"]])
def test_a_file_that_was_not_read_concerns_the_rules_that_look_at_it(
    unread: list[str] | None, state: str, complete: list[str]
) -> None:
    rule = make_rule(violations=PERMIT, reads=READS, complete=complete)
    torn = status("config", "failed", "it does not fit", rows=1, unread=unread)

    row = only(run(rule, given=SETTING, coverage=[torn]))

    assert (row["state"], row["message"]) == (
        state,
        None if state == "pass" else "config: it does not fit",
    )


@pytest.mark.parametrize(
    ("pattern", "unread", "state"),
    [
        ("/etc/ssh/*", "/srv/", "pass"),
        ("/etc/ssh/*", "/etc/", "unknown"),
        ("/etc/ssh/*", "/etc/ssh/", "unknown"),
        ("/etc/ssh/*", "/etc/ssh/sshd_config.d/", "unknown"),
        ("/etc/ssh/*", "/etc/sshx/", "pass"),
        ("/etc/ssh/*", "/ETC/SSH/", "unknown"),
        ("/etc/ssh/*", "/", "unknown"),
        ("*", "/srv/", "unknown"),
        ("/s*/secret", "/srv/", "unknown"),
        ("/s?v", "/srv/", "unknown"),
        ("/[st]rv/x", "/srv/", "unknown"),
        ("/srv", "/srv/", "unknown"),  # a mountpoint's own owner and mode are its filesystem's
        ("/srv/a", "/srv/", "unknown"),
        ("/srv/a", "/srv/a/b/", "pass"),
        ("/srvx", "/srv/", "pass"),
        ("/", "/srv/", "pass"),
    ],
)
def test_a_directory_that_was_not_read_concerns_the_rules_that_may_look_below_it(
    pattern: str, unread: str, state: str
) -> None:
    rule = make_rule(violations=PERMIT, reads={"config": [pattern]})
    torn = status("config", "failed", "not mounted: /srv", rows=1, unread=[unread])

    assert only(run(rule, given=SETTING, coverage=[torn]))["state"] == state


@pytest.mark.parametrize("kernels", [False, True])
def test_where_only_kernels_may_lack_the_system_is_known(kernels: bool) -> None:
    violations = "SELECT machine_id, root FROM operating_systems WHERE len(kernels) > 3"
    rule = make_rule(
        violations=violations if kernels else NAMED_BAD, applies_to="distro <> 'debian'"
    )
    given: Facts = {"operating_systems": [{"root": "/dev/sda1", "distro": "debian"}]}
    torn = status("operating_systems", "failed", "no /boot", rows=1, unread=["/boot/"])

    assert only(run(rule, given=given, coverage=[torn]))["state"] == (
        "unknown" if kernels else "notapplicable"
    )


def test_a_rule_that_says_nothing_of_files_is_concerned_by_each() -> None:
    torn = status("config", "failed", "it does not fit", rows=1, unread=["/etc/pam.d/login"])

    assert only(run(make_rule(violations=PERMIT), given=SETTING, coverage=[torn]))["state"] == (
        "unknown"
    )


def test_files_of_one_table_say_nothing_of_another() -> None:
    sql = "SELECT c.machine_id, c.root FROM config c, services WHERE false"
    rule = make_rule(violations=sql, reads=READS)
    torn = [
        status("services", "failed", "x", rows=1, unread=["/etc/pam.d/login"]),
        status("config", "failed", "y", rows=1, unread=["/etc/pam.d/login"]),
    ]
    given: Facts = {**SETTING, "services": [{"name": "a"}]}

    assert only(run(rule, given=given, coverage=torn[:1]))["message"] == "services: x"
    assert only(run(rule, given=given, coverage=torn))["state"] == "unknown"
    assert only(run(rule, given=given, coverage=torn[1:]))["state"] == "pass"


@pytest.mark.parametrize(("empty_ok", "state"), [([], "unknown"), (["config"], "pass")])
def test_a_table_without_rows_is_empty_to_those_who_look_at_other_files(
    empty_ok: list[str], state: str
) -> None:
    rule = make_rule(violations=PERMIT, reads=READS, empty_ok=empty_ok)
    torn = status("config", "failed", "x", rows=0, unread=["/etc/pam.d/login"])

    assert only(run(rule, coverage=[torn]))["state"] == state


def test_a_machine_whose_own_file_was_not_read_is_the_only_one_unknown() -> None:
    torn = [
        status("config", "failed", "x", machine_id=machine, rows=1, unread=[file])
        for machine, file in (("a", "/etc/ssh/sshd_config"), ("b", "/etc/fstab"))
    ]
    given: Facts = {"config": [{"machine_id": m, "file": "/f"} for m in ("a", "b")]}

    rows = run(make_rule(violations=PERMIT, reads=READS), given=given, coverage=torn)

    assert [(row["machine_id"], row["state"]) for row in rows] == [("a", "unknown"), ("b", "pass")]


AVAHI = {"service": {"names": ["avahi-daemon.*"], "enabled": False}}
TELNETD = {"package": {"names": ["telnetd"], "present": False}}


@pytest.mark.parametrize(
    ("check", "table", "unread", "state"),
    [
        (AVAHI, "services", "/etc/systemd/system/other.service", "pass"),
        (AVAHI, "services", "/usr/lib/systemd/system/avahi-daemon.socket", "unknown"),
        (TELNETD, "packages", "/usr/lib/python3/dist-packages/x.egg-info", "pass"),
    ],
)
def test_checks_know_which_files_concern_them(
    check: dict[str, Any], table: str, unread: str, state: str
) -> None:
    given: Facts = {"services": [{"name": "a"}], "packages": [{"name": "a"}]}
    torn = [status(table, "failed", "x", rows=1, unread=[unread])]
    asked_elsewhere = f"(machine_id, root) IN (SELECT machine_id, root FROM {table})"  # noqa: S608 - parametrized above

    def state_of(**fields: Any) -> str:
        return str(only(run(make_rule(check=check, **fields), given=given, coverage=torn))["state"])

    assert state_of() == state
    assert state_of(applies_to=asked_elsewhere) == "unknown"


def test_a_missing_row_proves_nothing_where_the_table_must_be_complete() -> None:
    check = {"package": {"names": ["auditd"], "present": True}}
    torn = [status("packages", "failed", "torn")]
    given: Facts = {"packages": [{"name": "bash"}]}

    assert only(run(make_rule(check=check), given=given))["state"] == "fail"
    assert only(run(make_rule(check=check), given=given, coverage=torn))["state"] == "unknown"


def test_applies_to_decides_where_a_rule_applies() -> None:
    given: Facts = {
        "operating_systems": [
            {"machine_id": "a", "distro": "debian"},
            {"machine_id": "b", "distro": "fedora"},
        ],
        "users": [{"machine_id": "a", "name": "bad"}, {"machine_id": "b", "name": "bad"}],
    }

    rows = run(make_rule(violations=NAMED_BAD, applies_to="distro = 'debian'"), given=given)

    assert [(row["machine_id"], row["state"]) for row in rows] == [
        ("a", "fail"),
        ("b", "notapplicable"),
    ]
    assert rows[1]["violations"] == 0
    assert rows[1]["evidence"] == []


def test_where_the_system_is_not_known_nor_is_whether_a_rule_applies() -> None:
    rule = make_rule(violations=NAMED_BAD, applies_to="distro = 'debian'")
    given: Facts = {"operating_systems": [{"distro": None}], "users": [{"name": "bad"}]}

    row = only(
        run(rule, given=given, coverage=[status("operating_systems", "failed", "no os-release")])
    )

    assert (row["state"], row["message"]) == ("unknown", "operating_systems: no os-release")


def test_the_unknown_query_names_what_nothing_can_be_said_about() -> None:
    unknown = """
        SELECT machine_id, root, name || ' is odd' AS message
        FROM users WHERE starts_with(name, 'o')
    """
    rule = make_rule(violations=NAMED_BAD, unknown=unknown)

    row = only(run(rule, given={"users": [{"name": "ox"}, {"name": "ob"}]}))
    assert (row["state"], row["message"]) == ("unknown", "ob is odd")
    assert only(run(rule, given={"users": [{"name": "ox"}, {"name": "bad"}]}))["state"] == "fail"


def test_a_machine_without_system_is_one_error_and_not_one_a_rule() -> None:
    given: Facts = {
        "machines": [
            {"machine_id": "broken", "outcome": "failed", "error": "truncated qcow2"},
            {"machine_id": "data", "outcome": "partial"},
            {"machine_id": "m"},
        ],
        "operating_systems": [{"machine_id": "m"}, {"machine_id": "broken"}],
        "users": [{"name": "root"}, {"machine_id": "broken", "name": "bad"}],
    }
    rules = [make_rule("a-rule", violations=NAMED_BAD), make_rule("b-rule", violations=NAMED_BAD)]

    rows = run(*rules, given=given)

    found = [(r["machine_id"], r["root"], r["rule_id"], r["state"], r["message"]) for r in rows]
    assert found == [
        ("broken", None, "machine-readable", "error", "truncated qcow2"),
        ("data", None, "machine-readable", "error", "no operating system was found"),
        ("m", "/dev/sda1", "a-rule", "pass", None),
        ("m", "/dev/sda1", "b-rule", "pass", None),
    ]


def test_a_root_known_from_coverage_alone_is_judged() -> None:
    given: Facts = {"machines": [{}], "operating_systems": [{"machine_id": "other"}]}

    rows = run(
        make_rule(violations=NAMED_BAD), given=given, coverage=[status("users", "failed", "torn")]
    )

    assert [row["state"] for row in rows if row["machine_id"] == "m"] == ["unknown"]


def test_deselected_rules_are_told_as_such() -> None:
    rules = [make_rule("a-rule"), make_rule("b-rule")]

    rows = run(*rules, config=Config(deselect=["a-*"]))

    assert [row["state"] for row in rows] == ["notselected", "pass"]


def test_a_run_without_machines_has_no_results() -> None:
    with case_facts.load({}) as connection:
        results = evaluate(connection, [make_pack(make_rule())], now=NOW)

    assert results.table.num_rows == 0
    assert results.table.schema == SCHEMA


# -- Whose violations -----------------------------------------------------------------------------


def test_each_root_is_judged_by_itself() -> None:
    given: Facts = {"users": [{"name": "bad"}, {"name": "good", "root": "/dev/sdb1"}]}

    rows = run(make_rule(violations=NAMED_BAD), given=given)

    assert [(row["root"], row["state"]) for row in rows] == [
        ("/dev/sda1", "fail"),
        ("/dev/sdb1", "pass"),
    ]


def test_rows_without_root_count_for_every_root_of_their_machine() -> None:
    given: Facts = {
        "operating_systems": [{"root": "a"}, {"root": "b"}, {"machine_id": "n"}],
        "disks": [{"path": "x"}, {"machine_id": "n", "path": "y"}],
    }
    sql = "SELECT machine_id, path FROM disks WHERE path = 'x'"

    rows = run(make_rule(violations=sql), given=given)

    assert [(row["machine_id"], row["root"], row["state"]) for row in rows] == [
        ("m", "a", "fail"),
        ("m", "b", "fail"),
        ("n", "/dev/sda1", "pass"),
    ]


def test_rows_with_and_without_root_add_up() -> None:
    given: Facts = {"users": [{"name": "bad"}], "disks": [{"path": "x"}]}
    sql = (
        "SELECT machine_id, root, name AS what FROM users UNION ALL "
        "SELECT machine_id, NULL, path FROM disks"
    )

    row = only(run(make_rule(violations=sql), given=given))

    assert row["violations"] == 2
    assert row["evidence"] == ['{"what":"bad"}', '{"what":"x"}']


def test_coverage_of_machine_tables_is_looked_up_without_root() -> None:
    sql = "SELECT machine_id, path FROM disks WHERE false"
    failed = status("disks", "failed", "gone", root=None)

    row = only(run(make_rule(violations=sql), coverage=[failed]))

    assert (row["state"], row["message"]) == ("unknown", "disks: gone")


def test_the_runs_own_books_need_no_coverage() -> None:
    sql = "SELECT machine_id, source FROM machines JOIN coverage USING (machine_id) WHERE torn"
    missing = [
        status("machines", "missing", root=None),
        status("coverage", "missing", root=None),
    ]

    assert only(run(make_rule(violations=sql), coverage=missing))["state"] == "pass"


def test_a_fleet_rule_says_who_could_not_be_compared() -> None:
    sql = """
        SELECT machine_id, root, etc_machine_id FROM operating_systems
        WHERE etc_machine_id IN (
            SELECT etc_machine_id FROM operating_systems
            GROUP BY etc_machine_id HAVING count(DISTINCT machine_id) > 1)
    """
    given: Facts = {
        "machines": [{"machine_id": "lost", "outcome": "failed"}],
        "operating_systems": [
            {"machine_id": "a", "etc_machine_id": "1"},
            {"machine_id": "b", "etc_machine_id": "1"},
            {"machine_id": "c", "etc_machine_id": "2"},
        ],
    }

    rows = run(make_rule(violations=sql, fleet=True), given=given)

    assert [(row["machine_id"], row["state"]) for row in rows] == [
        ("a", "fail"),
        ("b", "fail"),
        ("c", "pass"),
        ("lost", "error"),
    ]
    assert rows[2]["message"] == "machines that could not be read and were not compared: 1"


# -- Evidence -------------------------------------------------------------------------------------


def test_evidence_is_capped_and_counted_whole_and_in_order() -> None:
    given: Facts = {"users": [{"name": f"bad{number:03}"} for number in reversed(range(50))]}
    sql = "SELECT machine_id, root, name FROM users"

    row = only(run(make_rule(violations=sql), given=given))

    assert row["violations"] == 50
    assert row["evidence"] == [f'{{"name":"bad{number:03}"}}' for number in range(EVIDENCE_ROWS)]


def test_long_texts_in_evidence_are_cut() -> None:
    row = only(
        run(
            make_rule(violations="SELECT machine_id, root, name FROM users"),
            given={"users": [{"name": "x" * 100_000}]},
        )
    )

    assert json.loads(row["evidence"][0]) == {"name": "x" * EVIDENCE_TEXT}


def test_a_row_that_says_only_whose_it_is_is_an_empty_object() -> None:
    row = only(run(make_rule(violations="SELECT machine_id, root FROM users")))

    assert row["evidence"] == ["{}"]


def test_times_and_numbers_in_evidence_are_plain_json() -> None:
    given: Facts = {
        "users": [{"name": "a", "password_changed": dt.date(2025, 3, 30), "uid": 4294967295}]
    }
    sql = 'SELECT machine_id, root, uid, password_changed, comment AS "it\'s ""odd""" FROM users'

    row = only(run(make_rule(violations=sql), given=given))

    assert json.loads(row["evidence"][0]) == {
        "uid": 4294967295,
        "password_changed": "2025-03-30 00:00:00+00",
        'it\'s "odd"': None,
    }


HOSTILE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


ROWS = st.lists(
    st.tuples(HOSTILE.filter(bool), HOSTILE.filter(bool), HOSTILE),
    min_size=1,
    max_size=10,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=10, deadline=None)
@given(ROWS)
def test_guest_strings_are_data(rows: list[tuple[str, str, str]]) -> None:
    users = [{"machine_id": machine, "root": root, "name": name} for machine, root, name in rows]

    found = run(
        make_rule(violations="SELECT machine_id, root, name FROM users"), given={"users": users}
    )

    assert {
        (row["machine_id"], row["root"], json.loads(row["evidence"][0])["name"]) for row in found
    } == set(rows)


# -- Parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "config", "state"),
    [
        ({"names": ["bad"]}, {}, "fail"),
        ({"names": []}, {}, "pass"),
        ({"names": ["bad"]}, {"names": ["worse"]}, "pass"),
        ({"names": ["x' OR true --"]}, {}, "pass"),
    ],
)
def test_parameters_are_bound(
    parameters: dict[str, Any], config: dict[str, Any], state: str
) -> None:
    rule = make_rule(
        violations="SELECT machine_id, root FROM users WHERE list_contains($names, name)",
        parameters=parameters,
    )
    given: Facts = {"users": [{"name": "bad"}]}

    row = only(run(rule, given=given, config=Config(parameters={"some-rule": config})))

    assert row["state"] == state


def test_now_and_today_are_the_time_given() -> None:
    sql = (
        "SELECT machine_id, root, CAST($today AS DATE) AS today, CAST($now AS TIMESTAMPTZ) AS now "
        "FROM users"
    )

    row = only(run(make_rule(violations=sql)))

    assert row["evidence"] == ['{"today":"2026-01-01","now":"2026-01-01 00:00:00+00"}']


def test_order_does_not_depend_on_the_order_of_rows() -> None:
    machines = [{"machine_id": name, "name": "bad"} for name in ("b", "a", "c")]
    rules = [make_rule("b-rule", violations=NAMED_BAD), make_rule("a-rule")]

    rows = run(*rules, given={"users": machines})

    assert [(row["machine_id"], row["rule_id"]) for row in rows] == [
        (machine, rule) for machine in "abc" for rule in ("a-rule", "b-rule")
    ]


def test_a_pack_s_rules_do_not_apply_to_systems_of_another_kind() -> None:
    info = PackInfo(title="t", description="d", applies_to="family = 'windows'")
    pack = replace(make_pack(make_rule(violations=NAMED_BAD)), info=info)
    found: Facts = {
        "operating_systems": [
            {"machine_id": "linux", "family": "linux"},
            {"machine_id": "windows", "family": "windows"},
        ],
        "users": [{"machine_id": name, "name": "bad"} for name in ("linux", "windows")],
    }
    with case_facts.connect(found, ()) as connection:
        results = evaluate(connection, [pack], now=NOW)
    states = {row["machine_id"]: row["state"] for row in results.table.to_pylist()}
    assert states == {"linux": "notapplicable", "windows": "fail"}


def test_a_pack_asks_nothing_but_what_a_system_is() -> None:
    for predicate in ("name = $name", "machine_id IN (SELECT machine_id FROM users)"):
        with pytest.raises(ValueError, match="only the columns of"):
            PackInfo(title="t", description="d", applies_to=predicate)
