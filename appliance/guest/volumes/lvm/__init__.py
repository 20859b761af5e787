"""Logical volumes (LVM): plain groups mapped here, all others opened by lvm."""

from fleetscan.appliance.guest.volumes.lvm.groups import LogicalVolumes

KIND = LogicalVolumes
