"""Every distribution that virt-inspector has a name for is told, by the files that it has.

Names: guestfs_inspect_get_distro in guestfs(3) of libguestfs 1.56; those of DOS are left out.
Texts are those of the distributions' own release files.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetscan.appliance.guest.readers import release
from fleetscan.appliance.guest.root import Root
from fleetscan.scanner.tables.operating_systems import inspector

OS_RELEASE = "etc/os-release"
SYSTEMS = {
    "alpinelinux": (OS_RELEASE, 'ID=alpine\nVERSION_ID=3.19.1\nPRETTY_NAME="Alpine"\n', (3, 19)),
    "altlinux": ("etc/altlinux-release", "ALT Linux 7.0.5 Centaurus\n", (7, 0)),
    "archlinux": (OS_RELEASE, 'NAME="Arch Linux"\nID=arch\nBUILD_ID=rolling\n', (None, None)),
    "buildroot": ("etc/br-version", "2015.05\n", (2015, 5)),
    "centos": ("etc/centos-release", "CentOS release 6.10 (Final)\n", (6, 10)),
    "circle": ("etc/circle-release", "Circle Linux release 8.4 (Fedora)\n", (8, 4)),
    "cirros": ("etc/cirros/version", "0.6.2\n", (0, 6)),
    "coreos": (
        "etc/lsb-release",
        'DISTRIB_ID=CoreOS\nDISTRIB_RELEASE=647.0.0\nDISTRIB_DESCRIPTION="CoreOS 647.0.0"\n',
        (647, 0),
    ),
    "debian": ("etc/debian_version", "6.0.10\n", (6, 0)),
    "fedora": ("etc/redhat-release", "Fedora release 20 (Heisenbug)\n", (20, None)),
    "freebsd": ("bin/freebsd-version", '#!/bin/sh\nUSERLAND_VERSION="13.2-RELEASE-p4"\n', (13, 2)),
    "frugalware": ("etc/frugalware-release", "Frugalware 1.9 (Arcturus)\n", (1, 9)),
    "gentoo": ("etc/gentoo-release", "Gentoo Base System release 2.14\n", (2, 14)),
    "kalilinux": (OS_RELEASE, 'ID=kali\nVERSION_ID="2023.4"\nID_LIKE=debian\n', (2023, 4)),
    "kylin": (OS_RELEASE, 'NAME="Kylin"\nVERSION_ID="4.0.2"\nID=kylin\n', (4, 0)),
    "linuxmint": (
        "etc/lsb-release",
        'DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=10\nDISTRIB_DESCRIPTION="Linux Mint 10 Julia"\n',
        (10, None),
    ),
    "mageia": ("etc/mageia-release", "Mageia release 9 (Official) for x86_64\n", (9, None)),
    "mandriva": (
        "etc/mandriva-release",
        "Mandriva Linux release 2010.1 (Official) for x86_64\n",
        (2010, 1),
    ),
    "meego": ("etc/meego-release", "MeeGo release 1.2.0 (MeeGo)\n", (1, 2)),
    "neokylin": (OS_RELEASE, 'NAME="NeoKylin"\nVERSION_ID="V7Update6"\nID="neokylin"\n', (7, 6)),
    "netbsd": ("etc/release", "NetBSD 9.3/amd64\n", (9, 3)),
    "openbsd": ("etc/motd", "OpenBSD 7.4 (GENERIC.MP) #1397: Tue Oct 10 2023\n", (7, 4)),
    "opencloudos": ("etc/opencloudos-release", "OpenCloudOS release 8.6\n", (8, 6)),
    "openeuler": (OS_RELEASE, 'NAME="openEuler"\nID="openEuler"\nVERSION_ID="22.03"\n', (22, 3)),
    "openmandriva": (
        "etc/openmandriva-release",
        "OpenMandriva Lx release 4.3.0 (Cooker) Rolling for x86_64\n",
        (4, 3),
    ),
    "opensuse": ("etc/SuSE-release", "openSUSE 13.2 (x86_64)\nVERSION = 13.2\n", (13, 2)),
    "oraclelinux": ("etc/oracle-release", "Oracle Linux Server release 6.10\n", (6, 10)),
    "pardus": ("etc/pardus-release", "Pardus 2011.2 Cervus elaphus\n", (2011, 2)),
    "pldlinux": ("etc/pld-release", "3.0 PLD Linux (Th)\n", (3, 0)),
    "redhat-based": ("etc/redhat-release", "Fermi Linux LTS release 4.7 (Wilson)\n", (4, 7)),
    "rhel": (
        "etc/redhat-release",
        "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n",
        (6, 10),
    ),
    "rocky": ("etc/rocky-release", "Rocky Linux release 8.9 (Green Obsidian)\n", (8, 9)),
    "scientificlinux": ("etc/redhat-release", "Scientific Linux release 6.10 (Carbon)\n", (6, 10)),
    "slackware": ("etc/slackware-version", "Slackware 15.0\n", (15, 0)),
    "sles": (
        "etc/SuSE-release",
        "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
        (11, 4),
    ),
    "suse-based": (OS_RELEASE, 'ID=geckolinux\nID_LIKE="suse opensuse"\n', (None, None)),
    "tencentos": ("etc/tencentos-release", "TencentOS Server release 3.1 (Final)\n", (3, 1)),
    "ttylinux": ("etc/ttylinux-target", "x86_64\n", (None, None)),
    "ubuntu": (OS_RELEASE, 'ID=ubuntu\nVERSION_ID="22.04"\nID_LIKE=debian\n', (22, 4)),
    "voidlinux": (OS_RELEASE, 'NAME="Void"\nID="void"\nPRETTY_NAME="Void Linux"\n', (None, None)),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_distribution_is_told_with_its_version(tmp_path: Path, name: str) -> None:
    path, text, numbers = SYSTEMS[name]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    with Root("r", str(tmp_path)) as root:
        found = release.find(root)
    assert inspector.name(found.distro, found.like) == name
    assert release.version_numbers(found.version) == numbers
