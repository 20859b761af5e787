from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from fleetscan.rules.refresh_end_of_life import (
    PRODUCTS,
    Product,
    from_distro_info,
    from_product,
    main,
    merge,
)
from fleetscan.scanner.store.end_of_life import COLUMNS, load_end_of_life, release_end

RELEASES = load_end_of_life()
TAKEN = dt.date(2026, 1, 1)
DEBIAN = (
    "version,codename,series,created,release,eol,eol-lts,eol-elts\n"
    "11,Bullseye,bullseye,2019-07-06,2021-08-14,2024-08-14,2026-08-31,2031-06-30\n"
    "13,Trixie,trixie,2023-06-10,2025-08-09,2028-08-09\n"
    ",Sid,sid,1993-08-16\n"
)
UBUNTU = (
    "version,codename,series,created,release,eol,eol-server,eol-esm\n"
    "24.04 LTS,Noble Numbat,noble,2023-10-12,2024-04-25,2029-05-31,2029-05-31,2034-04-25\n"
)


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


def test_every_product_that_is_asked_for_is_listed() -> None:
    sources = {item.source.rpartition(": ")[2] for item in RELEASES}

    assert {product.name for product in PRODUCTS} <= sources
    assert {"debian", "ubuntu"} <= sources


def test_every_date_has_a_source_and_a_day_on_which_it_said_so() -> None:
    today = dt.datetime.now(dt.UTC).date()

    assert all(item.source for item in RELEASES)
    assert all(dt.date(2025, 1, 1) <= item.taken <= today for item in RELEASES)


@pytest.mark.parametrize(
    ("distro", "release", "eol"),
    [
        # As the projects' own pages say.
        ("debian", "11", dt.date(2026, 8, 31)),
        ("ubuntu", "22.04", dt.date(2027, 6, 1)),
        ("rhel", "9", dt.date(2032, 5, 31)),
        ("centos", "7", dt.date(2024, 6, 30)),
        ("sles", "15.7", dt.date(2031, 7, 31)),
        ("freebsd", "14.3", dt.date(2026, 6, 30)),
        ("windows", "10.0.19045", dt.date(2025, 10, 14)),
        ("windows-iot-ltsc", "10.0.17763", dt.date(2029, 1, 9)),
        ("windows-server", "6.3", dt.date(2023, 10, 10)),
        ("windows-server", "10.0.26100", dt.date(2034, 11, 14)),
    ],
)
def test_dates_are_those_that_were_announced(distro: str, release: str, eol: dt.date) -> None:
    assert [item.eol for item in RELEASES if (item.distro, item.release) == (distro, release)] == [
        eol
    ]


def test_a_distributions_releases_end_in_their_order() -> None:
    for distro in ("debian", "rhel", "alpine", "fedora", "rocky", "opensuse-leap"):
        ends = [
            (tuple(map(int, item.release.split("."))), item.eol)
            for item in RELEASES
            if item.distro == distro and not item.release.startswith("42")
        ]
        assert [eol for _, eol in sorted(ends)] == sorted(eol for _, eol in ends)


def test_dates_of_debian_count_long_term_support_and_those_of_ubuntu_no_paid_one() -> None:
    debian = list(from_distro_info("debian", DEBIAN, TAKEN))
    ubuntu = list(from_distro_info("ubuntu", UBUNTU, TAKEN))

    assert [(item.release, str(item.eol)) for item in debian + ubuntu] == [
        ("11", "2026-08-31"),
        ("13", "2028-08-09"),
        ("24.04", "2029-05-31"),
    ]


def _product(name: str) -> Product:
    return next(item for item in PRODUCTS if item.name == name)


def _file(*releases: str) -> str:
    return (
        "---\ntitle: A product\nreleases:\n" + "".join(f"- {item}\n" for item in releases) + "---\n"
    )


def test_windows_is_listed_by_edition_and_build() -> None:
    text = _file(
        "{releaseCycle: 11-24h2-iot-lts, eol: 2034-10-10, latest: 10.0.26100}",
        "{releaseCycle: 11-24h2-e-lts, eol: 2029-10-09, latest: 10.0.26100}",
        "{releaseCycle: 11-24h2-w, eol: 2026-10-13, latest: 10.0.26100}",
        "{releaseCycle: 10-22h2, eol: 2025-10-14, latest: 10.0.19045}",
        "{releaseCycle: 7-sp1, eol: 2020-01-14, latest: 6.1.7601}",
    )
    found = {
        (item.distro, item.release): str(item.eol)
        for item in from_product(_product("windows"), text, TAKEN)
    }

    assert found == {
        ("windows-iot-ltsc", "10.0.26100"): "2034-10-10",
        ("windows-ltsc", "10.0.26100"): "2029-10-09",
        ("windows", "10.0.26100"): "2026-10-13",
        ("windows", "10.0.19045"): "2025-10-14",
        ("windows-enterprise", "10.0.19045"): "2025-10-14",
        ("windows", "6.1"): "2020-01-14",
    }


def test_a_release_whose_end_has_no_day_is_left_out() -> None:
    text = _file('{releaseCycle: "10", eol: false}', '{releaseCycle: "4", eol: true}')

    assert not list(from_product(_product("netbsd"), text, TAKEN))


def test_point_releases_that_end_with_their_release_are_told_by_it() -> None:
    whole = release_end("linuxmint", "22", dt.date(2029, 4, 30), "one", TAKEN)
    point = release_end("linuxmint", "22.1", dt.date(2029, 4, 30), "one", TAKEN)
    other = release_end("linuxmint", "22.2", dt.date(2030, 4, 30), "one", TAKEN)

    assert merge([point, whole]) == [whole]
    with pytest.raises(ValueError, match=r"linuxmint 22\.2"):
        merge([whole, other])


def test_the_file_is_what_the_command_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for product in PRODUCTS:
        text = _file('{releaseCycle: "99.1", eol: 2030-01-01, latest: 99.1.1}')
        (tmp_path / f"{product.name}.md").write_text(text)
    (tmp_path / "debian.csv").write_text(DEBIAN)
    (tmp_path / "ubuntu.csv").write_text(UBUNTU)

    main(["--endoflife", str(tmp_path), "2026-01-01", "--distro-info", str(tmp_path), "2026-01-01"])
    written = tmp_path / "written.csv"
    written.write_text(capsys.readouterr().out)

    assert written.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert release_end("debian", "11", dt.date(2026, 8, 31), "distro-info-data: debian", TAKEN) in (
        load_end_of_life(written)
    )
