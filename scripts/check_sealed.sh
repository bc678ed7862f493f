#!/usr/bin/env bash
# Whether the program keeps to itself: the demo under strace makes no socket but AF_UNIX, and in a network namespace without any
# interface the demo, doctor and, where nextest is there, the tests that run the program pass as they do elsewhere; with --all the whole
# suite (minutes). Tests are built before the seal is put on, not behind it. --install fetches strace (apt-get, root). What a machine does not allow is said to be skipped, and proves nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

program="${PROGRAM:-${CARGO_TARGET_DIR:-target}/release/pairwright}"
tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT

fail() {
    printf 'check_sealed: %s\n' "$*" >&2
    exit 1
}

tests="binary(cli) + binary(bundle) + binary(demo) + binary(registry)"
if [[ "${1:-}" == --all ]]; then
    tests="all()"
elif [[ "${1:-}" == --install ]]; then
    apt-get install -y -q --no-install-recommends strace
    exit
fi
[[ -x "$program" ]] || fail "$program is not there: cargo build --release"

# Each line is a call with all its arguments; threads and children are followed.
trace_demo() {
    if ! command -v strace >/dev/null; then
        printf 'skipped: no strace (scripts/check_sealed.sh --install)\n'
        return
    fi
    if ! strace -o /dev/null true 2>/dev/null; then
        printf 'skipped: this machine forbids strace\n'
        return
    fi
    strace -f -qq -e trace=network -o "$tmp/calls" "$program" make --demo --out "$tmp/traced" -q
    if grep -E '(^|[^a-z_])(socket|socketpair|connect|bind|listen|accept4?|sendto|sendmsg|sendmmsg)\(' "$tmp/calls" | grep -v 'AF_UNIX'; then
        fail "the demo makes the calls above"
    fi
    [[ -s "$tmp/traced/dataset/README.md" ]] || fail "the traced demo left no dataset"
    printf 'strace: %d network calls, none of them to anything but AF_UNIX\n' "$(wc -l <"$tmp/calls")"
}

run_sealed() {
    if ! unshare -rn true 2>/dev/null; then
        printf 'skipped: this machine lets nobody make a network namespace (unshare -rn)\n'
        return
    fi
    # Loopback stays down: nothing here needs it.
    [[ "$(unshare -rn sh -c "grep -c : /proc/net/dev")" == 1 ]] || fail "the namespace has an interface besides loopback"
    unshare -rn "$program" make --demo --out "$tmp/sealed" -q
    [[ -s "$tmp/sealed/dataset/README.md" ]] || fail "the sealed demo left no dataset"
    unshare -rn "$program" doctor | grep -q 'sealed: no interface but loopback' || fail "doctor does not see the seal"
    printf 'without interfaces: the demo and doctor run\n'
    if ! cargo nextest --version >/dev/null 2>&1; then
        printf 'skipped: no nextest, which runs tests without looking whether they are up to date\n'
        return
    fi
    cargo nextest list --release --locked --list-type binaries-only --message-format json >"$tmp/binaries.json"
    cargo metadata --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" --locked >"$tmp/metadata.json"
    unshare -rn cargo nextest run --binaries-metadata "$tmp/binaries.json" --cargo-metadata "$tmp/metadata.json" \
        --status-level fail --hide-progress-bar -E "$tests"
    printf 'without interfaces: the tests pass\n'
}

trace_demo
run_sealed
