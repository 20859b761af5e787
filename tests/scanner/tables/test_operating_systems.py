"""Operating systems: release files, ELF headers, kernel releases."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetscan.appliance.ground.problems import Problems
from fleetscan.appliance.guest.readers import older_releases, os_release, release
from fleetscan.appliance.guest.readers.hives import HiveKey, Value
from fleetscan.appliance.guest.readers.os_release import Release
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.operating_systems import elf, inspector, windows
from fleetscan.scanner.tables.operating_systems.collect import release_order
from tests.strategies import guest_texts


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=plain", "plain"),
        ('A="two words"', "two words"),
        ("A='single $quoted\\'", "single $quoted\\"),
        ('A="\\$ \\` \\" \\\\ \\n"', '$ ` " \\ \\n'),
        ("A=with\\ space", "with space"),
        ('A="unclosed', "unclosed"),
        ("A=", ""),
        ("  A=b  ", "b"),
    ],
)
def test_values_are_unquoted_as_a_shell_would(line: str, value: str) -> None:
    assert os_release.parse_assignments(line) == {"A": value}


def test_comments_and_other_lines_are_passed_over() -> None:
    assert os_release.parse_assignments("# A=1\n\nexport B=2\n3=C\nD=4") == {"D": "4"}


@pytest.mark.parametrize(
    ("text", "distro", "version", "codename"),
    [
        ("CentOS Linux release 7.9.2009 (Core)\n", "centos", "7.9.2009", "Core"),
        ("Red Hat Enterprise Linux ES release 4 (Nahant Update 9)", "rhel", "4", "Nahant Update 9"),
        ("Red Hat Linux release 9 (Shrike)", "redhat", "9", "Shrike"),
        ("Fedora release 20 (Heisenbug)", "fedora", "20", "Heisenbug"),
        ("Oracle Linux Server release 8.6", "ol", "8.6", None),
        ("Amazon Linux AMI release 2018.03", "amzn", "2018.03", None),
        ("Mageia release 8 (Official) for x86_64", "mageia", "8", "Official"),
        ("CentOS Stream release 8", "centos", "8", None),
    ],
)
def test_red_hat_release_files_name_distribution_and_version(
    text: str, distro: str, version: str, codename: str | None
) -> None:
    found = older_releases.from_red_hat(text)
    assert found
    assert (found.distro, found.version, found.codename) == (distro, version, codename)


@pytest.mark.parametrize(
    ("path", "text", "distro", "version", "codename"),
    [
        ("altlinux-release", "ALT Server 10.1 (Mendelevium)", "altlinux", "10.1", "Mendelevium"),
        ("frugalware-release", "Frugalware 1.9 (Arcturus)", "frugalware", "1.9", "Arcturus"),
        ("pld-release", "3.0 PLD Linux (Th)", "pld", "3.0", "Th"),
        ("openmandriva-release", "OpenMandriva Lx release 4.3 (Dysprosium) for x86_64",
         "openmandriva", "4.3", "Dysprosium"),
        ("mandriva-release", "Mandriva Linux release 2010.1 (Official) for x86_64",
         "mandriva", "2010.1", "Official"),
        ("fedora-release", "Fedora Core release 6 (Zod)", "fedora", "6", "Zod"),
        ("redhat-release", "EulerOS release 2.0 (SP8)", "euleros", "2.0", "SP8"),
        ("SuSE-release", "SUSE LINUX 10.0 (i586)\nVERSION = 10.0\n", "suse", "10.0", None),
        ("cirros/version", "0.3.4\n", "cirros", "0.3.4", None),
        ("lsb-release", "DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=17\nDISTRIB_CODENAME=qiana\n",
         "linuxmint", "17", "qiana"),
        ("lsb-release", "DISTRIB_ID=ManjaroLinux\nDISTRIB_RELEASE=21\n", "manjaro", "21", None),
        ("lsb-release", "DISTRIB_ID=CoreOS\nDISTRIB_RELEASE=647.0.0\n", "coreos", "647.0.0", None),
    ],
)  # fmt: skip
def test_older_release_files_name_distribution_and_version(
    tmp_path: Path, path: str, text: str, distro: str, version: str, codename: str | None
) -> None:
    (tmp_path / "etc" / path).parent.mkdir(parents=True)
    (tmp_path / "etc" / path).write_text(text)
    with Root("r", str(tmp_path)) as root:
        found = release.find(root)
    assert (found.distro, found.version, found.codename) == (distro, version, codename)


def test_text_that_is_no_release_names_nothing() -> None:
    assert older_releases.from_motd("Welcome to Debian\nOpenBSD 7.4\n") is None
    assert older_releases.from_freebsd_version("#!/bin/sh\nUSERLAND_VERSION=unknown\n") is None
    assert older_releases.from_tree_info("[checksums]\nimages/boot.iso = sha256:00\n") is None


@pytest.mark.parametrize(
    ("distro", "like", "name"),
    [
        ("debian", (), "debian"),
        ("ol", ("fedora",), "oraclelinux"),
        ("opensuse-leap", ("suse", "opensuse"), "opensuse"),
        ("amzn", ("centos", "rhel", "fedora"), "redhat-based"),
        ("raspbian", ("debian",), "debian"),
        ("nixos", (), "unknown"),
        (None, (), "unknown"),
    ],
)
def test_distributions_have_virt_inspectors_names(
    distro: str | None, like: tuple[str, ...], name: str
) -> None:
    assert inspector.name(distro, like) == name


def test_open_suse_release_file_names_its_version() -> None:
    text = "openSUSE 13.2 (x86_64)\nVERSION = 13.2\nCODENAME = Harlequin\n"
    found = older_releases.from_suse(text)
    assert found == Release("opensuse", (), "openSUSE 13.2 (x86_64)", "13.2", "Harlequin")


@pytest.mark.parametrize(
    ("stated", "older", "refined"),
    [
        ("12", "12.11", "12.11"),
        ("12", "12", "12"),
        ("7", "7.9.2009", "7.9.2009"),
        ("1", "12.11", "1"),
        ("22.04", None, "22.04"),
        (None, "12.11", None),
    ],
)
def test_older_files_only_add_the_point_release(
    stated: str | None, older: str | None, refined: str | None
) -> None:
    found = release.refine(Release("x", version=stated), Release("x", version=older))
    assert found.version == refined


def test_debian_states_its_point_release_since_13() -> None:
    found = os_release.from_os_release("ID=debian\nVERSION_ID=13\nDEBIAN_VERSION_FULL=13.7\n")
    assert found.version == "13.7"


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("12.11", (12, 11)),
        ("40", (40, None)),
        ("15-SP4", (15, None)),
        ("3.18.4", (3, 18)),
        ("rolling", (None, None)),
        ("9999999999", (None, None)),
        (None, (None, None)),
    ],
)
def test_version_numbers_are_the_first_two(
    version: str | None, numbers: tuple[int | None, int | None]
) -> None:
    assert release.version_numbers(version) == numbers


def _header(number: int, *, wide: bool, little: bool, flags: int = 0) -> bytes:
    order = "<" if little else ">"
    ident = b"\x7fELF" + bytes([1 + wide, 2 - little, 1]) + bytes(9)
    rest = struct.pack(f"{order}HHIIIII", 2, number, 1, 0, 0, 0, flags)
    return (ident + rest).ljust(elf.HEADER_SIZE, b"\0")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (_header(62, wide=True, little=True), "x86_64"),
        (_header(3, wide=False, little=True), "i686"),
        (_header(183, wide=True, little=True), "aarch64"),
        (_header(40, wide=False, little=True, flags=0x5000400), "armv7l"),
        (_header(40, wide=False, little=True, flags=0x5000200), "armv5tel"),
        (_header(21, wide=True, little=True), "ppc64le"),
        (_header(21, wide=True, little=False), "ppc64"),
        (_header(22, wide=True, little=False), "s390x"),
        (_header(243, wide=True, little=True), "riscv64"),
        (_header(62, wide=True, little=False), None),
        (_header(65535, wide=True, little=True), None),
        (b"\x7fELF", None),
        (b"#!/bin/sh\n" * 8, None),
    ],
)
def test_elf_header_tells_the_machine(header: bytes, name: str | None) -> None:
    assert elf.machine(header) == name


def test_kernels_are_ordered_as_versions() -> None:
    oldest_first = ["2.6.18-53.el5", "2.6.18-398.el5", "6.1.0-9-amd64", "6.1.0-18-amd64",
                    "6.2-rc1", "6.2-rc12", "6.2", "6.2.0", "6.2.1", "6.10.0"]  # fmt: skip
    assert sorted(sorted(oldest_first), key=release_order) == oldest_first


@given(st.binary(max_size=200))
def test_any_bytes_are_a_program_or_none(data: bytes) -> None:
    for head in (b"", b"\x7fELF", b"\x7fELF\2\1", b"\x7fELF\1\1"):
        elf.machine(head + data)
        elf.bsd_note(head + data)


@given(guest_texts())
def test_any_text_is_a_release_or_none(text: str) -> None:
    os_release.from_os_release(f"ID={text}\nVERSION_ID={text}\nVERSION={text}\n{text}")
    release.version_numbers(text)
    release_order(text)
    for _, parse in (*older_releases.OLDER_FILES, *older_releases.OTHER_FILES):
        parse(text)
        parse(f"{text} release {text} ({text})")


def _key(**values: str | int) -> HiveKey:
    """A key with text and number values."""
    return HiveKey(
        "",
        values={
            name.lower(): Value(name, 4, value.to_bytes(4, "little"), 4)
            if isinstance(value, int)
            else Value(name, 1, value.encode("utf-16-le"), 2 * len(value))
            for name, value in values.items()
        },
    )


def _below(path: str, key: HiveKey) -> HiveKey:
    for name in reversed(path.lower().split("\\")):
        key = HiveKey("", keys={name: key})
    return key


TEN: dict[str, str | int] = {
    "CurrentVersion": "6.3",
    "CurrentMajorVersionNumber": 10,
    "CurrentMinorVersionNumber": 0,
}

# What each release writes: product, version, build, service pack or release, edition; and what is
# to be told of it.
WINDOWS: list[tuple[dict[str, str | int], str, str, str | None]] = [
    (
        {"CurrentVersion": "4.0", "CurrentBuildNumber": "1381", "CSDVersion": "Service Pack 6"},
        *("Windows NT 4.0 Server", "4.0.1381", "Service Pack 6"),
    ),
    (
        {
            "ProductName": "Microsoft Windows 2000",
            "CurrentVersion": "5.0",
            "CurrentBuildNumber": "2195",
        },
        *("Microsoft Windows 2000", "5.0.2195", None),
    ),
    (
        {
            "ProductName": "Microsoft Windows XP",
            "CurrentVersion": "5.1",
            "CurrentBuildNumber": "2600",
            "CSDVersion": "Service Pack 3",
        },
        *("Microsoft Windows XP", "5.1.2600", "Service Pack 3"),
    ),
    (
        {
            "ProductName": "Microsoft Windows Server 2003",
            "CurrentVersion": "5.2",
            "CurrentBuildNumber": "3790",
            "CSDVersion": "Service Pack 2",
        },
        *("Microsoft Windows Server 2003", "5.2.3790", "Service Pack 2"),
    ),
    (
        {
            "ProductName": "Windows Server 2008 R2 Standard",
            "CurrentVersion": "6.1",
            "CurrentBuildNumber": "7601",
            "CSDVersion": "Service Pack 1",
        },
        *("Windows Server 2008 R2 Standard", "6.1.7601", "Service Pack 1"),
    ),
    (
        {
            "ProductName": "Windows Server 2012 R2 Standard",
            "CurrentVersion": "6.3",
            "CurrentBuildNumber": "9600",
            "UBR": 20778,
        },
        *("Windows Server 2012 R2 Standard", "6.3.9600.20778", None),
    ),
    (
        {
            **TEN,
            "ProductName": "Windows Server 2019 Datacenter",
            "CurrentBuildNumber": "17763",
            "UBR": 5122,
            "ReleaseId": "1809",
        },
        *("Windows Server 2019 Datacenter", "10.0.17763.5122", "1809"),
    ),
    (
        {
            **TEN,
            "ProductName": "Windows 10 Pro",
            "CurrentBuildNumber": "22631",
            "UBR": 2861,
            "ReleaseId": "2009",
            "DisplayVersion": "23H2",
        },
        *("Windows 11 Pro", "10.0.22631.2861", "23H2"),
    ),
    (
        {
            **TEN,
            "ProductName": "Windows Server 2025 Standard",
            "CurrentBuildNumber": "26100",
            "UBR": 1742,
            "DisplayVersion": "24H2",
        },
        *("Windows Server 2025 Standard", "10.0.26100.1742", "24H2"),
    ),
]


@pytest.mark.parametrize(("values", "product", "version", "release"), WINDOWS)
def test_every_windows_is_named(
    values: dict[str, str | int], product: str, version: str, release: str | None
) -> None:
    software = _below("Microsoft\\Windows NT\\CurrentVersion", _key(**values))
    system = _below("CurrentControlSet\\Control\\ProductOptions", _key(ProductType="LANMANNT"))
    row = windows.describe(software, system)
    assert (row.product, row.version, row.codename) == (product, version, release)
    assert row.build == values["CurrentBuildNumber"]


@pytest.mark.parametrize(
    ("content", "asleep"),
    [(b"HIBR\0", True), (b"hibr", True), (b"\0" * 9, False), (b"wake", False), (None, False)],
)
def test_a_windows_that_sleeps_is_told(tmp_path: Path, content: bytes | None, asleep: bool) -> None:
    if content is not None:
        (tmp_path / "hiberfil.sys").write_bytes(content)
    with Root("r", str(tmp_path)) as root:
        assert windows.is_hibernated(root, Problems()) is asleep


def test_a_sleep_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "hiberfil.sys").mkdir()
    problems = Problems()
    with Root("r", str(tmp_path)) as root:
        assert windows.is_hibernated(root, problems) is None
    assert list(problems) == ["/hiberfil.sys: Is a directory"]
