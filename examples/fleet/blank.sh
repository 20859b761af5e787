# A disk without an operating system: one filesystem with somebody's data.
. ./lib.sh

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="photos"
TABLE
mkfs.ext4 -q -L photos "${DISK0}1"
mount "${DISK0}1" /mnt
mkdir /mnt/2024
printf '\377\330\377\340' >/mnt/2024/harbour.jpg
umount /mnt
expect_devices "${DISK0}1"
