#!/usr/bin/env bash
# Throughput, phases, overhead and memory of fleet scans. Builds the guests when they are missing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bash examples/setup.sh
sets=(fleet)
[[ " $* " == *" --large "* ]] && sets+=(large)
.venv/bin/python -m examples.build_fleet "${sets[@]}"
exec .venv/bin/python -m tests.bench.fleet "$@"
