#!/usr/bin/env bash
# Builds the pretend CUDA driver: libcuda, libcublas, libcublasLt and libcurand in one library that runs on the CPU, with our kernels and Candle's
# compiled for it. Usage: build.sh CUDA_DIR OUT_DIR [--test]. CUDA_DIR holds NVIDIA's headers in include/; OUT_DIR goes into LD_LIBRARY_PATH.
# CXX names another compiler, CXXFLAGS further flags.
# What is compiled already, of the same sources with the same flags, is kept in OUT_DIR/objects. Knows files; knows no kernel.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kernels=$(dirname "$here")
cuda=$(cd "$1" && pwd)
mkdir -p "$2/objects" "$2/candle"
out=$(cd "$2" && pwd)
compiler=${CXX:-c++}
export LC_ALL=C

version=$(sed -n '/^name = "candle-kernels"/{n;s/.*"\(.*\)"/\1/p}' "$kernels/../Cargo.lock")
candle=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/candle-kernels-"$version"/src)
[ -d "$candle" ] || { echo "pretend cuda: no sources of candle-kernels $version: run cargo fetch" >&2; exit 1; }
exec 9>"$out/lock"
flock 9

# Of Candle's modules those that models use; its GGUF and mixture kernels are not among them.
modules="affine binary cast conv fill indexing reduce sort ternary unary"
# For a processor with fused multiply-adds, which else are calls. Candle's kernels look at the same bytes as numbers of several types, which nvcc
# allows and C++ does not: hence -fno-strict-aliasing.
flags="-std=c++17 -O2 -march=x86-64-v3 -fPIC -pthread -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -I$cuda/include -I$cuda/include/cccl ${CXXFLAGS:-}"
strict="-Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function"

# A copy of Candle's sources whose kernels have no linkage and whose dynamic shared memory is asked for; then, for each module, a unit that enters
# its kernels by name. The names are those that the preprocessor finds.
prepare_candle() {
  cp "$candle"/*.cu "$candle"/*.cuh "$out/candle"
  chmod u+w "$out"/candle/*
  sed -i -E -e 's/extern "C" *__global__/PRETEND_KERNEL/' \
    -e 's/extern __shared__ ([A-Za-z0-9_]+) ([A-Za-z0-9_]+)\[\];/\1* \2 = static_cast<\1*>(host::dynamic_shared());/' "$out"/candle/*.cu*
  local module names
  for module in $modules; do
    names=$("$compiler" -E -w -std=c++17 -D__CUDA_ARCH__=900 -I"$cuda/include" -I"$cuda/include/cccl" -x c++ "$out/candle/$module.cu" |
      grep -oE 'PRETEND_KERNEL +void +[A-Za-z0-9_]+' | awk '{print $3}')
    [ -n "$names" ] || { echo "pretend cuda: no kernels in $module.cu" >&2; exit 1; }
    {
      echo "#include \"$here/candle.hpp\""
      echo "namespace {"
      echo "#include \"$out/candle/$module.cu\""
      for name in $names; do echo "host::Registered ${name}_registered(\"$name\", &$name);"; done
      echo "}"
    } >"$out/candle/$module.cpp"
  done
}

# hash_of FLAGS FILES...: of what an object is made from.
hash_of() {
  { "$compiler" --version; echo "$1"; shift; cat "$@"; } | sha256sum | cut -c1-16
}

# unit NAME SOURCE FLAGS INPUTS...: asks for an object, unless there is one.
objects=()
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
unit() {
  local name=$1 source=$2 with=$3 object
  shift 3
  object=$out/objects/$name-$(hash_of "$with" "$source" "$@").o
  objects+=("$object")
  [ -f "$object" ] || echo "$compiler $with -c -x c++ $source -o $object.part && mv $object.part $object" >>"$wanted"
}

candle_state=$(hash_of "$modules $here $cuda" "$0" "$candle"/*.cu "$candle"/*.cuh)
[ "$(cat "$out/candle/state" 2>/dev/null)" = "$candle_state" ] || { prepare_candle; echo "$candle_state" >"$out/candle/state"; }
for module in $modules; do
  unit "candle_$module" "$out/candle/$module.cpp" "$flags -w" "$here/candle.hpp" "$kernels/host.hpp" "$out/candle/$module.cu" "$out"/candle/*.cuh
done
for source in "$kernels"/*.cu; do
  [ -f "$source" ] || continue
  unit "$(basename "$source" .cu)" "$source" "$flags $strict -include $kernels/host.hpp" "$kernels"/*.hpp "$kernels"/*.cuh
done
for name in device memory stream kernel blas blaslt random multiply; do
  more=$([ $name != multiply ] || echo "-O3")
  unit "pretend_$name" "$here/$name.cpp" "$flags $strict $more" "$here"/*.hpp "$kernels"/*.hpp "$kernels"/*.cuh
done
test_source=$here/test.cpp
test_object=$out/objects/test-$(hash_of "$flags" "$test_source" "$here/test_products.hpp" "$here/pretend.hpp").o

compiled=$(wc -l <"$wanted")
xargs -a "$wanted" -d '\n' -r -P "$(nproc)" -n 1 bash -c
if [ "$compiled" -gt 0 ] || [ ! -f "$out/libcuda.so.1" ] || [ "$(cat "$out/linked" 2>/dev/null)" != "${objects[*]}" ]; then
  "$compiler" -shared -pthread ${CXXFLAGS:-} -Wl,-soname,libcuda.so.1 "${objects[@]}" -o "$out/libpretend.so.part"
  mv "$out/libpretend.so.part" "$out/libcuda.so.1"
  for library in libcublas.so.13 libcublasLt.so.13 libcurand.so.10; do ln -sf libcuda.so.1 "$out/$library"; done
  echo "${objects[*]}" >"$out/linked"
  for old in "$out"/objects/*.o; do [[ " ${objects[*]} $test_object " == *" $old "* ]] || rm "$old"; done
fi
echo "pretend cuda: $out, ${#objects[@]} objects, $compiled compiled"

if [ "${3:-}" = --test ]; then
  [ -f "$test_object" ] || "$compiler" $flags $strict -c "$test_source" -o "$test_object"
  "$compiler" -pthread ${CXXFLAGS:-} "$test_object" "$out/libcuda.so.1" -o "$out/test"
  LD_LIBRARY_PATH=$out "$out/test"
fi
