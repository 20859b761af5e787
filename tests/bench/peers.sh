#!/usr/bin/env bash
# fleetscan and libguestfs on the same guests, in alternation. Installs libguestfs and builds the
# guests when they are missing. Arguments go to tests/bench/peers.py; see README.md here.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# libguestfs makes its appliance out of the host's own packages: supermin, and a kernel in /boot.
bash examples/setup.sh libguestfs-tools python3-guestfs supermin linux-image-amd64
.venv/bin/python -m examples.build_fleet fleet large
exec .venv/bin/python -m tests.bench.peers "$@"
