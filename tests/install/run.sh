#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs a build into a fresh prefix, then builds and runs a small program against the shared library,
# against the static library, and through find_package.
# usage: run.sh BUILD_DIR C_COMPILER CMAKE_GENERATOR
set -euo pipefail

build=$1 cc=$2 generator=$3
here=$(cd "$(dirname "$0")" && pwd)
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix/usr" >/dev/null
pc=$(dirname "$(find "$prefix/usr" -name sprout.pc)")
export PKG_CONFIG_PATH=$pc${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
lib=$(dirname "$pc")
version=$(pkg-config --modversion sprout)

# expect_version WHAT PROGRAM...: the program runs and prints the version that pkg-config says.
expect_version() {
  local what=$1 printed
  shift
  printed=$("$@" 2>"$prefix/stderr") || {
    echo "FAILED $what: exit status $?: $(cat "$prefix/stderr")"
    exit 1
  }
  [ "$printed" = "$version" ] || {
    echo "FAILED $what: printed '$printed', expected '$version'"
    exit 1
  }
  echo "ok: $what"
}

read -ra shared_flags <<<"$(pkg-config --cflags --libs sprout)"
"$cc" -Wall -Wextra -Werror "$here/user.c" -o "$prefix/shared" "${shared_flags[@]}"
expect_version "shared library" env LD_LIBRARY_PATH="$lib" "$prefix/shared"
readelf -d "$prefix/shared" | grep -q 'NEEDED.*libsprout\.so\.0' || {
  echo "FAILED shared library: the program does not need libsprout.so.0"
  exit 1
}

read -ra static_flags <<<"$(pkg-config --static --cflags --libs sprout)"
"$cc" -Wall -Wextra -Werror "$here/user.c" -o "$prefix/static" "${static_flags[@]/#-lsprout/-l:libsprout.a}"
expect_version "static library" "$prefix/static"

mkdir "$prefix/consumer"
cat >"$prefix/consumer/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.25)
project(consumer C)
find_package(sprout ${version%.*} REQUIRED)
add_executable(consumer $here/user.c)
target_link_libraries(consumer PRIVATE sprout::sprout)
CMAKE
cmake -G "$generator" -S "$prefix/consumer" -B "$prefix/consumer/build" \
  -DCMAKE_PREFIX_PATH="$prefix/usr" -DCMAKE_C_COMPILER="$cc" >/dev/null
cmake --build "$prefix/consumer/build" >/dev/null
expect_version "find_package" "$prefix/consumer/build/consumer"

exported=$(nm -D --defined-only "$lib/libsprout.so" | awk '{ print $3 }' | grep -v '^sprout_' || true)
[ -z "$exported" ] || {
  echo "FAILED exports: libsprout.so exports more than sprout_*:" "$exported"
  exit 1
}
echo "ok: exports"
# RDMA is a module: nothing else may need its libraries, and it shows one symbol.
needs_verbs() {
  readelf -d "$1" | grep -Eq 'NEEDED.*lib(ibverbs|rdmacm)'
}
for file in "$lib/libsprout.so" "$prefix/usr/bin/sprout" "$prefix/shared" "$prefix/static"; do
  if [ -e "$file" ] && needs_verbs "$file"; then
    echo "FAILED module: $file needs libibverbs"
    exit 1
  fi
done
module=$lib/sprout/libsprout_rdma.so
if [ -e "$module" ]; then
  exported=$(nm -D --defined-only "$module" | awk '{ print $3 }')
  if [ "$exported" != sprout_rdma_verbs ] || ! needs_verbs "$module"; then
    echo "FAILED module: libsprout_rdma.so needs no libibverbs, or exports other than its entry: $exported"
    exit 1
  fi
fi
echo "ok: module"
if [ -x "$prefix/usr/bin/sprout" ]; then
  "$prefix/usr/bin/sprout" --version >/dev/null
  echo "ok: program"
fi
