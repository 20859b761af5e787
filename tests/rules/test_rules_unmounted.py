"""What was not mounted, against rules over tables that are made by walking all files."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fleetscan.rules import case_facts
from tests.rules.rule_builder import Facts, make_rule, only, run, status

NO_DEVICE = "no such device on this machine"
NETRC = {"file": {"paths": ["/root/.netrc", "/home/*/.netrc"], "present": False}}
WORLD_WRITABLE = "SELECT machine_id, root, path FROM files WHERE type = 'file' AND mode & 2 <> 0"
PROFILE: case_facts.Row = {"path": "/home/ann/.profile"}


def mount(path: str, source: str, kind: str, *options: str, **more: Any) -> case_facts.Row:
    """A mountpoint without its filesystem."""
    row = {"path": path, "source": source, "type": kind, "options": list(options)}
    return {**row, "mounted": False, "error": NO_DEVICE, **more}


def share(path: str, **more: Any) -> case_facts.Row:
    return mount(path, "nas:/export", "nfs4", "defaults", **more)


def link(path: str, target: str) -> case_facts.Row:
    return {"path": path, "type": "symlink", "target": target}


def given(*mounts: case_facts.Row, files: tuple[case_facts.Row, ...] = (PROFILE,)) -> Facts:
    return {"files": files, "mountpoints": mounts}


ABSENT = [
    pytest.param(share("/home"), id="network share"),
    pytest.param(mount("/home", "//nas/home", "cifs", "nofail"), id="network share, nofail"),
    pytest.param(mount("/home", "host_home", "virtiofs", "defaults"), id="share without a colon"),
    pytest.param(mount("/home", "UUID=1", "ext4", "nofail"), id="nofail"),
    pytest.param(mount("/home", "/dev/sdb1", "ext4", "noauto"), id="noauto"),
    pytest.param(mount("/home", "/dev/sdb1", "xfs", "_netdev"), id="disk over the network"),
    pytest.param(mount("/home/ann", "UUID=1", "ext4", "noauto"), id="one of several homes"),
    pytest.param(mount("/home", "/dev/sr0", "iso9660", "ro"), id="removable, of all things"),
    pytest.param(mount("//home/./x/..//", "nas:/", "nfs"), id="oddly written"),
]


@pytest.mark.parametrize("absent", ABSENT)
def test_a_rule_that_looks_below_what_was_not_mounted_is_unknown(absent: case_facts.Row) -> None:
    row = only(run(make_rule(check=NETRC), given=given(absent)))

    assert row["state"] == "unknown"
    assert row["message"] == f"files: not mounted: {absent['path']} ({NO_DEVICE})"


@pytest.mark.parametrize(
    "other",
    [
        share("/mnt/share"),
        mount("/media/cdrom0", "/dev/sr0", "udf,iso9660", "user", "noauto"),
        mount("/homes", "UUID=1", "ext4", "nofail"),
        mount("swap", "UUID=1", "swap", "sw"),
        {**share("/home"), "mounted": True, "error": None},
        mount("/home", "tmpfs", "tmpfs", "defaults", error=None),
    ],
)
def test_one_that_looks_elsewhere_is_decided(other: case_facts.Row) -> None:
    row = only(run(make_rule(check=NETRC), given=given(other)))

    assert (row["state"], row["message"]) == ("pass", None)


def test_what_was_found_elsewhere_fails_all_the_same() -> None:
    files: tuple[case_facts.Row, ...] = ({"path": "/root/.netrc"},)

    row = only(run(make_rule(check=NETRC), given=given(share("/home"), files=files)))

    assert (row["state"], row["violations"]) == ("fail", 1)
    assert "not mounted: /home" in row["message"]


def test_what_may_lie_there_is_not_missing() -> None:
    check = {"file": {"paths": ["/home/shared/banner"], "present": True}}

    assert only(run(make_rule(check=check), given=given()))["state"] == "fail"
    assert only(run(make_rule(check=check), given=given(share("/home"))))["state"] == "unknown"


WHOLE_TREE = [
    (share("/mnt/share"), "unknown", "pass"),
    (mount("/data", "UUID=1", "ext4", "nofail"), "unknown", "unknown"),
    (mount("/data", "/dev/sdb1", "xfs", "_netdev"), "unknown", "unknown"),
    (mount("/data", "UUID=1", "ext4", "noauto", "x-systemd.automount"), "unknown", "unknown"),
    (mount("/media/cdrom0", "/dev/sr0", "udf,iso9660", "user", "noauto"), "pass", "pass"),
    (mount("/media/floppy", "/dev/fd0", "auto", "defaults"), "pass", "pass"),
    (mount("/mnt/stick", "/dev/sdb1", "vfat", "noauto"), "pass", "pass"),
    (mount("/mnt/nas", "nas:/x", "nfs", "noauto"), "pass", "pass"),
]


@pytest.mark.parametrize(("absent", "state", "own_disks"), WHOLE_TREE)
@pytest.mark.parametrize("reads", [{}, {"files": ["*"]}, {"files": ["/*"]}])
def test_a_rule_that_looks_at_everything_is_concerned_by_what_belongs_to_the_tree(
    absent: case_facts.Row, state: str, own_disks: str, reads: dict[str, list[str]]
) -> None:
    rule = make_rule(violations=WORLD_WRITABLE, reads=reads)
    own = make_rule(violations=WORLD_WRITABLE, reads=reads, own_disks=["files"])

    assert only(run(rule, given=given(absent)))["state"] == state
    assert only(run(own, given=given(absent)))["state"] == own_disks


def test_a_pass_on_the_machines_own_disks_says_what_it_leaves_out() -> None:
    rule = make_rule(violations=WORLD_WRITABLE, own_disks=["files"])

    row = only(run(rule, given=given(share("/mnt/share"))))

    assert row["message"] == (
        f"on the machine's own disks; files: not mounted: /mnt/share ({NO_DEVICE})"
    )


def test_what_a_directory_holds_is_not_known_where_something_below_it_is_missing() -> None:
    sql = "SELECT machine_id, root, path FROM directory_usage WHERE size > 100"
    facts_given: Facts = {
        **given(share("/mnt/share")),
        "directory_usage": [{"path": "/", "size": 1}],
    }

    for rule in (
        make_rule(violations=sql),
        make_rule(violations=sql, reads={"directory_usage": ["/mnt"]}),
    ):
        assert only(run(rule, given=facts_given))["state"] == "unknown"
    own = make_rule(violations=sql, own_disks=["directory_usage"])
    assert only(run(own, given=facts_given))["state"] == "pass"


def test_tables_that_walk_nothing_go_by_what_coverage_says() -> None:
    rule = make_rule(
        violations="SELECT machine_id, root FROM config WHERE false", reads={"config": ["/home/*"]}
    )

    row = only(run(rule, given={**given(share("/home")), "config": [{"file": "/etc/fstab"}]}))

    assert row["state"] == "pass"


def test_files_that_were_not_asked_for_stay_so() -> None:
    left_out = [status("files", "not_applicable", "not asked for (--files none)")]

    row = only(
        run(make_rule(check=NETRC), given=given(share("/home"), files=()), coverage=left_out)
    )

    assert row["state"] == "notchecked"


def test_a_machine_without_such_a_mountpoint_is_decided() -> None:
    rows = run(
        make_rule(check=NETRC),
        given={
            "files": [{**PROFILE, "machine_id": machine} for machine in ("a", "b")],
            "mountpoints": [share("/home", machine_id="a")],
        },
    )

    assert [(row["machine_id"], row["state"]) for row in rows] == [("a", "unknown"), ("b", "pass")]


# -- Links ----------------------------------------------------------------------------------------

LINKS = [
    pytest.param([link("/home", "/srv/home")], id="absolute"),
    pytest.param([link("/home", "srv/home")], id="relative"),
    pytest.param([link("/home", "/usr/../srv/./home//")], id="dots"),
    pytest.param([link("/home", "/srv")], id="the mountpoint itself"),
    pytest.param([link("/home", "/export"), link("/export", "/srv/home")], id="over another"),
    pytest.param(
        [link(f"/l{n}", f"/l{n + 1}") for n in range(20)]
        + [link("/home", "/l0"), link("/l20", "/srv")],
        id="over many",
    ),
    pytest.param([link("/home/ann", "../srv/ann")], id="of one home"),
    pytest.param([link("/home/ann", "../srv/ann"), {"path": "/home/bob"}], id="of one of two"),
    pytest.param(
        [
            link("/home", "/"),
        ],
        id="to a directory above it",
    ),
]


@pytest.mark.parametrize("links", LINKS)
@pytest.mark.parametrize("told_by", ["mountpoints", "coverage"])
def test_links_lead_to_what_was_not_mounted(links: list[case_facts.Row], told_by: str) -> None:
    lost = [mount("/srv", "UUID=1", "ext4", "nofail")] if told_by == "mountpoints" else []
    torn = status("files", "failed", "not mounted: /srv", rows=1, unread=["/srv/"])
    coverage = [torn] if told_by == "coverage" else []

    row = only(
        run(make_rule(check=NETRC), given=given(*lost, files=tuple(links)), coverage=coverage)
    )

    assert row["state"] == "unknown"
    assert row["message"].startswith("files: not mounted: /srv")


@pytest.mark.parametrize(
    "links",
    [
        [link("/home", "/data/home")],
        [link("/home", "/srvx")],
        [link("/opt/app", "/srv/app")],
        [link("/home/ann/self", "."), link("/loop", "/loop")],
        [link("/usr/bin/X11", ".")],
    ],
)
def test_links_that_lead_elsewhere_concern_nobody(links: list[case_facts.Row]) -> None:
    lost = mount("/srv", "UUID=1", "ext4", "nofail")

    assert (
        only(run(make_rule(check=NETRC), given=given(lost, files=tuple(links))))["state"] == "pass"
    )


@pytest.mark.parametrize("path", ["/home", "/home/", "/home/ann"])
def test_a_directory_shown_at_a_second_place_leads_there_as_well(path: str) -> None:
    bind = {"path": path, "source": "/srv/home", "type": "none", "options": ["rw", "bind"]}
    lost = mount("/srv", "UUID=1", "ext4", "nofail")

    row = only(run(make_rule(check=NETRC), given=given(lost, {**bind, "mounted": True})))

    assert row["state"] == "unknown"


def test_a_mountpoint_reached_through_a_link_is_where_that_leads() -> None:
    rule = make_rule(check={"file": {"paths": ["/srv/home/ann/.netrc"], "present": False}})

    row = only(run(rule, given=given(share("/home/ann"), files=(link("/home", "/srv/home"),))))

    assert row["state"] == "unknown"


def test_a_machine_of_very_many_links_and_mountpoints_costs_its_own_verdicts() -> None:
    """Links to the top, each of which shows the mountpoint once more, and through each other."""
    files = [link(f"/{number:05}", "/" * 50 + "./" * 100) for number in range(5000)]
    evil = [{**row, "machine_id": "evil"} for row in files]
    more = [{**share(f"/m/{number}"), "machine_id": "worse"} for number in range(3000)]
    facts_given: Facts = {
        "files": [*evil, {**PROFILE, "machine_id": "good"}, {**PROFILE, "machine_id": "worse"}],
        "mountpoints": [{**share("/srv"), "machine_id": "evil"}, *more],
    }
    begun = time.monotonic()

    rows = run(make_rule(check=NETRC), given=facts_given)

    assert {row["machine_id"]: row["state"] for row in rows} == {
        "evil": "unknown",
        "good": "pass",
        "worse": "unknown",
    }
    assert time.monotonic() - begun < 30


def test_only_tables_of_the_tree_have_disks_of_their_own() -> None:
    with pytest.raises(ValueError, match="own_disks is for directory_usage, files, not users"):
        make_rule(own_disks=["users"])
