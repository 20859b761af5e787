# Volume groups of nothing but linear and striped volumes, over two disks, with names that lvm has
# to write differently.
. ./lib.sh

for disk in "$DISK0" "$DISK1"; do
    for size in 40 20; do
        echo "size=${size}MiB, type=E6D6D379-F507-44C2-A23C-238F2A3DF928"
    done | sfdisk --quiet --label gpt "$disk"
done
lvm pvcreate --quiet "${DISK0}1" "${DISK0}2" "${DISK1}1" "${DISK1}2"
lvm vgcreate --quiet --physicalextentsize 1M --addtag tag 'long-lived.1' "${DISK0}1" "${DISK1}1"
lvm vgcreate --quiet --physicalextentsize 1M fast "${DISK1}2" "${DISK0}2"

lvm lvcreate --yes --quiet --name in-parts --size 12M long-lived.1 "${DISK0}1" >&2
lvm lvcreate --yes --quiet --name between --size 4M long-lived.1 "${DISK0}1" >&2
lvm lvextend --quiet --size 20M long-lived.1/in-parts "${DISK0}1" >&2
lvm lvextend --quiet --size 40M long-lived.1/in-parts "${DISK1}1" >&2
lvm lvcreate --yes --quiet --name striped --size 16M --stripes 2 --stripesize 16 fast >&2
lvm lvcreate --yes --quiet --name readable --size 4M --permission r --zero n fast >&2 || exit 1
mkfs.ext4 -q -L in-parts /dev/long-lived.1/in-parts
mkfs.ext4 -q -L between /dev/long-lived.1/between
mkfs.ext4 -q -L striped /dev/fast/striped

sync
lvm lvs --noheadings --separator ' ' --units b --nosuffix \
    -o vg_name,lv_name,lv_size,lv_layout,lv_uuid >"$EXPECTED/lvs"
expect_devices /dev/long-lived.1/in-parts /dev/long-lived.1/between /dev/fast/striped

# What is mapped where, devices by the UUIDs of their physical volumes.
dmsetup table >"$EXPECTED/mapped"
lvm pvs --noheadings -o pv_name,pv_uuid | while read -r device uuid; do
    number=$(cat "/sys/class/block/${device#/dev/}/dev")
    sed -i "s/ $number / $uuid /g" "$EXPECTED/mapped"
done
for group in long-lived.1 fast; do
    lvm vgcfgbackup --quiet --file "$EXPECTED/$group.metadata" "$group" >&2
done
