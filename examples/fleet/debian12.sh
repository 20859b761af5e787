# Debian 12 on GPT, LVM and ext4, with /boot and an EFI system partition of their own.
# Set up carelessly on purpose: this is the machine on which rules fail.
. ./lib.sh

sfdisk --quiet --label gpt "$DISK0" <<'TABLE'
size=64MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="EFI System"
size=256MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="boot"
type=E6D6D379-F507-44C2-A23C-238F2A3DF928, name="lvm"
TABLE
mkfs.vfat -F 32 -n EFI "${DISK0}1" >&2
mkfs.ext4 -q -L boot "${DISK0}2"
lvm pvcreate --quiet "${DISK0}3"
lvm vgcreate --quiet debian-vg "${DISK0}3"
lvm lvcreate --quiet -n swap_1 -L 128M debian-vg
lvm lvcreate --quiet -n root -l 90%FREE debian-vg
mkfs.ext4 -q /dev/mapper/debian--vg-root
mkswap --quiet --label swap /dev/mapper/debian--vg-swap_1

root=/mnt/root
mkdir "$root"
mount -o noatime /dev/mapper/debian--vg-root "$root"
mkdir "$root/boot"
mount -o noatime "${DISK0}2" "$root/boot"
mkdir "$root/boot/efi"
# vfat keeps no modes: what find prints below is what the kernel makes up by default.
mount -o noatime "${DISK0}1" "$root/boot/efi"
unpack "$root"

# -- A system as an installer leaves it ----------------------------------------------------------
cat >"$root/etc/fstab" <<FSTAB
# <file system> <mount point> <type> <options> <dump> <pass>
/dev/mapper/debian--vg-root / ext4 errors=remount-ro 0 1
UUID=$(uuid_of "${DISK0}2") /boot ext4 defaults 0 2
UUID=$(uuid_of "${DISK0}1") /boot/efi vfat umask=0077 0 1
/dev/mapper/debian--vg-swap_1 none swap sw 0 0
/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0
tmpfs /tmp tmpfs defaults,nosuid,nodev 0 0
FSTAB
echo debian12 >"$root/etc/hostname"
echo 5b2f8a0c6d1e4f7391a2c3d4e5f60718 >"$root/etc/machine-id"
ln -sf /usr/share/zoneinfo/Europe/Paris "$root/etc/localtime"
echo Europe/Paris >"$root/etc/timezone"
mkdir -p "$root/boot/efi/EFI/debian"
echo 'search.fs_uuid root' >"$root/boot/efi/EFI/debian/grub.cfg"
# The hash is of the word "fleet".
hash='$6$examples$8K5AXyifjAEFKM4hlnp6i1YAFCDwt/YeQrAK0ZMr7WnJqvOaQXMJopc0otBVo/2s4tjgvqOSn5fAeOyhEdy/e1'
chroot "$root" useradd -m -s /bin/bash -c 'Alice Example,,,' -p "$hash" alice
chroot "$root" useradd -m -s /bin/bash bob
chroot "$root" usermod -aG sudo alice
echo 'sudo hold' | chroot "$root" dpkg --set-selections
chroot "$root" dpkg --remove logrotate >&2 # leaves its configuration behind

# -- What a baseline finds fault with ------------------------------------------------------------
chroot "$root" passwd --quiet --delete bob
chroot "$root" useradd -o -u 0 -g 0 -m -d /home/toor -s /bin/bash -p "$hash" toor
sed -i 's/^#\?PermitRootLogin.*/PermitRootLogin yes/; s/^#\?PermitEmptyPasswords.*/PermitEmptyPasswords yes/' \
    "$root/etc/ssh/sshd_config"
chmod 0644 "$root/etc/shadow"
cp "$root/bin/dash" "$root/usr/local/bin/rescue"
chmod 4755 "$root/usr/local/bin/rescue"
install -d -m 0777 "$root/srv/dropbox"
echo 'backup: /srv' >"$root/etc/backup.conf"
chmod 0666 "$root/etc/backup.conf"
echo 'alice ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/alice"
chmod 0440 "$root/etc/sudoers.d/alice"
echo '+ +' >"$root/root/.rhosts"
install -m 0644 /dev/null "$root/srv/nobody.txt"
chown 4242:4242 "$root/srv/nobody.txt"

# -- What a walk over files can stumble on -------------------------------------------------------
odd=$root/srv/odd
mkdir "$odd"
printf 'x' >"$odd/$(printf 'new\nline')"
printf 'x' >"$odd/$(printf 'latin1-\351')"
printf 'x' >"$odd/smörgåsbord-日本"
printf 'x' >"$odd/ leading and trailing "
printf 'x' >"$odd/back\\slash\\x41"
printf 'x' >"$odd/=cmd()"
printf 'linked' >"$odd/first"
ln "$odd/first" "$odd/second"
ln -s ../../etc/shadow "$odd/relative"
ln -s /etc/passwd "$odd/absolute"
ln -s loop "$odd/loop"
ln -s nowhere "$odd/dangling"
ln -s "$(printf 'latin1-\351')" "$odd/to-latin1"
mkfifo "$odd/fifo"
mknod "$odd/null" c 1 3
mknod "$odd/block" b 7 0
truncate -s 1G "$odd/sparse"
touch -d '1969-12-31 23:59:58.5 UTC' "$odd/before-the-epoch"
touch -d '2222-02-02 02:02:02.123456789 UTC' "$odd/far-future"
python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$odd/socket"
deep=$odd
for _ in 1 2 3 4 5 6 7 8 9 10; do
    deep=$deep/a-directory-with-a-rather-long-name-so-that-paths-grow
done
mkdir -p "$deep"

expect_dpkg "$root"
chroot "$root" getcap -r / >"$EXPECTED/capabilities"
expect_tree "$root"
expect_usage "$root"
umount -R "$root"
expect_devices "${DISK0}1" "${DISK0}2" "${DISK0}3" \
    /dev/mapper/debian--vg-root /dev/mapper/debian--vg-swap_1
lvm vgchange -an >&2
