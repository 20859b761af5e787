# Partition tables that are seldom seen: a GPT with all of its 128 entries used, a BSD label inside
# an MBR partition, and a whole disk, partitions and all, inside a logical volume.
. ./lib.sh

for number in $(seq 1 127); do
    echo "size=1MiB, name=\"part$number\""
done | { cat; echo 'name="last"'; } | sfdisk --quiet --label gpt --no-tell-kernel "$DISK0"

echo 'start=2048, type=a5' | sfdisk --quiet --label dos "$DISK1"
# Two partitions in the slice: b enters its label, n makes one, t gives it a type (7: 4.2BSD).
printf '%s\n' b y n a 4096 +16M t a 7 n b 65536 +8M t b 7 w | fdisk --wipe never "$DISK1" >&2
blockdev --rereadpt "$DISK1"

lvm pvcreate --quiet "$DISK2"
lvm vgcreate --quiet --physicalextentsize 1M hosts "$DISK2"
lvm lvcreate --yes --quiet --name guest --size 24M hosts >&2
printf '%s\n' 'size=8MiB, type=83' 'type=83' |
    sfdisk --quiet --label dos --no-tell-kernel /dev/hosts/guest
modprobe loop
losetup --partscan /dev/loop0 /dev/hosts/guest
mkfs.ext4 -q -L boot /dev/loop0p1
mkfs.ext4 -q -L root /dev/loop0p2
expect_devices /dev/loop0p1 /dev/loop0p2
losetup --detach /dev/loop0
for disk in "$DISK0" "$DISK1"; do
    partx --show --output NR,START,SECTORS,SCHEME --noheadings "$disk"
done >"$EXPECTED/partx"
partx --show --output NR,START,SECTORS,SCHEME --noheadings /dev/hosts/guest >"$EXPECTED/inside"
lvm vgchange -an >&2
