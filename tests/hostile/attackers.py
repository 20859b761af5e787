"""Machines that mean harm: one of each attack that was ever found, for a fleet beside honest ones.

Each attacker owns a folder below ``mallory/``, as somebody who may upload images has; some can only
write to a raw disk of theirs that lies among those of others, as every guest can.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.disk_images import gpt_disk
from tests.hostile import honest
from tests.reports.report_fleet import NASTY
from tests.vm.machines import image_of

FOLDER = "mallory"

SECRET = "cd7f0b-marked-secret"  # noqa: S105 - of nobody
"""Stands wherever a secret may stand in the image that holds some."""

CANARY = "91ad34-canary-of-the-host"
"""Stands in files of the host that images name: no table may hold it."""


@dataclass(frozen=True)
class Place:
    """Where attackers are made.

    Attributes:
        source: the folder that is scanned.
        outside: a folder beside it that holds what is nobody's business.
    """

    source: Path
    outside: Path

    @property
    def mallory(self) -> Path:
        """The attackers' own folder."""
        return self.source / FOLDER

    @property
    def honest(self) -> Path:
        """The folder of the honest machines."""
        return self.source / honest.FOLDER

    @property
    def marker(self) -> Path:
        """What commands create, if one is run."""
        return self.outside / "a-command-ran"

    def folder(self, name: str) -> Path:
        """A folder of an attacker's own."""
        folder = self.mallory / name
        folder.mkdir(parents=True)
        return folder


@dataclass(frozen=True)
class Outcome:
    """What the facts must say of an attacker.

    Attributes:
        outcomes: how its scan may end.
        words: what its error says, each of them.
    """

    outcomes: tuple[str, ...] = ("failed",)
    words: tuple[str, ...] = ()


Expected = Mapping[str, Outcome]
"""Outcomes by machine id."""

Attack = Callable[[Place], Expected]

ATTACKS: dict[str, Attack] = {}
"""Each attack by its name; what it makes, it returns the outcomes of."""


def attack(make: Attack) -> Attack:
    """Register an attack under its function's name."""
    ATTACKS[make.__name__] = make
    return make


FAILED = Outcome()


def system(top: Path, files: Mapping[str, str] | None = None, *, mebibytes: int = 12) -> Path:
    """An image of a small Debian with some files besides, beside its tree."""
    tree = honest.tree_of(top.with_name(f"{top.name}.tree"), 90)
    for name, content in (files or {}).items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8", "surrogateescape")
    image_of(tree, top, mebibytes)
    shutil.rmtree(tree)
    return top


def debugfs(image: Path, *commands: str) -> None:
    """Change a filesystem without mounting it; names are of /etc."""
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(
        ["debugfs", "-w", "-f", "-", str(image)],
        input="\n".join(["cd /etc", *commands, ""]),
        text=True,
        check=True,
        env=environment,
        timeout=60,
        capture_output=True,
    )


def qcow2(path: Path, size: str = "12M", backing: str = "", backing_format: str = "raw") -> Path:
    """An empty qcow2 whose header names any backing file at all, written without opening it."""
    placeholder = "~" * len(os.fsencode(backing))
    options = ["-u", "-b", placeholder, "-F", backing_format] if backing else []
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size]
    subprocess.run(argv, check=True, timeout=60)
    if backing:
        data = path.read_bytes().replace(placeholder.encode(), os.fsencode(backing), 1)
        path.write_bytes(data)
    return path


# -- 1, 4: files in a folder that would configure the scan ---------------------------------------


@attack
def key_command(place: Place) -> Expected:
    """A machine.yaml whose key is a program to run."""
    folder = place.folder("command")
    system(folder / "disk.raw")
    command = f"all:command:touch {place.marker}"
    (folder / "machine.yaml").write_text(f'disks: [disk.raw]\nkeys: ["{command}"]\n')
    return {"mallory/command": Outcome(words=("machine.yaml",))}


@attack
def key_file(place: Place) -> Expected:
    """A machine.yaml whose key is a file of the host."""
    folder = place.folder("keyfile")
    system(folder / "disk.raw")
    (folder / "machine.yaml").write_text(
        f'disks: [disk.raw]\nkeys: ["all:file:{place.outside}/canary", "all:env:HOME"]\n'
    )
    return {"mallory/keyfile": Outcome(words=("machine.yaml",))}


@attack
def disks_elsewhere(place: Place) -> Expected:
    """machine.yaml files that name disks of others: up, absolute, and through a link."""
    expected = {}
    for name, disk in {
        "up": "../../honest/web00.img",
        "absolute": f"{place.outside}/secret.raw",
        "through": "link/secret.raw",
        "device": "/dev/zero",
    }.items():
        folder = place.folder(f"disks-{name}")
        (folder / "link").symlink_to(place.outside)
        (folder / "machine.yaml").write_text(f"disks: ['{disk}']\n")
        expected[f"mallory/disks-{name}"] = FAILED
    return expected


@attack
def other_id(place: Place) -> Expected:
    """machine.yaml files that take the id of an honest machine, or one id twice."""
    expected = {}
    for name, machine_id in {
        "thief": "honest/web01.raw",
        "twin1": "mallory/twins",
        "twin2": "mallory/twins",
    }.items():
        folder = place.folder(name)
        system(folder / "disk.raw")
        (folder / "machine.yaml").write_text(f"id: {machine_id}\ndisks: [disk.raw]\n")
        expected[f"mallory/{name}"] = FAILED
    return expected


@attack
def marker_files(place: Place) -> Expected:
    """machine.yaml files that are no text, no YAML, no file, or without end."""
    contents = {
        "malformed": b"disks: [",
        "binary": bytes(range(256)),
        "deep": b"[" * 60_000,
        "bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in _LETTERS),
        "python": b"!!python/object/apply:os.system ['touch marker']",
        "large": b"disks: [disk.raw]\n#" + b"x" * (2 << 20),
        "null": b"",
    }
    for name, content in contents.items():
        (place.folder(f"yaml-{name}") / "machine.yaml").write_bytes(content)
    os.mkfifo(place.folder("yaml-fifo") / "machine.yaml")
    (place.folder("yaml-folder") / "machine.yaml").mkdir()
    (place.folder("yaml-device") / "machine.yaml").symlink_to("/dev/zero")
    (place.folder("yaml-link") / "machine.yaml").symlink_to(place.outside / "machine.yaml")
    others = ("fifo", "device", "link")
    return {f"mallory/yaml-{name}": FAILED for name in (*contents, *others)}


_LETTERS = range(ord("b"), ord("j"))


# -- 2: one image that hides others --------------------------------------------------------------


@attack
def extents_of_others(place: Place) -> Expected:
    """A vmdk whose extents are other machines' raw disks."""
    folder = place.folder("extents")
    for number, target in enumerate(["../../honest/web02.dd", f"{place.honest}/web03.iso"]):
        sectors = (12 << 20) // 512
        (folder / f"{number}.vmdk").write_text(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
            f'createType="monolithicFlat"\n\nRW {sectors} FLAT "{target}" 0\n'
        )
    return {f"mallory/extents/{number}.vmdk": FAILED for number in range(2)}


@attack
def base_of_others(place: Place) -> Expected:
    """Overlays over other machines' disks, in bounds by no means."""
    folder = place.folder("bases")
    targets = {
        "up": "../../honest/web08.img",
        "absolute": str(place.honest / "web09.raw"),
        "host": str(place.outside / "secret.raw"),
        "passwd": "/etc/passwd",
    }
    for name, target in targets.items():
        qcow2(folder / f"{name}.qcow2", backing=target)
    return {f"mallory/bases/{name}.qcow2": FAILED for name in targets}


@attack
def broken_user(place: Place) -> Expected:
    """An overlay that names a neighbour in its own folder, and cannot be opened itself."""
    folder = place.folder("broken")
    system(folder / "victim.raw")
    path = qcow2(folder / "overlay.qcow2", backing="victim.raw")
    data = bytearray(path.read_bytes())
    data[40:48] = (1 << 60).to_bytes(8, "big")  # the place of its first table
    path.write_bytes(data)
    return {"mallory/broken/overlay.qcow2": FAILED, "mallory/broken/victim.raw": Outcome(("ok",))}


# -- 3: a header that a guest wrote into its raw disk --------------------------------------------


@attack
def forged_header(place: Place) -> Expected:
    """Raw disks among the honest ones whose guests wrote a header that names a neighbour."""
    expected = {}
    for suffix in (".img", ".dd", ".iso", ".raw"):
        path = place.honest / f"forged{suffix}"
        qcow2(path, backing="web10.dd")
        with path.open("r+b") as stream:
            stream.truncate(12 << 20)
        expected[f"honest/forged{suffix}"] = FAILED
    path = place.honest / "forged-vmdk.img"
    path.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\n\nRW {(12 << 20) // 512} FLAT "web11.iso" 0\n'
    )
    return {**expected, "honest/forged-vmdk.img": FAILED}


# -- 4: links and files that are none ------------------------------------------------------------


@attack
def links(place: Place) -> Expected:
    """Symbolic links out of the source, to an honest machine, in a circle, and to devices."""
    folder = place.folder("links")
    (folder / "out.raw").symlink_to(place.outside / "secret.raw")
    (folder / "alias.raw").symlink_to("../../honest/web01.raw")
    (folder / "loop.raw").symlink_to("loop.raw")
    (folder / "zero.img").symlink_to("/dev/zero")
    (folder / "folder").symlink_to(place.outside)
    names = ("out.raw", "loop.raw", "zero.img")
    return {f"mallory/links/{name}": FAILED for name in names}


@attack
def no_files(place: Place) -> Expected:
    """Images that are FIFOs, folders and empty."""
    folder = place.folder("kinds")
    os.mkfifo(folder / "fifo.qcow2")
    os.mkfifo(folder / "fifo.img")
    (folder / "empty.raw").touch()
    return {f"mallory/kinds/{name}": FAILED for name in ("fifo.qcow2", "fifo.img", "empty.raw")}


@attack
def names(place: Place) -> Expected:
    """File names that are no names where they are shown."""
    folder = place.folder("names")
    written = [name.replace("/", "_").replace("\0", "") for name in NASTY]
    for name in written:
        (folder / f"{name}.raw").write_bytes(bytes(512))
    (folder / os.fsdecode(b"\xff\xfe.raw")).write_bytes(bytes(512))
    return {}


# -- 10, 13, 16: what lies in filesystems --------------------------------------------------------


@attack
def secrets(place: Place) -> Expected:
    """An image with a marked secret wherever configuration holds some."""
    url = f"https://bob:{SECRET}@mirror.example"
    folder = place.folder("secrets")
    files = {
        "etc/fstab": f"/dev/sda1 / ext4 defaults 0 1\n//nas/x /mnt/x cifs "
        f"noauto,username=bob,password={SECRET} 0 0\n"
        f"//nas/y /mnt/y cifs noauto,user=dom/bob%{SECRET} 0 0\n"
        f"{url}/dav /mnt/d davfs noauto 0 0\n",
        "etc/ssh/sshd_config": f"SetEnv API_TOKEN={SECRET}\n"
        f"Match User a\n  ForceCommand /bin/x --password {SECRET}\n",
        "etc/pam.d/login": f"auth required pam_ldap.so bindpw={SECRET}\n",
        "etc/systemd/system.conf": f"[Manager]\nDefaultEnvironment=DB_PASSWORD={SECRET}\n",
        "etc/systemd/system/a.service": f"[Service]\nEnvironment=API_KEY={SECRET}\n"
        f"ExecStart=/usr/bin/mysql -p{SECRET} -u root\n",
        "etc/apt/sources.list": f"deb {url}/debian stable main\n"
        f"deb https://m.example/debian?token={SECRET} stable main\n",
        "etc/apt/apt.conf.d/80proxy": f'Acquire::http::Proxy "http://bob:{SECRET}@proxy:8080";\n',
        "etc/yum.repos.d/a.repo": f"[a]\nname=a\nbaseurl={url}/a\napi_key={SECRET}\n"
        f"password={SECRET}\nenabled=1\n",
        "etc/crontab": f"1 2 * * * root curl -u bob:{SECRET} https://x.example\n"
        f"1 3 * * * root PGPASSWORD={SECRET} psql\n1 4 * * * root sshpass -p {SECRET} ssh h\n",
        "etc/default/grub": f'GRUB_CMDLINE_LINUX="rd.iscsi.password={SECRET} quiet"\n',
        "boot/grub/grub.cfg": "menuentry 'a' {\n linux /vmlinuz root=/dev/sda1 "
        f"iscsi_password={SECRET} netroot=iscsi:bob:{SECRET}@10.0.0.1::3260::iqn.a\n}}\n",
        "etc/sudoers": f"bob ALL=(ALL) /usr/bin/mysql -u root -p{SECRET}\n",
        "root/.ssh/authorized_keys": f'command="/bin/x --token={SECRET}",'
        f'environment="KEY={SECRET}" ssh-ed25519 '
        "AAAAC3NzaC1lZDI1NTE5AAAAIMarkedMarkedMarkedMarkedMarkedMarkedMarkedMarked a@b\n",
        "etc/sysctl.d/a.conf": f"kernel.core_pattern=|/bin/x --password {SECRET}\n",
        "etc/netplan/a.yaml": f"network: {{wifis: {{w: {{access-points: {{x: {{password: {SECRET}"
        "}}}}}}}}}\n",
        "etc/passwd": f"root:x:0:0:root:/root:/bin/bash\na:{SECRET}:1:1::/:/bin/sh\n",
        "etc/iscsi/iscsid.conf": f"node.session.auth.password = {SECRET}\n",
    }
    system(folder / "disk.raw", files)
    return {"mallory/secrets/disk.raw": Outcome(("ok", "partial"))}


@attack
def long_values(place: Place) -> Expected:
    """Names, users, packages and files without measure, and text that renderers may trip over."""
    folder = place.folder("values")
    nasty = [text.replace("\n", " ").replace("\0", "") for text in NASTY]
    users = "".join(f"u{n}:x:{n}:{n}:{'g' * 200}:/h/{n}:/bin/sh\n" for n in range(20_000))
    packages = "".join(
        f"Package: p{number}\nStatus: install ok installed\nArchitecture: amd64\n"
        f"Maintainer: {text}\nVersion: {'9' * 4000}:{text}-{number}\nDescription: {text}\n\n"
        for number, text in enumerate(nasty * 4)
    )
    files = {
        "etc/hostname": nasty[0] * 20,
        "etc/os-release": f"ID='{'x' * 60_000}'\nPRETTY_NAME='{nasty[1]}'\nVERSION_ID=1e999\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n" + users,
        "var/lib/dpkg/status": packages,
        "etc/ssh/sshd_config": f"Banner {'b' * 500_000}\n" + "PermitRootLogin yes\n" * 2000,
        "etc/crontab": "".join(f"* * * * * root {text}\n" for text in nasty),
        "etc/sysctl.conf": "".join(f"a.b{n} = {2**64 - 1}\n" for n in range(5000)),
    }
    image = system(folder / "disk.raw", files, mebibytes=48)
    for number, name in enumerate(("passwd", "hostname", "crontab")):
        size, time = 2**63 - 1 - number, 2**34 - 1 - number
        # The length that a file claims; what it holds stays as it is.
        debugfs(image, f"sif {name} mtime @{time}", f"write /dev/null big{number}")
        debugfs(image, f"sif big{number} size {size}", f"sif big{number} blocks {2**32 - 1}")
    return {"mallory/values/disk.raw": Outcome(("ok", "partial"))}


@attack
def fstab_device(place: Place) -> Expected:
    """An fstab that is a device, a FIFO for os-release, links that lead out."""
    folder = place.folder("nodes")
    image = system(folder / "disk.raw")
    debugfs(image, "rm fstab", "mknod fstab c 1 5", "rm crontab", "mknod crontab p")
    debugfs(image, "rm hostname", "symlink hostname /proc/1/environ", "symlink shells /dev/sda")
    return {"mallory/nodes/disk.raw": Outcome(("partial",), ("fstab",))}


@attack
def fstab_lost_mount(place: Place) -> Expected:
    """An fstab of which one line cannot be mounted."""
    folder = place.folder("lost")
    fstab = "/dev/sda1 / ext4 defaults 0 1\nUUID=0-0-0 /srv/data ext4 defaults 0 2\n"
    system(folder / "disk.raw", {"etc/fstab": fstab})
    return {"mallory/lost/disk.raw": Outcome(("partial",), ("/srv/data",))}


# -- 14, 17: what is no disk, and disks that are damaged -----------------------------------------


@attack
def containers(place: Place) -> Expected:
    """Compressed and other files under the suffixes of disks."""
    folder = place.folder("containers")
    content = bytes(1 << 20)
    files = {
        "a.img": gzip.compress(content),
        "b.raw": lzma.compress(content),
        "c.img": b"\x28\xb5\x2f\xfd" + bytes(4096),
        "d.iso": b"PK\x03\x04" + bytes(4096),
        "e.dd": b"EVF\x09\x0d\x0a\xff\x00" + bytes(4096),
        "f.img": bz2.compress(content),
        "g.img": b"sprs" + struct.pack(">II", 3, 512) + bytes(4096),
        "h.img": bytes(4096) + (b"koly" + struct.pack(">II204xQQ", 4, 512, 0, 9)).ljust(512, b"\0"),
        "i.img": b"7z\xbc\xaf\x27\x1c" + bytes(4096),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    known = ("gzip", "xz", "zstd", "zip", "E01", "", "sparse image", "dmg", "")
    return {
        f"mallory/containers/{name}": Outcome(words=(word,) if word else ())
        for name, word in zip(files, known, strict=True)
    }


@attack
def looping_tables(place: Place) -> Expected:
    """A qcow2 whose second table is its first one."""
    path = qcow2(place.folder("loop") / "disk.qcow2", "1G")
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack_from(">Q", data, 40)
    data = data.ljust(first + (64 << 10), b"\0")
    struct.pack_into(">Q", data, first, first | 1 << 63)
    path.write_bytes(data)
    return {"mallory/loop/disk.qcow2": Outcome(words=("qcow2",))}


@attack
def partition_tables(place: Place) -> Expected:
    """A damaged GPT, a chain of 60,000 logical partitions, one beyond the disk's end."""
    folder = place.folder("tables")
    plain = system(folder / "plain")
    gpt = gpt_disk(folder / "gpt.raw", plain, 512)
    with gpt.open("r+b") as stream:
        stream.seek(512)
        stream.write(bytes(512))
    plain.unlink()
    (folder / "chain.raw").write_bytes(_chain(60_000))
    beyond = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 2048, 1 << 31)
    (folder / "beyond.raw").write_bytes(_mbr(beyond) + bytes(4 << 20))
    return {
        "mallory/tables/gpt.raw": Outcome(("ok", "partial")),
        "mallory/tables/chain.raw": Outcome(words=("partitions",)),
        "mallory/tables/beyond.raw": FAILED,
    }


def _mbr(*entries: bytes) -> bytes:
    return (bytes(446) + b"".join(entries)).ljust(510, b"\0") + b"\x55\xaa"


def _chain(count: int) -> bytes:
    """A disk whose extended partition holds so many logical ones."""
    extended = struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 1, 2 * count + 1)
    pieces = [_mbr(extended)]
    for number in range(count):
        logical = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 1, 1)
        further = struct.pack("<B3sB3sII", 0, b"", 0x05, b"", 2 * (number + 1), 2)
        last = number == count - 1
        pieces += [_mbr(logical, *([] if last else [further])), bytes(512)]
    return b"".join(pieces)


@attack
def damaged_filesystem(place: Place) -> Expected:
    """An ext4 whose root directory, and whose inode tables, are garbage."""
    folder = place.folder("damaged")
    image = system(folder / "disk.raw")
    done = subprocess.run(
        ["/sbin/debugfs", "-R", "blocks /etc", str(image)], check=True, capture_output=True
    )
    block = int(done.stdout.split()[0])
    with image.open("r+b") as stream:
        stream.seek(block * 1024)
        stream.write(zlib.compress(bytes(1000)).ljust(1024, b"\xa5"))
    return {"mallory/damaged/disk.raw": Outcome(("failed",), ("damaged",))}
