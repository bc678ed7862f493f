#!/usr/bin/env bash
# The kernels' tests with each kernel compiled under AddressSanitizer: whoever reads or writes past what it was given is found, and who reads a
# piece of 16 bytes where none begins, which this processor would bear and a card does not.
#   scripts/check_kernels.sh [TEST …]      names of tests, or parts of them; all by default
set -euo pipefail
cd "$(dirname "$0")/.."
compiler=${CXX:-c++}
tests=$(cargo test --release --locked --test kernels --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"name":"kernels".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[[ -x "$tests" ]] || { echo "check_kernels: the tests were not built" >&2; exit 1; }
# The sanitizer has to be there before the program is; what the program itself leaves behind at its end is no matter.
CXXFLAGS="-O1 -fsanitize=address,alignment -fno-sanitize-recover=alignment -g1" LD_PRELOAD=$("$compiler" -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 "$tests" "$@"
