from __future__ import annotations

import datetime as dt

from rules.end_of_life import as_of, load_end_of_life

RELEASES = load_end_of_life()


def test_a_release_is_listed_once() -> None:
    names = [(item.distro, item.release) for item in RELEASES]

    assert len(names) == len(set(names))


def test_no_release_is_the_beginning_of_another_of_its_distribution() -> None:
    # A version must match one release only: 12 covers 12.11, so there must be no 12.11 as well.
    for one in RELEASES:
        longer = [
            other.release
            for other in RELEASES
            if other.distro == one.distro and other.release.startswith(f"{one.release}.")
        ]
        assert not longer


def test_the_systems_that_fleets_run_are_listed() -> None:
    assert {item.distro for item in RELEASES} == {
        "almalinux",
        "alpine",
        "amzn",
        "centos",
        "debian",
        "fedora",
        "freebsd",
        "ol",
        "opensuse-leap",
        "rhel",
        "rocky",
        "sles",
        "ubuntu",
        "windows",
        "windows-enterprise",
        "windows-ltsc",
        "windows-server",
    }


def test_every_date_has_a_source_and_the_data_a_day() -> None:
    assert all(item.source for item in RELEASES)
    assert dt.date(2026, 1, 1) <= as_of() <= dt.datetime.now(dt.UTC).date()


def test_a_distributions_releases_end_in_their_order() -> None:
    for distro in ("debian", "rhel", "alpine", "fedora", "rocky", "opensuse-leap"):
        ends = [
            (tuple(map(int, item.release.split("."))), item.eol)
            for item in RELEASES
            if item.distro == distro and not item.release.startswith("42")
        ]
        assert [eol for _, eol in sorted(ends)] == sorted(eol for _, eol in ends)
