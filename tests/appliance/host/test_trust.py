"""Directories and files that others could have written, as an attacker would have left them."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from fleetscan.appliance.host import trust
from fleetscan.appliance.host.trust import UntrustedError

STRANGER = 4711


@contextlib.contextmanager
def belonging_to_a_stranger(monkeypatch: pytest.MonkeyPatch, path: Path) -> Iterator[None]:
    """The path belongs to another ordinary user; where we are one, we are another."""
    if os.geteuid() == 0:
        os.lchown(path, STRANGER, STRANGER)
        yield
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
        yield


def refused(path: Path) -> str:
    with pytest.raises(UntrustedError) as caught:
        trust.check_directory(path)
    return str(caught.value)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory of ours, some way down."""
    place = tmp_path / "a" / "b" / "cache"
    place.mkdir(parents=True)
    return place


def test_ours_alone_is_trusted_there_or_not(place: Path) -> None:
    trust.check_directory(place)
    trust.check_directory(place / "not" / "there")
    trust.check_directory(Path("/"))


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o722, 0o702])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_directory_on_the_way_that_everybody_may_write_is_refused(
    place: Path, mode: int, above: int
) -> None:
    wide = [place, *place.parents][above]
    wide.chmod(mode)
    assert f"{wide} can be written by other users" in refused(place)


class Group(NamedTuple):
    gr_name: str
    gr_mem: list[str]


def owner_named(name: str) -> Callable[[int], object]:
    account = SimpleNamespace(pw_name=name, pw_gid=os.getegid())
    return lambda number: account


@pytest.mark.parametrize(
    ("group", "trusted"),
    [
        (Group("someone", []), True),
        (Group("someone", ["someone"]), True),
        (Group("someone", ["someone", "mallory"]), False),
        (Group("staff", []), False),
    ],
)
def test_a_group_may_write_it_only_where_it_is_its_owners_own(
    place: Path, monkeypatch: pytest.MonkeyPatch, group: Group, trusted: bool
) -> None:
    monkeypatch.setattr(pwd, "getpwuid", owner_named("someone"))
    monkeypatch.setattr(grp, "getgrgid", lambda number: group)
    place.chmod(0o770)
    if trusted:
        trust.check_directory(place)
    else:
        assert "mode 0770" in refused(place)


def test_a_group_that_nobody_knows_may_not_write_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> Group:
        raise KeyError(number)

    monkeypatch.setattr(grp, "getgrgid", unknown)
    place.chmod(0o770)
    assert "mode 0770" in refused(place)


def test_what_an_access_list_lets_others_write_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an access list, the group's bits are the most that any entry may give (acl(5))."""
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: ["system.posix_acl_access"])
    place.chmod(0o770)
    assert "mode 0770" in refused(place)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_directory_on_the_way_that_belongs_to_another_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, above: int
) -> None:
    theirs = [place, *place.parents][above]
    with belonging_to_a_stranger(monkeypatch, theirs):
        assert "belongs to" in refused(place)


def test_a_sticky_directory_may_be_on_the_way_and_not_at_its_end(place: Path) -> None:
    place.parent.chmod(0o1777)
    trust.check_directory(place)
    trust.check_directory(place.parent / "missing")
    assert "can be written by other users" in refused(place.parent)


def test_links_are_followed_as_the_kernel_does_and_all_they_lead_through_is_judged(
    place: Path, tmp_path: Path
) -> None:
    relative, absolute = tmp_path / "relative", tmp_path / "absolute"
    relative.symlink_to("a/../a/b")
    absolute.symlink_to(relative)
    trust.check_directory(absolute / "cache")
    place.parent.chmod(0o777)
    assert str(place.parent) in refused(absolute / "cache")


def test_a_link_that_another_could_have_turned_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(place)
    trust.check_directory(link)
    tmp_path.chmod(0o1777)
    with belonging_to_a_stranger(monkeypatch, link):
        assert "belongs to" in refused(link)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "too many links" in refused(tmp_path / "a")


def test_a_link_to_a_sticky_directory_does_not_make_it_ours(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    (tmp_path / "link").symlink_to("open")
    assert "can be written" in refused(tmp_path / "link")


@pytest.mark.parametrize(("mode", "trusted"), [(0o644, True), (0o600, True), (0o646, False)])
def test_a_file_that_others_could_have_written_is_refused(
    tmp_path: Path, mode: int, trusted: bool
) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    with path.open() as stream:
        if trusted:
            assert trust.check_file(path, stream.fileno()).st_size == 0
            return
        with pytest.raises(UntrustedError, match="can be written"):
            trust.check_file(path, stream.fileno())


def test_a_file_of_another_and_what_is_no_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    with (
        path.open() as stream,
        belonging_to_a_stranger(monkeypatch, path),
        pytest.raises(UntrustedError, match="belongs to"),
    ):
        trust.check_file(path, stream.fileno())
    reader, writer = os.pipe()
    with pytest.raises(UntrustedError, match="not a regular file"):
        trust.check_file(path, reader)
    os.close(reader)
    os.close(writer)
