#!/usr/bin/env bash
# benchmarks/gpu.py on a machine without a connection: with WHEELS=FOLDER the packages of that folder are installed
# first, beside what the machine has (benchmarks/gpu_wheels.sh collects them). Arguments are gpu.py's.
#   WHEELS=wheels benchmarks/gpu.sh --out work_dirs/gpu
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "${WHEELS:-}" ]; then
  site=${SITE:-$(mktemp -d)/site}
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
exec python3 benchmarks/gpu.py "$@"
