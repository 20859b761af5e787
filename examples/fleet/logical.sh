# An MBR whose extended partition chains four logical ones, with older filesystems on them.
. ./lib.sh

sfdisk --quiet --label dos "$DISK0" <<'TABLE'
size=16MiB, type=c
type=5
size=96MiB, type=83
size=32MiB, type=83
size=32MiB, type=82
type=83
TABLE
mkfs.vfat -n SHARED "${DISK0}1" >&2
mkfs.ext3 -q -L root "${DISK0}5"
mkfs.ext2 -q -L boot "${DISK0}6"
mkswap --quiet --label swap "${DISK0}7"
mkfs.ext4 -q -L home "${DISK0}8"

root=/mnt/root
mkdir "$root"
mount -o noatime "${DISK0}5" "$root"
mkdir "$root/boot" "$root/home"
mount -o noatime "${DISK0}6" "$root/boot"
mount -o noatime "${DISK0}8" "$root/home"
unpack "$root" --strip-components=2 ./now
# The names an older kernel gave an IDE disk.
cat >"$root/etc/fstab" <<'FSTAB'
/dev/hda5 / ext3 defaults 1 1
/dev/hda6 /boot ext2 defaults 1 2
/dev/hda8 /home ext4 nosuid,nodev 1 2
/dev/hda7 swap swap defaults 0 0
FSTAB
echo hello >"$root/home/hello"
sfdisk --json "$DISK0" >"$EXPECTED/partitions.json"
expect_tree "$root"
expect_usage "$root"
umount -R "$root"
expect_devices "${DISK0}1" "${DISK0}5" "${DISK0}6" "${DISK0}7" "${DISK0}8"
