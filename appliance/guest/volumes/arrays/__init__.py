"""Software RAID (md): its arrays, and the names that systems give them."""

from fleetscan.appliance.guest.volumes.arrays.md import Arrays

KIND = Arrays
