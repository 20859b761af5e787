#!/usr/bin/env bash
# fleetscan and virt-inspector on every example image: where they agree, and who is right where not.
# Installs libguestfs and builds the images when they are missing. Arguments go to
# tests/bench/agreement.py; see README.md here.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# libguestfs makes its appliance out of the host's own packages: supermin, and a kernel in /boot.
bash examples/setup.sh libguestfs-tools supermin linux-image-amd64
.venv/bin/python -m examples.build_fleet fleet extra
exec .venv/bin/python -m tests.bench.agreement "$@"
