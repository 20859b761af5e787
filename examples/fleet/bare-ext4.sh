# A filesystem on the whole disk, without a partition table.
. ./lib.sh

mkfs.ext4 -q -L bare "$DISK0"
root=/mnt/root
mkdir "$root"
mount -o noatime "$DISK0" "$root"
unpack "$root" --strip-components=2 ./now
echo 'LABEL=bare / ext4 defaults 0 1' >"$root/etc/fstab"
expect_tree "$root"
expect_usage "$root"
umount "$root"
expect_devices "$DISK0"
