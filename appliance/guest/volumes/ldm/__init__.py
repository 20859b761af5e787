"""Dynamic disks of Windows (LDM): their database, and the volumes that it describes."""

from fleetscan.appliance.guest.volumes.ldm.dynamic_disks import DynamicDisks

KIND = DynamicDisks
