# Windows 10 as far as facts about it lie in files: registry hives that were made from text, on NTFS,
# with an MBR whose signature the registry's drive letters name.
. ./lib.sh

sfdisk --quiet --label dos "$DISK0" <<'TABLE'
label-id: 0x0badc0de
start=1MiB, size=67MiB, type=7, bootable
start=68MiB, type=7
TABLE
mkntfs --quick --quiet --label System "${DISK0}1"
mkntfs --quick --quiet --label Recovery "${DISK0}2"

root=/mnt/root
mkdir "$root"
mount -t ntfs3 -o noatime "${DISK0}1" "$root"
tar -C "$root" --no-same-owner --strip-components=2 -xf "$TREE" ./root
tar -C "$EXPECTED" --strip-components=2 -xf "$TREE" ./expected
expect_tree "$root"
expect_usage "$root"
umount "$root"
expect_devices "${DISK0}1" "${DISK0}2"
