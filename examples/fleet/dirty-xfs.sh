# An xfs that lost its power: the log holds files that the filesystem proper lacks.
. ./lib.sh

echo 'type=83' | sfdisk --quiet --label dos "$DISK0"
mkfs.xfs -q -L dirty "${DISK0}1"
root=/mnt/root
mkdir "$root"
mount -o noatime "${DISK0}1" "$root"
unpack "$root" --strip-components=2 ./now
echo "UUID=$(uuid_of "${DISK0}1") / xfs defaults 0 0" >"$root/etc/fstab"
sync

# From here on only the journal knows: nothing is synced as a whole, and nothing is unmounted
# before the power goes.
write_and_leave "$root"
expect_tree "$root"
expect_devices "${DISK0}1"
