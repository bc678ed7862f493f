#!/usr/bin/env bash
# The NEON kernels, on a machine that is not ARM: cross-built, run by QEMU. Their tests hold every kernel against its definition, bit by
# bit, on a processor with the DotProd instructions and on one without; then the demo is made there and here, and every file of it must
# have the same bytes (journals: the same rows), but for the lock's device and the session's speed. Says nothing about speed.
#   scripts/check_arm.sh            needs rustup, a cross compiler and QEMU's user mode
#   scripts/check_arm.sh --whole    all operations' tests and the golden models too: 10 minutes on two cores
#   scripts/check_arm.sh --can      whether these are there; --install gets them on Debian, as root
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu
if [[ "${1:-}" == --install ]]; then
    rustup target add $target
    apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    exit
fi
if ! { command -v rustup && command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64 && rustup target list --installed | grep -x $target; } >/dev/null; then
    echo "check_arm: needs rustup's target $target, aarch64-linux-gnu-g++ and qemu-aarch64 (--install gets them)" >&2
    exit 3
fi
[[ "${1:-}" != --can ]] || exit 0
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
# Dependencies are compiled with little effort, since what is checked is ours: a minute less.
cross=(--release --locked --target $target --config profile.release.opt-level=1 --config profile.release.package.pairwright.opt-level=3)
tests=(--lib)
[[ "${1:-}" != --whole ]] || tests=(--lib --test ops --test golden)
# A Cortex-A53 has no DotProd; `max` has all that QEMU knows.
for processor in max cortex-a53; do
    echo "check_arm: tests on QEMU's $processor"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $processor" cargo test "${cross[@]}" "${tests[@]}"
    tests=(--lib -- ops::)
done

cargo build --release --locked
cargo build "${cross[@]}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
built=${CARGO_TARGET_DIR:-target}
# One name for both folders, since the files name theirs; fma is the form that every processor computes fast. QEMU needs minutes for all
# of the demo: a third of its prompts, and no test of the judge, have every kernel.
made() { (cd "$folder" && rm -rf run && "$@" make --demo --out run -q --products fma --limit 16 --known-answers 0 && mv run "$folder/$name"); }
name=here made "$(realpath "$built/release/pairwright")"
name=arm made qemu-aarch64 -cpu max "$(realpath "$built/$target/release/pairwright")"
# A journal's rows stand in the order in which they were done, which is anybody's.
for journal in "$folder"/{here,arm}/journal/*.jsonl; do
    sort -o "$journal" "$journal"
done
diff -r --exclude run.lock --exclude speed.jsonl "$folder/here" "$folder/arm"
grep -q '"cpu neon' "$folder/arm/run.lock"
diff <(grep -v '"device"' "$folder/here/run.lock") <(grep -v '"device"' "$folder/arm/run.lock")
echo "check_arm: the demo has the same bytes on $(uname -m) and on aarch64"
