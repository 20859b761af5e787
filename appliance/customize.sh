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
