"""Configuration: Augeas' lenses as they are used here, and apt's sources."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetscan.appliance.ground.redaction import MARKER
from fleetscan.scanner.tables.config import apt, audit, augeas, collect, lenses, plain
from fleetscan.scanner.tables.config.lenses import Lens
from tests.scanner.tables.run_case import run
from tests.strategies import guest_texts


@pytest.mark.parametrize("lens", lenses.LENSES, ids=lambda lens: lens.name)
def test_sample_fits_its_lens(lens: Lens) -> None:
    assert list(lenses.settings(list(augeas.handle().parse(lens.name, lens.sample))))


def test_warming_up_needs_no_scanned_system() -> None:
    collect.warm_up()


@given(guest_texts(), guest_texts())
@settings(max_examples=30, deadline=None)
def test_any_text_gives_nodes_or_a_lens_error(one: str, other: str) -> None:
    for lens in lenses.LENSES:
        text = lenses.without_comments(f"{one} {other}\n{lens.sample}{one}={other}\n")
        try:
            list(lenses.settings(list(augeas.handle().parse(lens.name, text))))
        except augeas.LensError as error:
            assert str(error)  # noqa: PT017 - most texts fit no lens, some do


PLAIN = {
    "Pam.lns": "auth required pam_unix.so nullok [a b]\n@include common\n"
    "-session optional pam_x.so\n@include other\nauth [a=1 b=2] x.so a a # [1]\n",
    "Sudoers.lns": 'Defaults env_reset\nDefaults !visiblepw\nDefaults\tsecure_path="/sbin:/bin"\n'
    'Defaults env_keep = "A B"\nDefaults env_keep += "C"\nroot ALL=(ALL:ALL) ALL\n'
    "%wheel\tALL=(ALL) NOPASSWD: ALL\nbob h=/bin/ls\n@includedir /etc/sudoers.d\n",
    "Login_defs.lns": "UMASK 022\nUMASK\t 1 2  3 \nA_B yes\n",
    "Hosts.lns": "127.0.0.1 localhost\n ::1\ta b c \n#10.0.0.1 x\n1 x\n",
    "Resolv.lns": "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.example b\ndomain x\n"
    "options ndots:2 rotate edns0 rotate\n",
    "Nsswitch.lns": "passwd: files systemd\nhosts:\tfiles dns\nshadow:files\n",
    "Fstab.lns": "UUID=1 / ext4 noatime,errors=remount-ro 0 1\n//n/s /m cifs,nfs password=x,a\n"
    "tmpfs /tmp tmpfs\n",
    "Limits.lns": "* hard core 0\n@users soft nproc 20\nbob - nofile unlimited\n",
    "Shellvars.lns": 'A="quiet splash"\nB=1\nC=\nA=/x:/y\n',
    "Simplevars.lns": "minlen = 14\n difok=3 \neven_deny_root\ndir = /var/run/faillock\nminlen=8\n",
    "Systemd.lns": "[Journal]\n[Login]\nStorage=persistent\nAb=1\nAb=2\n[Login]\nBc=x\n",
}


_CHANGES = st.lists(
    st.tuples(
        st.integers(0, 200), st.integers(0, 2), st.sampled_from(list(" \t\n#;=,[]()\"'\\-@!:./a0A"))
    ),
    max_size=3,
)


@pytest.mark.parametrize("lens", PLAIN)
@given(changes=_CHANGES)
@settings(max_examples=300, deadline=None)
def test_plain_text_gives_what_augeas_gives(lens: str, changes: list[tuple[int, int, str]]) -> None:
    text = PLAIN[lens]
    for place, length, put in changes:
        at = place % len(text)
        text = text[:at] + put + text[at + length :]
    text = lenses.without_comments(text)
    nodes = plain.parse(lens, text)
    if nodes is not None:
        given_by_augeas = list(augeas.handle().parse(lens, text))
        assert list(lenses.settings(nodes)) == list(lenses.settings(given_by_augeas))


@pytest.mark.parametrize("lens", PLAIN)
def test_usual_files_do_without_augeas(lens: str) -> None:
    assert plain.parse(lens, PLAIN[lens])


@given(guest_texts(), guest_texts())
def test_any_text_gives_sources_or_malformed_lines(one: str, other: str) -> None:
    text = f"deb {one} {other} main\n{one}: {other}\n {one}\n\n{other}"
    for parse in (apt.one_line, apt.deb822, audit.rules):
        malformed: list[int] = []
        assert all(line > 0 and path for line, path, _ in parse(text, malformed))


def test_values_come_back_as_they_stood() -> None:
    value = 'a "quoted\\" \t b\udce9 \xe4\u65e5'
    nodes = dict(augeas.handle().parse("Shellvars.lns", f"A='{value}'\n"))
    assert nodes == {"A": f"'{value}'"}


@pytest.mark.parametrize(
    ("nodes", "value"),
    [
        ([("opt", "password"), ("opt/value", "hunter2")], MARKER),
        ([("opt", "credentials"), ("opt/value", "/etc/cifs")], "/etc/cifs"),
        ([("database", "passwd"), ("database/service", "hunter2")], "hunter2"),
    ],
)
def test_a_value_that_the_node_above_calls_a_secret_is_redacted(
    nodes: list[tuple[str, str | None]], value: str
) -> None:
    assert list(lenses.settings(nodes))[-1][1] == value


def test_file_too_long_for_augeas_is_a_failure_and_comments_do_not_count(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("10.0.0.1 host\n" * 4000)
    (etc / "login.defs").write_text("# comment\n" * 8000 + "UMASK 022\n")
    outcome = run("config", tmp_path)
    assert [row for row in outcome.rows if "UMASK" in row] == outcome.rows
    assert outcome.error == "UnreadError: /etc/hosts: too long for Augeas"
