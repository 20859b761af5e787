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
# Its command interpreter, which tells other programs of a Windows and of its architecture: the
# headers of a PE32+ for x86-64 (machine 0x8664, magic 0x20b) and of the console (subsystem 3).
zeros() { head -c "$1" /dev/zero; }
{
    printf 'MZ' && zeros 58 && printf '@\0\0\0PE\0\0\144\206' && zeros 14
    printf '\360\0\042\0\013\002' && zeros 66 && printf '\003\0' && zeros 170
} >"$root/Windows/System32/cmd.exe"
expect_tree "$root"
expect_usage "$root"
umount "$root"
expect_devices "${DISK0}1" "${DISK0}2"
