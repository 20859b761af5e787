"""Configuration: Augeas' lenses as they are used here, and apt's sources."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from scanner.tables.config import apt, augeas, collect, lenses
from scanner.tables.config.lenses import WITHHELD, Lens
from tests.scanner.tables.run_case import run
from tests.strategies import guest_texts


@pytest.mark.parametrize("lens", lenses.LENSES, ids=lambda lens: lens.name)
def test_sample_fits_its_lens(lens: Lens) -> None:
    assert list(lenses.settings(list(augeas.handle().parse(lens.name, lens.sample))))


def test_warming_up_needs_no_scanned_system() -> None:
    collect.warm_up()


@given(guest_texts(), guest_texts())
@settings(max_examples=30)
def test_any_text_gives_nodes_or_a_lens_error(one: str, other: str) -> None:
    for lens in lenses.LENSES:
        text = lenses.without_comments(f"{one} {other}\n{lens.sample}{one}={other}\n")
        try:
            list(lenses.settings(list(augeas.handle().parse(lens.name, text))))
        except augeas.LensError as error:
            assert str(error)  # noqa: PT017 - most texts fit no lens, some do


@given(guest_texts(), guest_texts())
def test_any_text_gives_sources_or_malformed_lines(one: str, other: str) -> None:
    text = f"deb {one} {other} main\n{one}: {other}\n {one}\n\n{other}"
    for parse in (apt.one_line, apt.deb822):
        malformed: list[int] = []
        assert all(line > 0 and path for line, path, _ in parse(text, malformed))


def test_values_come_back_as_they_stood() -> None:
    value = 'a "quoted\\" \t b\udce9 \xe4\u65e5'
    nodes = dict(augeas.handle().parse("Shellvars.lns", f"A='{value}'\n"))
    assert nodes == {"A": f"'{value}'"}


@pytest.mark.parametrize(
    ("nodes", "value"),
    [
        ([("base/password", "x")], WITHHELD),
        ([("opt", "password"), ("opt/value", "x")], WITHHELD),
        ([("proxy", "http://me:x@proxy.example/")], f"http://{WITHHELD}@proxy.example/"),
        ([("database", "passwd"), ("database/service", "x")], "x"),
    ],
)
def test_secrets_are_withheld(nodes: list[tuple[str, str | None]], value: str) -> None:
    assert list(lenses.settings(nodes))[-1][1] == value


def test_file_too_long_for_augeas_is_a_failure_and_comments_do_not_count(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "hosts").write_text("10.0.0.1 host\n" * 4000)
    (etc / "login.defs").write_text("# comment\n" * 8000 + "UMASK 022\n")
    outcome = run("config", tmp_path)
    assert [row for row in outcome.rows if "UMASK" in row] == outcome.rows
    assert outcome.error == "ValueError: /etc/hosts: too long for Augeas"
