#!/usr/bin/env bash
# Every fuzz target for a short while, from its corpus on: a smoke test, with no nightly compiler and no second build of what the tests
# stand on. This script is also the compiler's wrapper that instruments the packages of this workspace for libFuzzer, and nothing else:
# coverage guides by our own code, and there is no AddressSanitizer. Long runs are cargo-fuzz's (fuzz/README.md).
#   scripts/check_fuzz.sh [SECONDS [TARGET...]]   30 seconds each, two side by side; finds nothing or fails with the input's path
set -euo pipefail

# As cargo-fuzz has it, in flags of stable Rust.
instrumented=(
    --cfg fuzzing -Cpasses=sancov-module -Cdebug-assertions=on -Coverflow-checks=on
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
)
if [[ -n "${PAIRWRIGHT_FUZZ_WRAPPER:-}" ]]; then
    # Neither questions to the compiler nor build scripts, which are no part of a target.
    case " $* " in
    *" --crate-name build_script_"*) exec "$@" ;;
    *" --crate-name "*) exec "$@" "${instrumented[@]}" ;;
    *) exec "$@" ;;
    esac
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-30}
shift || true
targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || mapfile -t targets < <(cd fuzz/fuzz_targets && printf '%s\n' *.rs | sed 's/\.rs$//')
PAIRWRIGHT_FUZZ_WRAPPER=1 RUSTC_WORKSPACE_WRAPPER="$PWD/scripts/check_fuzz.sh" cargo build --release --locked -p pairwright-fuzz --bins
programs=$(realpath "${CARGO_TARGET_DIR:-target}/release")
found=$(mktemp -d)

# run TARGET: what it finds stays; its own files are in memory where there is such a place.
run() {
    local target="$1" scratch
    scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
    mkdir "$scratch/corpus"
    if TMPDIR=$scratch "$programs/$target" "$scratch/corpus" "fuzz/corpus/$target" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=1024 -artifact_prefix="$found/$target-" >"$found/$target.log" 2>&1; then
        echo "$target: $(grep -E '^Done [0-9]+ runs' "$found/$target.log")"
        rm "$found/$target.log"
    else
        tail -30 "$found/$target.log"
        echo "check_fuzz: $target: a finding, see $found" >&2
    fi
    rm -rf "$scratch"
}
export -f run
export programs seconds found
printf '%s\n' "${targets[@]}" | xargs -P 2 -I {} bash -c 'run {}'
rmdir "$found" 2>/dev/null || exit 1
