#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: run.sh SIM_FORK      2,000 seeds, or 50,000 with SPROUT_TEST_FULL=1
set -eu
seeds=2000
[ "${SPROUT_TEST_FULL:-0}" = 0 ] || seeds=50000
exec "$1" --seeds "$seeds"
