# The rpm guest: an overlay over the golden image, packages upgraded, added and removed since.
. ./lib.sh

root=/mnt/root
mkdir "$root"
mount -o noatime "${DISK0}1" "$root"
unpack "$root" --strip-components=2 --overwrite --recursive-unlink ./now
echo "UUID=$(uuid_of "${DISK0}1") / xfs defaults 0 0" >"$root/etc/fstab"
# A program of the right architecture, which the packages made for this example do not bring.
mkdir -p "$root/usr/bin"
cp /usr/bin/true "$root/usr/bin/bash"

# Labelled throughout, as a system with SELinux is.
python3 - "$root" <<'PYTHON'
import os
import sys

root = sys.argv[1]
kinds = {"/etc/shadow": "shadow_t", "/etc/passwd": "passwd_file_t", "/usr/bin/bash": "shell_exec_t"}
for folder, folders, files in os.walk(root):
    for name in [".", *folders, *files]:
        path = os.path.normpath(os.path.join(folder, name))
        kind = kinds.get(path.removeprefix(root), "default_t")
        label = f"system_u:object_r:{kind}:s0".encode() + b"\0"
        os.setxattr(path, "security.selinux", label, follow_symlinks=False)
PYTHON

tar -xOf "$TREE" ./packages >"$EXPECTED/packages"
expect_tree "$root"
expect_usage "$root"
umount "$root"
expect_devices "${DISK0}1"
