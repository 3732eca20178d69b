#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs one libFuzzer program for SPROUT_FUZZ_SECONDS (10), starting from the kept corpus.
# usage: fuzz.sh PROGRAM KEPT_CORPUS WORK_DIR
# An input may take long: the limit is wall-clock time, and on a busy machine a program stands still for a while.
# New inputs and crashes go to WORK_DIR; keep the good ones with
#   PROGRAM -merge=1 KEPT_CORPUS WORK_DIR
set -euo pipefail

program=$1 kept=$2 work=$3
mkdir -p "$work/artifacts"
seeds=()
[ -d "$kept" ] && seeds=("$kept")
exec "$program" -max_total_time="${SPROUT_FUZZ_SECONDS:-10}" -timeout=60 -rss_limit_mb=2048 \
  -print_final_stats=1 -artifact_prefix="$work/artifacts/" "$work" "${seeds[@]}"
