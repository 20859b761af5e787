#!/bin/busybox sh
# First process in the initrd: loads what the root disk needs, mounts it read-only and hands over
# to the agent, which came along in the same initrd.
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
export NO_COLOR=1
for module in $(/bin/busybox cat /modules/modules.order); do
    # Some are for processors that this one is not; the mount below tells whether any is missed.
    /bin/busybox insmod "/modules/$module" 2>/dev/null
done
/bin/busybox mount -t erofs -o ro /dev/vda /newroot || exit 1
/bin/busybox mount -t tmpfs -o mode=755 run /newroot/run
/bin/busybox mv /agent /newroot/run/agent
/bin/busybox mount --move /dev /newroot/dev
exec /bin/busybox switch_root /newroot /usr/bin/python3 -ISB /run/agent/start.py
