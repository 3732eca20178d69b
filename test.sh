#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds, and runs every test of sprout.
# usage: ./test.sh [--quick | --full] [--only STAGE[,STAGE...]]
#   --quick  only the rules about sources, unit tests and simulator
#   --full   repeated measurements at their stated counts; the plain run does a tenth of them
#   --only   these stages:
#              tidy   rules about the sources                  install  the library as users build on it
#              unit   under ASan and UBSan                     fuzz     each fuzz target for some seconds
#              debug  the same, where allocations can fail     e2e      real processes, sockets and files
#              tsan   the same under TSan                      perf     speed and cost against their bars
#              sim    forks under a virtual clock              rdma     real verbs, in a kernel of their own
# The last line is "N passed, N failed, N skipped". Logs: build/test/STAGE.log
set -uo pipefail
cd "$(dirname "$0")" || exit 1

all_stages=(tidy unit debug tsan sim install fuzz e2e rdma perf)
results=build/test
cores=$(nproc)

usage() {
  sed -n '/^# usage/,/^[^#]/s/^# \{0,1\}//p' "$0"
}

die() {
  printf 'test.sh: %s\n' "$*" >&2
  exit 2
}

# --- arguments ------------------------------------------------------------------------------------------

stages=("${all_stages[@]}")
full=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) stages=(tidy unit sim) ;;
    --full) full=1 ;;
    --only)
      [ $# -ge 2 ] || die "--only needs a list of stages"
      IFS=, read -ra stages <<<"$2"
      shift
      ;;
    -h | --help) usage && exit 0 ;;
    *) die "unknown argument: $1 (try --help)" ;;
  esac
  shift
done
for stage in "${stages[@]}"; do
  [[ " ${all_stages[*]} " == *" $stage "* ]] || die "no such stage: $stage (${all_stages[*]})"
done

# The program reads SPROUT_* as options; what the caller happens to have set must not reach the tests.
for name in "${!SPROUT_@}"; do
  [ "$name" = SPROUT_NO_INSTALL ] || unset "$name"
done
if [ -n "$full" ]; then
  export SPROUT_TEST_FULL=1 SPROUT_FUZZ_SECONDS=120
  stage_limit_s=7200
else
  export SPROUT_FUZZ_SECONDS=10
  stage_limit_s=900
fi

# --- running and showing --------------------------------------------------------------------------------

# logged LOG COMMAND...: runs it with its output in the log (appended); a terminal shows the newest line.
logged() {
  local log=$1 line status
  shift
  if [ ! -t 1 ]; then
    "$@" >>"$log" 2>&1 </dev/null
    return
  fi
  "$@" 2>&1 </dev/null | tee -a "$log" | while IFS= read -r line; do
    printf '\r\033[K  %.*s' "$((${COLUMNS:-80} - 4))" "${line//[^[:print:]]/ }"
  done
  status=${PIPESTATUS[0]}
  printf '\r\033[K'
  return "$status"
}

# build PRESET LOG: configures and builds, once in a run.
declare -A build_status
build() {
  local preset=$1 log=$2
  if [ -z "${build_status[$preset]:-}" ]; then
    logged "$log" cmake --preset "$preset" &&
      logged "$log" cmake --build --preset "$preset" -j "$cores"
    build_status[$preset]=$?
  fi
  [ "${build_status[$preset]}" -eq 0 ] || echo "the $preset build failed" >>"$log"
  return "${build_status[$preset]}"
}

# run_ctest PRESET LABEL JOBS STAGE [WRAPPER...]: the tests of one label in one build.
run_ctest() {
  local preset=$1 label=$2 jobs=$3 stage=$4
  shift 4
  build "$preset" "$results/$stage.log" || return
  logged "$results/$stage.log" timeout -k 10 "$stage_limit_s" "$@" \
    ctest --test-dir "build/$preset" -L "^$label\$" -j "$jobs" --no-tests=error --output-on-failure \
    --test-output-size-passed 4000000 --test-output-size-failed 4000000 \
    --output-junit "$PWD/$results/$stage.xml"
}

run_e2e() {
  build release "$results/e2e.log" && build asan "$results/e2e.log" && build debug "$results/e2e.log" || return
  SPROUT_BIN=$PWD/build/release/sprout logged "$results/e2e.log" timeout -k 10 "$stage_limit_s" \
    .venv/bin/python -m pytest tests/e2e -ra -s -p no:cacheprovider --timeout=300 \
    --basetemp="$results/e2e-tmp" -o tmp_path_retention_policy=none --junitxml="$results/e2e.xml"
  local status=$?
  rm -rf "$results/e2e-tmp"
  return $status
}

# Real verbs run inside a kernel that is built once and kept: in what the machine has to spare, while other stages run.
lab_build=
prepare_rdma() {
  [[ " ${stages[*]} " == *" rdma "* ]] || return 0
  if logged "$results/setup.log" scripts/bootstrap.sh rdma && ! tests/rdma/lab/build --path >/dev/null 2>&1; then
    setsid nice -n 19 tests/rdma/lab/build >"$results/lab.log" 2>&1 </dev/null &
    lab_build=$!
  fi
}

run_rdma() {
  local status
  if [ -n "$lab_build" ]; then
    echo "waiting for the lab's kernel, its log is $results/lab.log" >>"$results/rdma.log"
    wait "$lab_build"
    status=$?
    lab_build=
    if [ $status -ne 0 ]; then
      cat "$results/lab.log" >>"$results/rdma.log"
      return $status
    fi
  fi
  build release "$results/rdma.log" && build asan "$results/rdma.log" || return
  SPROUT_BIN=$PWD/build/release/sprout logged "$results/rdma.log" timeout -k 10 "$stage_limit_s" \
    .venv/bin/python -m pytest tests/rdma -ra -s -p no:cacheprovider --timeout=300 \
    --junitxml="$results/rdma.xml"
}

# TSan wants its memory map undisturbed; kernels with much address randomisation disturb it.
fixed_addresses=()
if setarch -R true 2>/dev/null; then
  fixed_addresses=(setarch -R)
fi

run_stage() {
  case $1 in
    setup) logged "$results/setup.log" scripts/bootstrap.sh build test && prepare_rdma ;;
    tidy) run_ctest asan tidy "$cores" tidy ;;
    unit) run_ctest asan unit "$cores" unit ;;
    debug) run_ctest debug unit "$cores" debug ;;
    tsan) run_ctest tsan unit "$cores" tsan "${fixed_addresses[@]}" ;;
    sim) run_ctest asan sim "$cores" sim ;;
    install) run_ctest release install 1 install ;;
    fuzz) run_ctest fuzz fuzz "$cores" fuzz ;;
    e2e) run_e2e ;;
    rdma) run_rdma ;;
    perf) run_ctest release perf 1 perf ;;
  esac
}

# stage NAME: runs it, leaves its exit status for the tally, shows a line about it.
stage() {
  local name=$1 begin=$SECONDS status outcome
  printf '%-8s' "$name"
  echo running >"$results/$name.status"
  run_stage "$name"
  status=$?
  echo "$status" >"$results/$name.status"
  outcome=$(scripts/tally.py "$results" "$name")
  if [ "$name" = setup ] && [ "$status" -eq 0 ]; then
    rm "$results/setup.status" # holds no test: counts only when it fails
    outcome=ok
  fi
  [ ! -t 1 ] || printf '\r\033[K%-8s' "$name"
  printf '%5d s  %s\n' $((SECONDS - begin)) "$outcome"
  return "$status"
}

# Whatever ends this script, its last line is the count.
finish() {
  trap - EXIT
  [ -z "$lab_build" ] || kill -TERM -- "-$lab_build" 2>/dev/null
  if command -v python3 >/dev/null; then
    scripts/tally.py "$results"
    exit $?
  fi
  cat "$results/setup.log" # could not install even that
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
}

rm -rf "$results"
mkdir -p "$results"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

stage setup || exit
for name in "${stages[@]}"; do
  stage "$name"
done
