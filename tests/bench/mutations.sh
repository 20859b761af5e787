#!/usr/bin/env bash
# Random damage to every example image, scanned: see tests/bench/README.md.
# Usage: mutations.sh [--seconds N] [--seed S] [--each N] [--only NUMBER] [IMAGE...]
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash examples/setup.sh
.venv/bin/python -m examples.build_fleet fleet extra >&2
exec .venv/bin/python -m tests.bench.mutations "$@"
