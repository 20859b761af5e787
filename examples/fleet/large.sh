# A Debian 12 with the files of a developer's machine, some 80,000: for measuring.
. ./lib.sh

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
size=128MiB, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, name="swap"
type=E6D6D379-F507-44C2-A23C-238F2A3DF928, name="lvm"
TABLE
mkswap --quiet "${DISK0}1"
lvm pvcreate --quiet "${DISK0}2"
lvm vgcreate --quiet large-vg "${DISK0}2"
lvm lvcreate --quiet -n root -l 100%FREE large-vg
mkfs.ext4 -q -L large /dev/large-vg/root

root=/mnt/root
mkdir "$root"
mount -o noatime /dev/large-vg/root "$root"
unpack "$root"
cat >"$root/etc/fstab" <<FSTAB
/dev/mapper/large--vg-root / ext4 errors=remount-ro 0 1
UUID=$(uuid_of "${DISK0}1") none swap sw 0 0
FSTAB
echo large >"$root/etc/hostname"

expect_dpkg "$root"
expect_tree "$root"
expect_usage "$root"
umount "$root"
expect_devices "${DISK0}1" "${DISK0}2" /dev/large-vg/root
lvm vgchange -an >&2
