# One filesystem of every kind that is not in other images, each with a file in it; one of them,
# the second NTFS, was not unmounted before the power went. $TREE holds the tools that make them.
. ./lib.sh

tools=/tmp/tools
mkdir "$tools"
unpack "$tools"
for place in dev proc sys; do mount --bind "/$place" "$tools/$place"; done
ln -sf /proc/self/mounts "$tools/etc/mtab"
tool() {
    chroot "$tools" "$@" >&2
}

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
size=20MiB, name="ntfs"
size=20MiB, name="ntfs-dirty"
size=8MiB, name="vfat"
size=8MiB, name="exfat"
size=64MiB, name="f2fs"
size=8MiB, name="udf"
size=20MiB, name="jfs"
size=32MiB, name="nilfs2"
size=8MiB, name="minix"
size=8MiB, name="iso9660"
size=8MiB, name="squashfs"
size=8MiB, name="erofs"
size=8MiB, name="ufs1"
size=8MiB, name="swap"
size=8MiB, name="vmfs"
TABLE

mkntfs -q -Q -L ntfs "${DISK0}1"
mkntfs -q -Q -L ntfs-dirty "${DISK0}2"
mkfs.vfat -n VFAT "${DISK0}3" >&2
tool mkfs.exfat -L exfat "${DISK0}4"
tool mkfs.f2fs -q -l f2fs "${DISK0}5"
tool mkudffs --label=udf --blocksize=512 "${DISK0}6"
tool mkfs.jfs -q -L jfs "${DISK0}7"
tool mkfs.nilfs2 -q -B 16 -L nilfs2 "${DISK0}8"
mkfs.minix -3 "${DISK0}9" >&2
mkswap --quiet --label swap "${DISK0}14"

# Those that are made with their content.
mkdir "$tools/content"
echo hello >"$tools/content/hello"
tool xorriso -as mkisofs -quiet -R -V ISO9660 -o /tmp/iso9660 /content
tool mksquashfs /content /tmp/squashfs -quiet -no-progress
tool mkfs.erofs --quiet -L erofs /tmp/erofs /content
tool makefs -t ffs -o version=1 -s 4m /tmp/ufs1 /content
number=10
for kind in iso9660 squashfs erofs ufs1; do
    cat "$tools/tmp/$kind" >"$DISK0$number"
    number=$((number + 1))
done
# An ISO of the kind that Macs start from: an Apple partition map, and HFS+ in it.
tool xorriso -as mkisofs -quiet -hfsplus -V MAC -o /tmp/mac /content
cat "$tools/tmp/mac" >"$DISK1"
blockdev --rereadpt "$DISK1"
# What only ESX can make, and Linux cannot mount: the magic number of VMFS (0x2fabf15e).
printf '\136\361\253\057' | dd of="${DISK0}15" bs=1M seek=2 conv=notrunc status=none

# visit NUMBER TYPE [OPTIONS]: write a file; then, mounted as a scanner would, ask df.
visit() {
    mkdir "/mnt/$1"
    case $2 in
    iso9660 | squashfs | erofs | ufs) ;;
    *)
        mount -i -t "$2" "$DISK0$1" "/mnt/$1"
        echo hello >"/mnt/$1/hello"
        umount -i "/mnt/$1"
        ;;
    esac
    mount -i -t "$2" -o "ro${3:+,$3}" "$DISK0$1" "/mnt/$1"
    grep -q hello "/mnt/$1/hello"
    df -B1 --output=size,used,avail,itotal,iused "/mnt/$1" |
        sed -n "2s/^/$1 /p" >>"$EXPECTED/df"
    umount -i "/mnt/$1"
}
visit 1 ntfs3
visit 3 vfat
visit 4 exfat
visit 5 f2fs
visit 6 udf
visit 7 jfs
visit 8 nilfs2
visit 9 minix
visit 10 iso9660
visit 11 squashfs
visit 12 erofs
visit 13 ufs ufstype=44bsd

expect_devices $(seq -f "$DISK0%g" 1 15) "$DISK1"*
sfdisk --json "$DISK0" >"$EXPECTED/partitions.json"

# sync(1) would have the driver say that all is well; the kernel's own writing back does not.
echo 10 >/proc/sys/vm/dirty_writeback_centisecs
echo 10 >/proc/sys/vm/dirty_expire_centisecs
mkdir /mnt/dirty
mount -i -t ntfs3 "${DISK0}2" /mnt/dirty
echo hello >/mnt/dirty/hello
sleep 3
