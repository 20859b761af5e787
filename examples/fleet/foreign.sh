# What Linux can name and not read: the marks by which libblkid knows filesystems of other systems
# and members of their volumes, for lack of free tools that make them. Two that tools here make. And
# a disk of Sun's.
. ./lib.sh

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
size=68MiB, name="zfs"
size=4MiB, name="refs"
size=4MiB, name="apfs"
size=4MiB, name="reiserfs"
size=36MiB, name="gfs2"
size=4MiB, name="bfs"
size=4MiB, name="cramfs"
TABLE

python3 - "$DISK0" "$DISK1" <<'PYTHON'
import os
import struct
import sys

parts, whole = sys.argv[1:]


def mark(device, *pieces):
    with open(device, "r+b") as stream:
        for offset, content in pieces:
            stream.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            stream.write(content)


def checksum(block):
    """APFS' own: Fletcher's, of 64 bits."""
    most = 2**32 - 1
    low = high = 0
    for (word,) in struct.iter_unpack("<I", block):
        low = (low + word) % most
        high = (high + low) % most
    first = most - (low + high) % most
    return struct.pack("<II", first, most - (low + first) % most)


def pair(name, kind, value):
    """A name and value of ZFS' label, as XDR has them: 8 is a number, 9 text."""
    encoded = struct.pack(">I", len(name)) + name.ljust(len(name) + -len(name) % 4, b"\0")
    encoded += struct.pack(">II", kind, 1)
    encoded += struct.pack(">Q", value) if kind == 8 else struct.pack(">I", 4) + value
    return struct.pack(">II", len(encoded) + 8, 0) + encoded


# The label at 16 KiB; at least four uberblocks, a KiB each, from 128 KiB on.
label = struct.pack(">BBHII", 1, 1, 0, 0, 1) + pair(b"name", 9, b"tank")
for name, value in ((b"state", 0), (b"txg", 4), (b"pool_guid", 1234), (b"guid", 5678)):
    label += pair(name, 8, value)
mark(f"{parts}1", (16384, label + bytes(8)))
mark(f"{parts}1", *((131072 + n * 1024, struct.pack("<QQ", 0x00BAB10C, 5000)) for n in range(8)))
mark(f"{parts}2", (3, b"ReFS"))
# Object and transaction, the type of a container's superblock, its magic, the size of blocks.
block = struct.pack("<QQHHHH4sI", 1, 1, 1, 0x8000, 0, 0, b"NXSB", 4096).ljust(4088, b"\0")
mark(f"{parts}3", (0, checksum(block) + block))
# First block of the journal, the size of blocks, the magic.
mark(f"{parts}4", (65548, struct.pack("<I", 64)), (65580, struct.pack("<H", 4096)))
mark(f"{parts}4", (65588, b"ReIsEr2Fs"))
# Magic, type, formats of the header, of the filesystem and of locking, the size of blocks.
mark(f"{parts}5", (65536, struct.pack(">IIQIIIIII", 0x01161970, 1, 0, 100, 0, 1801, 1900, 0, 4096)))
# Of a whole disk that is part of a controller's array.
mark(whole, (-1024, b"Intel Raid ISM Cfg Sig. 1.3.00"))
PYTHON
mkfs.bfs "${DISK0}6" >&2
mkdir /tmp/content
echo hello >/tmp/content/hello
mkfs.cramfs -n cramfs /tmp/content /tmp/cramfs >&2
cat /tmp/cramfs >"${DISK0}7"
expect_devices $(seq -f "$DISK0%g" 1 7) "$DISK1"

printf '%s\n' 'size=8MiB' '' | sfdisk --quiet --label sun "$DISK2"
partx --show --output NR,START,SECTORS --noheadings "$DISK2" >"$EXPECTED/partx"
