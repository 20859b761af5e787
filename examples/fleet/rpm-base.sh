# What the rpm guest was installed from: the golden image below its overlay.
. ./lib.sh

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
TABLE
mkfs.xfs -q -L rootfs "${DISK0}1"
mount -o noatime "${DISK0}1" /mnt
unpack /mnt --strip-components=2 ./base
umount /mnt
