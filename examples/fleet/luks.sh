# A disk whose only partition is encrypted.
. ./lib.sh

echo 'type=CA7D7CCB-63ED-4C53-861C-1742536059CC' | sfdisk --quiet --label gpt "$DISK0"
# A weak key derivation is quick, and the passphrase is no secret.
printf 'passphrase' | cryptsetup luksFormat --batch-mode --type luks2 --label vault \
    --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "${DISK0}1" -
expect_devices "${DISK0}1"
