# Logical volumes of every kind, and volume groups that are not whole: one lacks a disk, one
# belongs to another host, one is exported, and one is there twice, as its disk was copied.
. ./lib.sh

for disk in "$DISK0" "$DISK1"; do
    for size in 64 64 16 16 16 16; do
        echo "size=${size}MiB, type=E6D6D379-F507-44C2-A23C-238F2A3DF928"
    done | sfdisk --quiet --label gpt "$disk"
done

# group NAME DEVICE...: a volume group of small extents.
group() {
    name=$1
    shift
    lvm pvcreate --quiet "$@"
    lvm vgcreate --quiet --physicalextentsize 1M $options "$name" "$@"
}

# volume GROUP NAME [OPTION...]: a volume with a filesystem that is called the same.
volume() {
    group=$1 name=$2
    shift 2
    lvm lvcreate --yes --quiet --name "$name" "$@" "$group" >&2
    mkfs.ext4 -q -L "$name" "/dev/$group/$name"
}

options=
group kinds "${DISK0}1" "${DISK0}2" "${DISK1}1" "${DISK1}2"
volume kinds linear --size 8M
volume kinds striped --size 8M --stripes 2
volume kinds mirror --size 8M --type raid1
volume kinds raid5 --size 8M --type raid5 --stripes 2
volume kinds cached --size 8M
lvm lvcreate --yes --quiet --type cache-pool --size 8M --name fast kinds "${DISK1}2" >&2
lvm lvconvert --yes --quiet --type cache --cachepool kinds/fast kinds/cached >&2
lvm lvcreate --yes --quiet --type thin-pool --size 24M --name pool kinds >&2
lvm lvcreate --yes --quiet --thin --virtualsize 32M --name thin kinds/pool >&2
mkfs.ext4 -q -L thin /dev/kinds/thin
lvm lvcreate --yes --quiet --snapshot --name thin-before kinds/thin >&2
lvm lvcreate --yes --quiet --snapshot --size 4M --name linear-before kinds/linear >&2

group partial "${DISK0}3" "${DISK1}3"
volume partial whole --size 8M
volume partial torn --size 16M

group exported "${DISK0}4"
volume exported away --size 8M
group clone "${DISK0}5"
volume clone copied --size 8M
options='--systemid elsewhere'
group foreign "${DISK0}6"
_LVM="$_LVM global { system_id_source=\"lvmlocal\" } local { system_id=\"elsewhere\" }"
volume foreign abroad --size 8M

sync
lvm lvchange -ay -K kinds/thin-before >&2
lvm lvs --noheadings --separator ' ' --units b --nosuffix \
    -o vg_name,lv_name,lv_size,lv_layout,lv_uuid >"$EXPECTED/lvs"
expect_devices /dev/kinds/linear /dev/kinds/striped /dev/kinds/mirror /dev/kinds/raid5 \
    /dev/kinds/cached /dev/kinds/thin /dev/kinds/thin-before /dev/kinds/linear-before \
    /dev/partial/whole /dev/clone/copied /dev/foreign/abroad
lvm vgchange -an >&2
lvm vgexport exported >&2
dd if="${DISK0}5" of="${DISK1}5" bs=1M status=none
wipefs --quiet --all "${DISK1}3"
