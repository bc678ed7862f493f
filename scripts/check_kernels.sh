#!/usr/bin/env bash
# The kernels' tests with each kernel compiled under AddressSanitizer, so that whoever reads or writes past what it was given is found; and under
# the check for alignment: a piece of 16 bytes that is read where none begins this processor bears, and a card does not.
#   scripts/check_kernels.sh [TEST …]      names of tests, or parts of them; all by default
set -euo pipefail
cd "$(dirname "$0")/.."
compiler=${CXX:-c++}
tests=$(cargo test --release --locked --test kernels --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"name":"kernels".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[[ -x "$tests" ]] || { echo "check_kernels: the tests were not built" >&2; exit 1; }
# AddressSanitizer has to be there before the program is; what the program itself leaves behind at its end is no matter.
CXXFLAGS="-O1 -fsanitize=address -g1" LD_PRELOAD=$("$compiler" -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 "$tests" "$@"
# Apart: compiled for both at once the kernels took longer than for each in turn (259 s beside another build).
CXXFLAGS="-O1 -fsanitize=alignment -fno-sanitize-recover=alignment" "$tests" "$@"
