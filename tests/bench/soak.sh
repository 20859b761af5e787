#!/usr/bin/env bash
# Clones and machines in a row, after which nothing may be left: no process, descriptor, file or
# memory, and the template unchanged. Arguments: number of clones (1000), number of machines (200).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash examples/setup.sh
exec .venv/bin/python -m tests.bench.soak "$@"
