#!/usr/bin/env bash
# The kernels' tests under sanitizers, which find what this processor bears and a card does not:
#   AddressSanitizer   whoever reads or writes past what it was given
#   ThreadSanitizer    what needs a barrier and has none: a block's threads are threads to it, in no order but what barriers make; and, in the
#                      same build, pieces of 16 bytes that do not begin on such
#   scripts/check_kernels.sh [TEST …]      names of tests, or parts of them; all by default
#   scripts/check_kernels.sh --can         whether the C++ compiler has both
set -euo pipefail
cd "$(dirname "$0")/.."
compiler=${CXX:-c++}

# library NAME: where the compiler has a sanitizer's, which has to be there before the program is.
library() {
    local path
    path=$("$compiler" -print-file-name="lib$1.so")
    [[ "$path" == /* ]] || { echo "check_kernels: the C++ compiler has no lib$1" >&2; return 1; }
    echo "$path"
}

address=$(library asan)
thread=$(library tsan)
[[ "${1:-}" != --can ]] || exit 0

tests=$(cargo test --release --locked --test kernels --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"name":"kernels".*"executable":"\([^"]*\)".*/\1/p' | tail -1)
[[ -x "$tests" ]] || { echo "check_kernels: the tests were not built" >&2; exit 1; }

# What the program itself leaves behind at its end is no matter.
CXXFLAGS="-O1 -fsanitize=address -g1" LD_PRELOAD=$address ASAN_OPTIONS=detect_leaks=0 "$tests" "$@"

# A process for each test, as all the threads that there ever were take part in each barrier's bookkeeping. Of the program only the kernels are
# compiled so, and of it nothing is heard. Where addresses can be kept from moving they are: older sanitizers want theirs free.
export CXXFLAGS="-O1 -fsanitize=thread -fsanitize=alignment -fno-sanitize-recover=alignment -g1"
export TSAN_OPTIONS="exitcode=66 halt_on_error=1 ignore_noninstrumented_modules=1"
fixed=""
[[ "$(setarch -R echo yes 2>/dev/null)" != yes ]] || fixed="setarch -R"
# one TEST: says something if there is something to be said.
one() {
    local said
    said=$($fixed env LD_PRELOAD="$thread" "$tests" --exact "$1" 2>&1) || { printf '%s\n' "$said" "check_kernels: $1" >&2; exit 1; }
}
export -f one
export fixed thread tests
mapfile -t names < <("$tests" --list "$@" | sed -n 's/: test$//p')
((${#names[@]} > 0)) || { echo "check_kernels: no such test" >&2; exit 1; }
printf '%s\n' "${names[@]}" | xargs -P "$(nproc)" -I {} bash -c 'one {}'
echo "check_kernels: ${#names[@]} tests find no race and nothing out of its place"
