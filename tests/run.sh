#!/usr/bin/env bash
# Set-up and the whole suite: lint, types, tests. Arguments go to pytest.
#
# The example images that tests scan are built once and kept; see examples/README.md.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash examples/setup.sh --no-appliance chromium jq python3-rpm cpio gcc libc6-dev fdisk \
    squashfs-tools xorriso ntfs-3g \
    python3-hivex reglookup chntpw libaugeas0 augeas-lenses openssh-client openssl

.venv/bin/python -m examples.build_fleet fleet extra # the appliance along with them
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/mypy -p examples
exec .venv/bin/python -m pytest "$@"
