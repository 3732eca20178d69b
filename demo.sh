#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shows sprout at work: installs what is missing, builds, forks a real model and then a large one, eight times at
# once, while a seed dies and a fork is killed and resumed. Leaves nothing running and nothing behind but build/ and .venv/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./demo.sh [--size SIZE] [--forks N] [--keep]
  --size SIZE  size of the synthetic model (default 1GB)
  --forks N    forks at once (default 8)
  --keep       keep the forked directories
TEXT
}
for argument in "$@"; do
  case "$argument" in -h | --help) usage; exit 0 ;; esac
done

scripts/bootstrap.sh build demo
mkdir -p build
cmake --preset release -DSPROUT_TESTS=OFF >build/demo-configure.log 2>&1 || { cat build/demo-configure.log >&2; exit 1; }
echo "building (log: build/demo-build.log) ..."
cmake --build build/release --target sprout >build/demo-build.log 2>&1 || { tail -n 30 build/demo-build.log >&2; exit 1; }
python=.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" scripts/demo.py --binary build/release/sprout "$@"
