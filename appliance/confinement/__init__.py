"""Confinement of the programs that read hostile bytes on the host: QEMU and qemu-img."""
