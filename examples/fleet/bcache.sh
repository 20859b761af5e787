# Devices as make-bcache leaves them, with a filesystem where bcache's driver would show it: one
# whose data begins where its header says, one of the older kind, and a cache.
. ./lib.sh

tools=/tmp/tools
mkdir "$tools"
unpack "$tools"
for place in dev proc sys; do mount --bind "/$place" "$tools/$place"; done

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
size=24MiB, name="offset"
size=24MiB, name="older"
size=80MiB, name="cache"
TABLE
chroot "$tools" make-bcache --data-offset 2048 --bdev "${DISK0}1" >&2
chroot "$tools" make-bcache --bdev "${DISK0}2" >&2
chroot "$tools" make-bcache --cache "${DISK0}3" >&2

# fill NUMBER SECTORS: a filesystem that begins so far into the partition.
fill() {
    size=$(($(blockdev --getsz "$DISK0$1") - $2))
    dmsetup create "inner$1" --table "0 $size linear $DISK0$1 $2"
    mkfs.ext4 -q -L "bcache$1" "/dev/mapper/inner$1"
    mkdir "/mnt/$1"
    mount "/dev/mapper/inner$1" "/mnt/$1"
    echo hello >"/mnt/$1/hello"
}
export DM_DISABLE_UDEV=1
fill 1 2048
fill 2 16
sync
df -B1 --output=target,fstype,size,used,avail,itotal,iused /mnt/1 /mnt/2 >"$EXPECTED/df"
umount /mnt/1 /mnt/2
expect_devices /dev/mapper/inner1 /dev/mapper/inner2
dmsetup remove inner1
dmsetup remove inner2
