# A Windows 10 as a copy finds it that was taken while it slept: hibernated, its volume marked as
# dirty, the registry's newest writes in logs. Its SYSTEM hive is that of a real Windows.
. ./lib.sh

sfdisk --quiet --label dos "$DISK0" <<'TABLE'
label-id: 0x0badc0de
start=1MiB, type=7, bootable
TABLE
mkntfs --quick --quiet --label System "${DISK0}1"

# Without options it asks Windows for a check, which marks the volume; it would not do so later,
# while Windows sleeps.
ntfsfix "${DISK0}1"

root=/mnt/root
mkdir "$root"
mount -t ntfs3 -o noatime,force "${DISK0}1" "$root"
tar -C "$root" --no-same-owner --strip-components=1 -xf "$TREE" root
tar -C "$EXPECTED" --strip-components=1 -xf "$TREE" expected
{ printf HIBR; head -c 1M /dev/zero; } >"$root/hiberfil.sys"
umount "$root"
