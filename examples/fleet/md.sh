# Software RAID of every level, each with a filesystem of its own; the fourth disk of the RAID 5
# called "short" is gone, and so are two of the three members of the one called "lost".
. ./lib.sh

modprobe -a raid0 raid1 raid10 raid456
export MDADM_NO_UDEV=1 DM_DISABLE_UDEV=1
for disk in "$DISK0" "$DISK1" "$DISK2" "$DISK3"; do
    for _ in 1 2 3 4 5 6 7 8; do
        echo 'size=12MiB, type=A19D880F-05FC-4D3B-A006-743F0F84911E'
    done | sfdisk --quiet --label gpt "$disk"
done

# array NUMBER PARTITION LEVEL MEMBERS [OPTION...]: create /dev/mdNUMBER and fill it.
array() {
    number=$1 partition=$2 level=$3 members=$4
    shift 4
    set -- "$@" $(for disk in "$DISK0" "$DISK1" "$DISK2" "$DISK3"; do
        echo "$disk$partition"
    done | head -n "$members")
    mdadm --create "/dev/md$number" --run --quiet --homehost=storage --level="$level" \
        --raid-devices="$members" --assume-clean --bitmap=none "$@" </dev/null
}

array 0 1 0 2 --metadata=1.2 --chunk=64
array 1 2 1 2 --metadata=1.0
array 5 3 5 3 --metadata=1.2 --chunk=64
array 6 4 6 4 --metadata=1.2 --chunk=64
array 10 5 10 4 --metadata=1.2 --chunk=64
array 50 6 5 4 --metadata=1.2 --chunk=64 --name=short
array 51 7 5 3 --metadata=1.2 --chunk=64 --name=lost
array 2 8 1 2 --metadata=0.90
for number in 0 5 6 10 50 51; do
    mkfs.ext4 -q -L "on-md$number" "/dev/md$number"
done

# A volume group on the mirror of the old format, and a system on the other.
lvm pvcreate --quiet /dev/md2
lvm vgcreate --quiet mirrored /dev/md2
lvm lvcreate --quiet -n data -L 4M mirrored
mkfs.ext4 -q -L on-lvm /dev/mirrored/data
mkfs.ext4 -q -L root /dev/md1
root=/mnt/root
mkdir "$root"
mount /dev/md1 "$root"
mkdir -p "$root/bin" "$root/etc" "$root/data" "$root/short"
printf 'ID=debian\nVERSION_ID="12"\n' >"$root/etc/os-release"
cat >"$root/etc/fstab" <<'FSTAB'
/dev/md1 / ext4 defaults 0 1
/dev/mirrored/data /data ext4 defaults 0 2
/dev/md/short /short ext4 defaults 0 2
FSTAB
mount /dev/mirrored/data "$root/data"
mount /dev/md50 "$root/short"
expect_usage "$root"
umount -R "$root"
expect_devices /dev/md0 /dev/md1 /dev/md5 /dev/md6 /dev/md10 /dev/md50 /dev/mirrored/data
for number in 0 1 2 5 6 10 50; do
    echo "md$number $(cat "/sys/block/md$number/md/level")" \
        "$(($(cat "/sys/block/md$number/size") * 512))"
done >"$EXPECTED/arrays"
lvm vgchange -an mirrored >&2
mdadm --stop --quiet --scan
mdadm --zero-superblock "${DISK3}6" "${DISK1}7" "${DISK2}7"
