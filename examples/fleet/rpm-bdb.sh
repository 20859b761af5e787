# An rpm system with the Berkeley DB database that rpm wrote until 4.16.
. ./lib.sh

mkfs.ext4 -q -L rpm-bdb "$DISK0"
root=/mnt/root
mkdir "$root"
mount -o noatime "$DISK0" "$root"
unpack "$root" --strip-components=2 ./now
rm "$root"/var/lib/rpm/*
tar -C "$root/var/lib/rpm" -xf "$TREE" ./Packages
echo 'LABEL=rpm-bdb / ext4 defaults 0 1' >"$root/etc/fstab"

tar -xOf "$TREE" ./packages >"$EXPECTED/packages"
expect_tree "$root"
umount "$root"
expect_devices "$DISK0"
