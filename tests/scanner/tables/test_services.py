"""Services: unit names and files, SysV headers and links.

What ``systemctl`` says of whole trees is in the cases.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.scanner.tables.services import systemd, sysv, unitfile
from tests.strategies import guest_texts


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("ssh.service", True),
        ("getty@.service", True),
        ("getty@tty1.service", True),
        ("dev-disk-by\\x2duuid.swap", True),
        ("a@b@c.service", False),
        ("@x.service", False),
        (".service", False),
        ("ssh", False),
        ("ssh.txt", False),
        ("two words.service", False),
        ("x" * 248 + ".service", False),
    ],
)
def test_unit_names_are_those_that_systemd_takes(name: str, valid: bool) -> None:
    assert unitfile.is_unit_name(name) is valid


def _parse(*texts: str) -> unitfile.Settings:
    settings: unitfile.Settings = {}
    for text in texts:
        unitfile.parse(text, settings)
    return settings


def test_command_is_the_first_one_left_after_resets() -> None:
    settings = _parse("[Service]\nExecStart=/a\n", "[Service]\nExecStart=\nExecStart=-/b -x\n")
    assert unitfile.command(settings) == "/b -x"


def test_settings_outside_of_their_section_do_not_count() -> None:
    assert unitfile.command(_parse("ExecStart=/a\n[Unit]\nExecStart=/b\n")) is None


def test_comments_are_no_settings_even_within_continued_lines() -> None:
    settings = _parse("[Unit]\n#Description=no\n;Description=no\nDescription=a \\\n# no\n  b\n")
    assert unitfile.last(settings, "Unit", "Description") == "a  b"


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("User=www", "www"),
        ("User=root", None),
        ("User=0", None),
        ("User=www\nUser=", None),
        ("DynamicUser=yes", "web"),
        ("DynamicUser=no", None),
        ("DynamicUser=yes\nUser=www", "www"),
    ],
)
def test_service_runs_as_the_account_that_is_not_root(text: str, account: str | None) -> None:
    assert unitfile.run_as("web@blue.service", _parse(f"[Service]\n{text}\n")) == account


def test_most_specific_drop_in_of_a_name_wins_and_names_give_the_order() -> None:
    vendor = systemd.UnitListing(
        "/usr/lib/systemd/system",
        dropins={"a-b.service.d": ("20-x.conf",), "a-.service.d": ("10-y.conf", "20-x.conf")},
    )
    admin = systemd.UnitListing("/etc/systemd/system", dropins={"a-b.service.d": ("20-x.conf",)})
    assert systemd.UnitTree([admin, vendor], {}).dropins("a-b.service") == [
        "/usr/lib/systemd/system/a-.service.d/10-y.conf",
        "/etc/systemd/system/a-b.service.d/20-x.conf",
    ]


def test_endless_links_lead_to_no_unit() -> None:
    links = {f"a{n}.service": f"a{n + 1}.service" for n in range(200)}
    links["a200.service"] = "a0.service"
    tree = systemd.UnitTree([systemd.UnitListing("/etc/systemd/system", links=links)], {})
    assert tree.define("a0.service") is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("#!/bin/sh\n", (False, None)),
        (
            "### BEGIN INIT INFO\n# Short-Description: Does it\n### END INIT INFO\n",
            (True, "Does it"),
        ),
        ("### BEGIN INIT INFO\n### END INIT INFO\n# Short-Description: no\n", (True, None)),
        ("# chkconfig: 2345 55 25\n# description: Does it \\\n# well\n", (True, "Does it")),
        ("# chkconfig: - 55 25\n", (True, None)),
        ("# description: lonely\n", (False, None)),
    ],
)
def test_headers_of_lsb_and_chkconfig_declare_a_service(
    header: str, expected: tuple[bool, str | None]
) -> None:
    assert sysv.parse_header(header) == expected


def test_script_without_header_is_a_service_when_a_run_level_links_it() -> None:
    starts, linked = sysv.parse_links(["S20custom", "K01old", "README", "S1bad"])
    assert (starts, linked) == ({"custom"}, {"custom", "old"})
    row = sysv.service("/etc/init.d/custom", "", {"3": starts}, linked)
    assert row
    assert (row.state, row.wanted_by) == ("enabled", ("3",))
    assert sysv.service("/etc/init.d/functions", "", {"3": starts}, linked) is None


NAMES = st.sampled_from(["a.service", "a@.service", "a@b.service", "b.target", "c.service", "x"])
TARGETS = NAMES | st.sampled_from(
    ["/dev/null", "/opt/a.service", "/etc/systemd/system/a.service", "../a@.service", "", "/", "."]
)
FOLDERS = st.sampled_from(["b.target.wants", ".requires"])
LISTINGS = st.builds(
    systemd.UnitListing,
    path=st.sampled_from(systemd.SEARCH_PATH),
    files=st.dictionaries(NAMES, st.integers(0, 1)),
    links=st.dictionaries(NAMES, TARGETS),
    pulls=st.dictionaries(FOLDERS, st.dictionaries(NAMES, TARGETS)),
    dropins=st.dictionaries(st.sampled_from(["a.service.d", "service.d"]), st.just(("1.conf",))),
)


@given(st.lists(LISTINGS, max_size=3), guest_texts())
def test_any_unit_directories_give_a_state_to_every_name(
    listings: list[systemd.UnitListing], text: str
) -> None:
    tree = systemd.UnitTree(listings, {"/lib/systemd/system": "/usr/lib/systemd/system"})
    settings = _parse(f"[Install]\nWantedBy={text}\nDefaultInstance={text}\n{text}")
    for name in tree.names():
        unit = tree.define(name)
        assert tree.state(name, unit, settings)
        assert tree.path_of(name)
        tree.wanted_by(name)
        tree.dropins(name)


@given(guest_texts(), guest_texts())
def test_any_text_is_a_unit_file_and_a_script(one: str, other: str) -> None:
    settings = _parse(
        one, f"[Service]\nExecStart={one}\\\n{other}\nUser={other}\n[{one}]\n{other}="
    )
    unitfile.command(settings)
    unitfile.run_as("a.service", settings)
    unitfile.is_unit_name(one)
    sysv.parse_header(f"### BEGIN INIT INFO\n# Short-Description: {one}\n{other}")
    sysv.parse_links([one, other, f"S01{one}"])
