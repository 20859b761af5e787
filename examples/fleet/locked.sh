# Encryption in every order that systems are installed with: a system on LVM on LUKS2, LUKS1 with
# a key file of raw bytes, LUKS on LVM, and one container that nobody has the key of.
. ./lib.sh

export DM_DISABLE_UDEV=1
modprobe dm_crypt
for _ in 1 2 3 4; do
    echo 'size=40MiB, type=CA7D7CCB-63ED-4C53-861C-1742536059CC'
done | sfdisk --quiet --label gpt "$DISK0"

# seal DEVICE TYPE NAME: encrypt it with the key on standard input and open it. A weak key
# derivation is quick.
seal() {
    cat >/tmp/key
    derivation='--pbkdf pbkdf2 --pbkdf-force-iterations 1000'
    [ "$2" = luks2 ] || derivation='--pbkdf-force-iterations 1000'
    cryptsetup luksFormat --batch-mode --disable-locks --type "$2" $derivation "$1" /tmp/key
    cryptsetup open --disable-locks --key-file /tmp/key "$1" "$3"
}

printf 'correct horse' | seal "${DISK0}1" luks2 outer
lvm pvcreate --quiet /dev/mapper/outer
lvm vgcreate --quiet inner /dev/mapper/outer
lvm lvcreate --quiet -n root -L 16M inner
mkfs.ext4 -q -L root /dev/inner/root

printf 'raw\000key\nof bytes\377' >"$EXPECTED/raw.key"
seal "${DISK0}2" luks1 data <"$EXPECTED/raw.key"
mkfs.ext4 -q -L data /dev/mapper/data

lvm pvcreate --quiet "${DISK0}3"
lvm vgcreate --quiet below "${DISK0}3"
lvm lvcreate --quiet -n sealed -L 28M below
printf 'battery staple' | seal /dev/below/sealed luks2 above
mkfs.ext4 -q -L above /dev/mapper/above

printf 'nobody knows' | seal "${DISK0}4" luks2 lost

root=/mnt/root
mkdir "$root"
mount /dev/inner/root "$root"
mkdir -p "$root/etc" "$root/data" "$root/srv"
printf 'ID=debian\nVERSION_ID="12"\n' >"$root/etc/os-release"
cat >"$root/etc/crypttab" <<CRYPTTAB
# <name> <device> <key> <options>
outer UUID=$(uuid_of "${DISK0}1") none luks
data UUID=$(uuid_of "${DISK0}2") /etc/keys/data luks
CRYPTTAB
cat >"$root/etc/fstab" <<'FSTAB'
/dev/mapper/inner-root / ext4 defaults 0 1
/dev/mapper/data /data ext4 defaults 0 2
LABEL=above /srv ext4 defaults 0 2
FSTAB
mount /dev/mapper/data "$root/data"
mount /dev/mapper/above "$root/srv"
expect_usage "$root"
umount -R "$root"
expect_devices /dev/inner/root /dev/mapper/data /dev/mapper/above
for device in "${DISK0}1" "${DISK0}2" /dev/below/sealed "${DISK0}4"; do
    echo "$(cryptsetup luksUUID "$device")"
done >"$EXPECTED/containers"
for name in data above lost; do cryptsetup close --disable-locks "$name"; done
lvm vgchange -an >&2
cryptsetup close --disable-locks outer
