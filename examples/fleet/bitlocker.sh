# A BitLocker volume that Windows made, of which only the metadata came down to us: a filesystem of
# our own is put into it, through the key that its passphrase opens.
. ./lib.sh

export DM_DISABLE_UDEV=1
modprobe dm_crypt
tar -xOf "$TREE" ./bitlk-images/bitlk-aes-xts-128.img | dd of="$DISK0" bs=1M iflag=fullblock
tar -xOf "$TREE" ./bitlk-images/images.conf |
    sed -n '/^\[bitlk-aes-xts-128\]$/,/^$/s/^\(GUID\|PW\|RP\)=/\1 /p' >"$EXPECTED/keys"
awk '$1 == "PW" { printf "%s", $2 }' "$EXPECTED/keys" |
    cryptsetup open --type bitlk --key-file - "$DISK0" sealed
mkntfs --quick --force --quiet --label sealed /dev/mapper/sealed
mkdir /mnt/sealed
mount -t ntfs3 /dev/mapper/sealed /mnt/sealed
mkdir /mnt/sealed/Documents
dd if=/dev/urandom of=/mnt/sealed/Documents/data bs=1M count=8 status=none
expect_usage /mnt/sealed
umount /mnt/sealed
expect_devices /dev/mapper/sealed
cryptsetup close sealed
