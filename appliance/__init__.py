"""The virtual machine that every scanned machine is opened in."""
