# Debian 13 on btrfs: subvolumes for / and /home, a read-only snapshot, and an MBR whose extended
# partition holds swap and data.
. ./lib.sh

sfdisk --quiet --label dos "$DISK0" <<'TABLE'
size=1500MiB, type=83, bootable
type=5
size=128MiB, type=82
type=83
TABLE
mkfs.btrfs -q -L debian13 "${DISK0}1"
mkswap --quiet "${DISK0}5"
mkfs.ext4 -q -L data "${DISK0}6"

top=/mnt/top
mkdir "$top"
mount -o noatime "${DISK0}1" "$top"
for name in @rootfs @home; do
    btrfs subvolume create "$top/$name" >&2
done

root=/mnt/root
mkdir "$root"
mount -o noatime,subvol=@rootfs "${DISK0}1" "$root"
unpack "$root"
mkdir -p "$root/home" "$root/srv/data"
mount -o noatime,subvol=@home "${DISK0}1" "$root/home"
mount -o noatime "${DISK0}6" "$root/srv/data"

uuid=$(uuid_of "${DISK0}1")
cat >"$root/etc/fstab" <<FSTAB
UUID=$uuid / btrfs defaults,subvol=@rootfs 0 0
LABEL=debian13 /home btrfs defaults,subvol=/@home 0 0
LABEL=data /srv/data ext4 defaults,nosuid 0 2
/dev/sda5 none swap sw 0 0
FSTAB
echo debian13 >"$root/etc/hostname"
echo 0f1e2d3c4b5a69788796a5b4c3d2e1f0 >"$root/etc/machine-id"
chroot "$root" useradd -m -s /bin/bash carol
chroot "$root" systemctl --quiet mask tmp.mount
echo 'rows' >"$root/srv/data/table.csv"
mkdir "$top/.snapshots"
btrfs subvolume snapshot -r "$top/@rootfs" "$top/.snapshots/1" >&2

expect_dpkg "$root"
btrfs subvolume list -u "$top" >"$EXPECTED/subvolumes"
expect_tree "$root"
expect_usage "$root"
umount -R "$root"
umount "$top"
expect_devices "${DISK0}1" "${DISK0}5" "${DISK0}6"
