# A reduced Debian 12 whose volume group lies across two disks: the root volume is longer than
# either disk, and /srv is striped over both.
. ./lib.sh

for disk in "$DISK0" "$DISK1"; do
    echo 'type=E6D6D379-F507-44C2-A23C-238F2A3DF928' | sfdisk --quiet --label gpt "$disk"
done
lvm pvcreate --quiet "${DISK0}1" "${DISK1}1"
lvm vgcreate --quiet vg0 "${DISK0}1" "${DISK1}1"
lvm lvcreate --quiet -n srv -L 64M --stripes 2 vg0
lvm lvcreate --quiet -n root -l 100%FREE vg0
mkfs.ext4 -q -L root /dev/vg0/root
mkfs.ext4 -q -L srv /dev/vg0/srv

root=/mnt/root
mkdir "$root"
mount -o noatime /dev/vg0/root "$root"
unpack "$root" --exclude='./boot/*' --exclude='./usr/lib/modules/*' --exclude='./usr/share/*'
mkdir -p "$root/srv"
mount -o noatime /dev/vg0/srv "$root/srv"
cat >"$root/etc/fstab" <<'FSTAB'
/dev/vg0/root / ext4 defaults 0 1
/dev/vg0/srv /srv ext4 defaults,noexec 0 2
FSTAB
echo twodisk >"$root/etc/hostname"
# Reaches past the first disk, so that reading it needs both.
dd if=/dev/urandom of="$root/srv/blob" bs=1M count=8 status=none
sha256sum <"$root/srv/blob" >"$EXPECTED/blob.sha256"

expect_dpkg "$root"
expect_tree "$root"
expect_usage "$root"
umount -R "$root"
expect_devices "${DISK0}1" "${DISK1}1" /dev/vg0/root /dev/vg0/srv
lvm vgchange -an >&2
