#!/usr/bin/env bash
# The fleet's path and the store at fleet size, with recorded facts instead of VMs.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash examples/setup.sh --no-appliance
exec .venv/bin/python -m tests.bench.scale "$@"
