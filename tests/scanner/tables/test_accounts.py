"""Users and groups: parsers of the account files."""

from __future__ import annotations

import pytest
from hypothesis import given

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import colonfile
from fleetscan.scanner.tables.groups.collect import parse_group, parse_gshadow
from fleetscan.scanner.tables.users.collect import (
    Shadow,
    hash_algorithm,
    parse_passwd,
    parse_shadow,
    password_state,
)
from tests.strategies import guest_texts


def test_shadow_counts_only_for_accounts_that_refer_to_it() -> None:
    shadow = {"a": Shadow("*"), "b": Shadow("*")}
    rows = list(parse_passwd("a::0:0:::\nb:x:0:0:::\n", shadow, Problems()))
    assert [row.password for row in rows] == ["empty", "none"]


@pytest.mark.parametrize(
    ("field", "state"),
    [
        ("", "empty"),
        ("!", "none"),
        ("!!", "none"),
        ("*", "none"),
        ("!*", "none"),
        ("*LK*", "none"),
        ("nologin", "none"),
        ("$6$s$h", "set"),
        ("!$6$s$h", "locked"),
        ("!!$6$s$h", "locked"),
    ],
)
def test_password_field_tells_whether_one_can_log_in(field: str, state: str) -> None:
    assert password_state(field)[0] == state


def test_hash_of_unknown_algorithm_is_still_a_password() -> None:
    assert password_state("$new$salt$hash") == ("set", "unknown")


def test_row_never_holds_the_hash() -> None:
    (row,) = parse_passwd("a:$6$salt$secrethash:0:0:::\n", {}, Problems())
    assert "secrethash" not in repr(row)


def test_never_expiring_accounts_end_with_the_year_9999() -> None:
    (entry,) = parse_shadow("a:*::::::99999999999:\n", Problems()).values()
    (row,) = parse_passwd("a:x:0:0:::\n", {"a": entry}, Problems())
    assert row.expires == 253_402_214_400_000_000


@pytest.mark.parametrize(
    ("fields", "maximum"),
    [
        ("*:1:2:30:4:5:6:7", 30),
        ("*:1:2:30:4:5:6:", 30),
        ("*:1:2:30:4:5:6", 30),
        ("*:1:2:30", 30),
        ("*:1:2:30:", 30),
    ],
)
def test_an_entry_of_shadow_counts_where_glibc_reads_it(fields: str, maximum: int) -> None:
    problems = Problems()
    (entry,) = parse_shadow(f"a:{fields}\n", problems).values()
    assert (entry.maximum, list(problems)) == (maximum, [])


@pytest.mark.parametrize(
    "fields", ["*", "*850:0:99999:7:::", "*:1:2:", "*:1:2:3:4", "*:" + ":" * 8]
)
def test_an_entry_of_shadow_that_lost_a_colon_is_malformed(fields: str) -> None:
    problems = Problems()
    assert parse_shadow(f"a:{fields}\n", problems) == {}
    assert "/etc/shadow: malformed line 1" in problems


def test_control_characters_tell_that_a_file_is_damaged() -> None:
    whole, torn = "a:x:0:0:\t\r:/:/bin/sh\n", "a:x:0:0:\x07:/:/bin/sh\n"
    assert colonfile.damage("/etc/passwd", whole, colons=6) == []
    assert colonfile.damage("/etc/passwd", torn, 6) == ["/etc/passwd: contains control characters"]


def test_malformed_lines_are_named_up_to_a_limit() -> None:
    problems = Problems()
    assert list(parse_passwd("junk\n" * 12, {}, problems)) == []
    assert list(problems) == [
        "/etc/passwd: malformed lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"
    ]


def test_first_name_of_a_number_is_its_name() -> None:
    assert colonfile.names_by_id("root:x:0:\ntoor:x:0:\nbad:x::\n:x:7:\n") == {0: "root"}


@given(guest_texts(), guest_texts())
def test_any_text_gives_rows_or_problems(one: str, other: str) -> None:
    problems = Problems()
    text = f"{one}:{other}:0:0:{one}:{other}:{one}\n{other}\n{one}"
    entries = parse_shadow(text, problems)
    list(parse_passwd(text, entries, problems))
    list(parse_group(text, parse_gshadow(text, problems), problems))
    colonfile.names_by_id(text)
    told = (
        "malformed line",
        "contains NUL bytes",
        "contains control",
        "ends in the middle of a line",
    )
    assert all(any(text in problem for text in told) for problem in problems)


@given(guest_texts())
def test_any_hash_has_at_most_one_algorithm(text: str) -> None:
    state, algorithm = password_state(text)
    assert (algorithm is None) == (state in ("empty", "none"))
    assert hash_algorithm(text.lstrip("!")) == algorithm
