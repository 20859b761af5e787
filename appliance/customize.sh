#!/bin/sh
# Last step of the appliance's build, run by mmdebstrap with the new system's directory as $1:
# slims it, makes kernel modules quick to load, and packs the root filesystem image.
# Everything that the host needs is left in /appliance of that directory.
set -eu
root=$1

release=$(ls "$root/usr/lib/modules")
modules=$root/usr/lib/modules/$release
out=$root/appliance
mkdir -p "$out" "$root/sysroot"

# Of the drivers, those for block devices are enough; every filesystem stays.
for folder in "$modules"/kernel/* "$modules"/kernel/drivers/*; do
    case ${folder#"$modules/kernel/"} in
        arch | block | crypto | drivers | fs | lib) ;;
        drivers/block | drivers/cdrom | drivers/char | drivers/dax | drivers/md) ;;
        drivers/nvdimm | drivers/scsi | drivers/virtio) ;;
        *) rm -r "$folder" ;;
    esac
done

# Modules are stored compressed by Debian; unpacking them under emulation costs more than reading.
find "$modules" -name '*.ko.xz' -exec xz -d {} +
chroot "$root" depmod "$release"

mkdir "$root/usr/lib/fleetscan"
chroot "$root" sh -c 'tcc -Wall -Werror -o /usr/lib/fleetscan/walk /appliance/native/*.c'
chroot "$root" tcc -Wall -Werror -shared -o /usr/lib/fleetscan/marvin32.so /appliance/marvin32.c
# tcc does not say that its libraries need no executable stack, and glibc loads none that may: the
# program headers are written anew at the end, with one (PT_GNU_STACK, read and write) that says so.
chroot "$root" python3 - /usr/lib/fleetscan/marvin32.so <<'PYTHON'
import struct
import sys

with open(sys.argv[1], "r+b") as stream:
    head = bytearray(stream.read(64))
    (at,), (size, count) = struct.unpack_from("<Q", head, 32), struct.unpack_from("<HH", head, 54)
    stream.seek(at)
    headers = stream.read(size * count) + struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    end = stream.seek(0, 2) + 7 & ~7
    stream.seek(end)
    stream.write(headers)
    struct.pack_into("<Q", head, 32, end)
    struct.pack_into("<H", head, 56, count + 1)
    stream.seek(0)
    stream.write(head)
PYTHON
chroot "$root" python3 -c 'import ctypes; ctypes.CDLL("/usr/lib/fleetscan/marvin32.so")'
rm -rf "$root/usr/include" "$root/usr/lib/x86_64-linux-gnu/tcc" "$root/usr/bin/"*tcc
find "$root/usr/lib/x86_64-linux-gnu" -name '*.a' -delete

mv "$root/boot/vmlinuz-$release" "$out/vmlinuz"
cp "$root/bin/busybox" "$out/busybox"
mkdir "$out/modules"
for wanted in virtio_blk erofs; do
    chroot "$root" modprobe --set-version "$release" --show-depends "$wanted" |
        awk '$1 == "insmod" { print $2 }' |
        while read -r module; do
            cp "$root$module" "$out/modules/"
            basename "$module" >>"$out/modules/modules.order"
        done
done
tar -C "$out" -cf "$out/modules.tar" modules
chroot "$root" dpkg-query -W -f '${Package} ${Version}\n' >"$out/versions"
echo "$release" >"$out/release"

rm -rf "$root/boot/"* "$root/var/lib/apt/lists" "$root/var/cache/"* "$root/var/log/"* \
    "$root/usr/share/perl" "$root/usr/share/initramfs-tools" "$root/var/lib/dpkg/info"
find "$root/usr/lib/python3" "$root/usr/lib/python3."* -name test -type d -prune -exec rm -rf {} +
# No host name, machine id or random seed may come out of a shared image.
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/systemd/random-seed"
: >"$root/etc/machine-id"

# Fixed times and UUID: the same packages give the same bytes. What mmdebstrap mounts while it
# works (/dev, /proc, /sys) stays outside; the directories themselves are wanted.
mkfs.erofs --quiet -T 0 -U 4f6c4d3e-6f1a-4a3e-9b57-666c65657473 -x-1 --exclude-path=appliance \
    --exclude-regex='^(dev|proc|sys|run|tmp)/' "$out/root.erofs" "$root" 2>"$out/mkfs.log" ||
    { tail -n 20 "$out/mkfs.log" >&2; exit 1; }
