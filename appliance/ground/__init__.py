"""What both halves stand on, host and guest. It ships into the VM and imports nothing of ours."""
