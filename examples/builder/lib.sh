# What the images' scripts share. Sourced by a script that runs as root in the builder's VM, with
# $DISK0... to fill, $TREE to unpack and the folder $EXPECTED for what a scan has to find.

export LVM_SUPPRESS_FD_WARNINGS=1
_LVM='devices { obtain_device_list_from_udev=0 use_devicesfile=0 }
    activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 }'

# lvm COMMAND ARGUMENT...: there is no udev in the VM, and its root is read-only.
lvm() {
    _command=$1
    shift
    command lvm "$_command" --config "$_LVM" "$@"
}

# uuid_of DEVICE: the filesystem's UUID.
uuid_of() {
    blkid -p -s UUID -o value "$1"
}

# unpack DIRECTORY [TAR_OPTION...]: put the tree into it, ids and attributes as they were.
unpack() {
    _target=$1
    shift
    tar -C "$_target" --numeric-owner --xattrs --xattrs-include='*' -xpf "$TREE" "$@"
    # A kernel fills /dev; the image holds the empty directory.
    rm -rf "$_target/dev"
    mkdir -p "$_target/dev"
}

# expect_tree DIRECTORY: every entry below it, as nine NUL-ended fields, and what is mounted there.
expect_tree() {
    find "$1" -printf '/%P\0%y\0%m\0%U\0%G\0%s\0%T@\0%n\0%l\0' >"$EXPECTED/files"
    findmnt --json --list --submounts "$1" \
        --output TARGET,SOURCE,FSTYPE,FSROOT,UUID,LABEL >"$EXPECTED/mounts.json"
}

# expect_usage DIRECTORY: sizes and usage of the filesystems mounted there, in bytes.
expect_usage() {
    sync
    findmnt --noheadings --list --submounts --output TARGET "$1" |
        xargs df -B1 --output=target,fstype,size,used,avail,itotal,iused >"$EXPECTED/df"
}

# expect_devices DEVICE...: what blkid says of each.
expect_devices() {
    for _device in "$@"; do
        blkid -p -o export "$_device"
        echo
    done >"$EXPECTED/blkid"
}

# expect_dpkg DIRECTORY: what dpkg-query says inside the tree.
expect_dpkg() {
    chroot "$1" dpkg-query -W \
        -f '${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n' >"$EXPECTED/packages"
}

# write_and_leave DIRECTORY: changes that are safe on the disk only in the filesystem's journal.
write_and_leave() {
    mkdir "$1/srv"
    for _number in 1 2 3 4 5; do
        echo "only in the journal $_number" >"$1/srv/journal-$_number"
        sync "$1/srv/journal-$_number"
    done
    rm "$1/etc/hosts"
    chmod 0600 "$1/etc/profile"
    sync "$1/etc/profile" "$1/etc" "$1/srv" "$1"
}
