#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a machine is told where the RDMA module is missing, is another release's, or lacks its libraries;
# and that everything else runs there. usage: module.sh VERBS_CHECK SPROUT MODULE C_COMPILER
set -euo pipefail

check=$1 sprout=$2 module=$3 cc=$4
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp "$check" "$scratch/check"

# expect NAME TEXT...: the loader fails and its words contain all of these.
expect() {
  local name=$1 text printed
  shift
  if printed=$("$scratch/check" --load); then
    echo "FAILED $name: it was loaded"
    exit 1
  fi
  for text in "$@"; do
    [[ $printed == *"$text"* ]] || {
      echo "FAILED $name: no '$text' in: $printed"
      exit 1
    }
  done
  echo "ok: $name"
}

# stub NAME FLAGS...: a module made of the C source on standard input.
stub() {
  "$cc" -shared -fPIC -x c - -o "$scratch/libsprout_rdma.so" "$@"
}

"$check" --load >/dev/null
echo "ok: the module beside the program"
if ! "$scratch/check" --load >/dev/null; then # else one is installed here
  expect "no module" "libsprout_rdma.so" "SPROUT_RDMA=ON"
fi
mkdir "$scratch/sprout"
cp "$module" "$scratch/sprout/libsprout_rdma.so"
"$scratch/check" --load >/dev/null
echo "ok: the module below the library's directory"

echo 'unsigned layer[200] = {9999}; const void *sprout_rdma_verbs(void) { return layer; }' | stub
expect "another release" "of another version" "from one release"
echo 'int nothing;' | stub
expect "not our module" "of another version"
echo 'nonsense' >"$scratch/libsprout_rdma.so"
expect "a broken file" "cannot be loaded" "from one release"

# A library of this name that is gone when the module is loaded.
echo 'int verbs_stand_in;' | "$cc" -shared -fPIC -x c - -Wl,-soname,libibverbs.so.999 -o "$scratch/libibverbs.so"
echo 'extern int verbs_stand_in; int *use(void) { return &verbs_stand_in; }' |
  stub -L"$scratch" -Wl,--no-as-needed -libverbs
rm "$scratch/libibverbs.so"
expect "no verbs library" "libibverbs.so.999" "libibverbs1" "librdmacm1" "ibverbs-providers"

# The real thing: the machine's own libibverbs hidden below an overlay, where this user may mount one.
cp "$module" "$scratch/libsprout_rdma.so"
cp "$sprout" "$scratch/sprout.program"
cat >"$scratch/hidden.sh" <<'SCRIPT'
mkdir "$1/overlay"
mount -t tmpfs none "$1/overlay" || exit 77
mkdir "$1/overlay/upper" "$1/overlay/work"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/overlay/upper,workdir=$1/overlay/work" "$2" || exit 77
rm "$2"/libibverbs.so.1
"$1/sprout.program" --version >/dev/null
"$1/check" --load && exit 1
exit 0
SCRIPT
library=$(ldconfig -p | awk '/libibverbs\.so\.1 / && !found { found = 1; print $NF }')
status=77
if [ -n "$library" ] && unshare --user --map-root-user --mount true 2>/dev/null; then
  status=0
  unshare --user --map-root-user --mount sh -eu "$scratch/hidden.sh" "$scratch" "$(dirname "$library")" \
    >"$scratch/words" 2>&1 || status=$?
fi
if [ "$status" -eq 77 ]; then
  echo "ok: libibverbs cannot be hidden here, left out"
elif [ "$status" -eq 0 ] && grep -q 'libibverbs\.so\.1.*' "$scratch/words" && grep -q 'ibverbs-providers' "$scratch/words"; then
  echo "ok: a machine without libibverbs"
else
  echo "FAILED a machine without libibverbs: $status: $(cat "$scratch/words")"
  exit 1
fi
