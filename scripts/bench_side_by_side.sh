#!/usr/bin/env bash
# Our engine and a peer on the same workload in the same minutes, turn by turn, since machines are noisy: ratios count.
#   scripts/bench_side_by_side.sh MODEL_DIR OUT_FILE [PEER COMMAND …]
# Each round runs ours batched, ours one by one (fewer sequences: it only sets a rate), and the peer command (which must end
# with a JSON line that has output_tokens_per_s). All JSON lines go to OUT_FILE; medians and ratios are printed.
# Rounds: ROUNDS (default 3). Workload: SEQUENCES, PROMPT_LEN, OUTPUT_LEN (32, 128, 128).
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6p' "$0"; exit 2; }
model=$1 out=$2
shift 2
cd "$(dirname "$0")/.."
cargo build --release --quiet
: > "$out"
note() { python3 -c 'import json,sys; row=json.loads(sys.stdin.readlines()[-1]); row["who"]=sys.argv[1]; print(json.dumps(row))' "$1" | tee -a "$out"; }
shape=(--prompt-len "${PROMPT_LEN:-128}" --output-len "${OUTPUT_LEN:-128}")
sequences=${SEQUENCES:-32}
for _ in $(seq "${ROUNDS:-3}"); do
  target/release/pairwright bench engine --model "$model" --sequences "$sequences" "${shape[@]}" --max-batch "$sequences" --runs 1 | note ours
  target/release/pairwright bench engine --model "$model" --sequences 4 "${shape[@]}" --max-batch 1 --runs 1 | note ours-one-by-one
  if [ $# -gt 0 ]; then "$@" 2>/dev/null | note peer; fi
done
python3 - "$out" <<'PY'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
median = lambda who, field: statistics.median([row[field] for row in rows if row["who"] == who and field in row] or [0])
for who in ("ours", "ours-one-by-one", "peer"):
    print(f"{who:16}", *(f"{field} {median(who, field + '_tokens_per_s'):8.1f}" for field in ("output", "prefill", "decode")))
ours = median("ours", "output_tokens_per_s")
for who in ("ours-one-by-one", "peer"):
    other = median(who, "output_tokens_per_s")
    if other:
        print(f"ours / {who}: {ours / other:.2f}")
PY
