#!/usr/bin/env bash
# One command per row of the table in benches/README.md: ours and the peers in turn, in the same minutes, since machines are noisy
# and only ratios of runs side by side count. Raw JSON lines go to $OUT_DIR/<date>-<row>.jsonl; medians and ratios are printed.
#   scripts/bench_rows.sh ROW …     rows: 160m-f32 qwen2-f32 160m-q8 160m-q4k 1b-q8 prefill decode judge ragged scheduler memory ceiling,
#                                   or all of them: all
#   scripts/bench_rows.sh summary FILE …   prints medians and ratios of raw lines again
# Environment:
#   PEERS_DIR   folder with models/ (made by make_shapes.py), gguf/ (llama.cpp's conversions of these), and the peers:
#               vllm/ and tf/ (Python environments), vllm_cpu.py, transformers_cpu.py, llamacpp/build/bin, mistralrs-bench.
#   MODELS_DIR, GGUF_DIR                        in place of $PEERS_DIR/models and $PEERS_DIR/gguf
#   VLLM, TRANSFORMERS, LLAMACPP, MISTRALRS     a peer's command in place of the one in PEERS_DIR. Those but llama.cpp's take MODEL
#               and --sequences --prompt-len --output-len --threads --runs, and end with a JSON line that has output_tokens_per_s;
#               LLAMACPP is a llama-batched-bench
#   TORCH       a python that has torch, for the ceiling measured by somebody else; VLLM_PRELOAD: LD_PRELOAD for vLLM alone
#               (else, as it advises, tcmalloc if the system has it and its environment's libiomp5)
#   ROUNDS (3), THREADS (2), MINUTES (30, of the memory row), OUT_DIR (benches/runs), DATE (today), NO_BUILD (1: use the binary there is)
# A peer that is not there is left out and named.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,19p' "$0"; exit 2; }
cd "$(dirname "$0")/.."
rounds=${ROUNDS:-3} threads=${THREADS:-2} out_dir=${OUT_DIR:-benches/runs} date=${DATE:-$(date -u +%F)}
peers=${PEERS_DIR:-} models=${MODELS_DIR:-${PEERS_DIR:-}/models} gguf=${GGUF_DIR:-${PEERS_DIR:-}/gguf}
vllm=${VLLM:-$peers/vllm/bin/python $peers/vllm_cpu.py}
transformers=${TRANSFORMERS:-$peers/tf/bin/python $peers/transformers_cpu.py}
llamacpp=${LLAMACPP:-$peers/llamacpp/build/bin/llama-batched-bench}
mistralrs=${MISTRALRS:-$peers/mistralrs-bench/target/release/mistralrs-bench}
torch=${TORCH:-$peers/tf/bin/python}
tcmalloc=$(PATH=$PATH:/sbin ldconfig -p 2> /dev/null | sed -n 's/.*libtcmalloc[^ ]*\.so\.[0-9]* .*=> //p' | grep -v debug | head -n 1 || true)
iomp=$peers/vllm/lib/libiomp5.so
[ -e "$iomp" ] || iomp=''
preload=${VLLM_PRELOAD-$tcmalloc${iomp:+${tcmalloc:+:}$iomp}}
bin=${CARGO_TARGET_DIR:-target}/release/pairwright
commit=$(git rev-parse --short HEAD 2>/dev/null || echo none)
git diff --quiet HEAD -- src Cargo.toml 2>/dev/null || commit+=-dirty
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -1 || true)
row='' out='' round=0
log=$(mktemp); trap 'rm -f "$log"' EXIT

# keep WHO COMMAND …: runs it, keeps its last line of JSON under that name. A command that fails is told and left out.
keep() {
  local who=$1; shift
  if ! command -v "$1" > /dev/null; then echo "$row: $who is not there ($1)" >&2; return; fi
  if ! "$@" 2> "$log" | grep -v '^$' | tail -n 1 | python3 -c '
import json, sys
try:
    line = json.loads(sys.stdin.read())
except ValueError:
    sys.exit(1)
who, row, round, commit, cpu = sys.argv[1:]
print(json.dumps({"row": row, "who": who, "round": int(round), "commit": commit, "cpu": cpu, **line}))' \
    "$who" "$row" "$round" "$commit" "$cpu" >> "$out"; then
    echo "$row: $who failed:" >&2; tail -n 5 "$log" >&2; return
  fi
  echo "  round $round $who" >&2
}
ours() { local who=$1; shift; keep "$who" "$bin" bench "$@" --threads "$threads"; }
# The shape of a job, set by each row: sequences, prompt tokens, output tokens.
shape() { n=$1 p=$2 g=$3; }
engine() { local who=$1; shift; ours "$who" engine --sequences "$n" --max-batch "$n" --prompt-len "$p" --output-len "$g" --runs 1 "$@"; }
peer() { # WHO MODEL COMMAND …
  local who=$1 model=$2; shift 2
  keep "$who" "$@" "$model" --sequences "$n" --prompt-len "$p" --output-len "$g" --threads "$threads" --runs 1
}
# shellcheck disable=SC2086  # a peer's command is several words
vllm() {
  if there ${vllm%% *} vllm; then peer vllm "$1" env "LD_PRELOAD=$preload" $vllm; fi
}
# shellcheck disable=SC2086
transformers() { peer transformers "$1" $transformers; }
# shellcheck disable=SC2086
mistralrs() { peer mistralrs "$1" $mistralrs; }
there() { command -v "$1" > /dev/null || { echo "$row: $2 is not there ($1)" >&2; false; }; }
# llama-batched-bench prints a table; N * G over the seconds of the whole job is what the others call output tokens per second.
llamacpp_json() {
  local file=$1
  # shellcheck disable=SC2086
  $llamacpp -m "$file" -t "$threads" -tb "$threads" -c $((n * (p + g + 8))) -b 2048 -ub 512 -npp "$p" -ntg "$g" -npl "$n" | python3 -c '
import json, sys
rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in sys.stdin if line.startswith("|")]
names = next((row for row in rows if row[0] == "PP"), [])
values = [float(x) for x in next(row for row in rows if row[0].isdigit())]
cell = dict(zip([name.split(" ")[0] for name in names], values))
tokens, seconds = cell["B"] * cell["TG"], cell["T"]
print(json.dumps({"peer": "llama.cpp batched-bench", "model": sys.argv[1], "sequences": int(cell["B"]), "prompt_len": int(cell["PP"]), "output_len": int(cell["TG"]),
    "elapsed_s": seconds, "output_tokens_per_s": tokens / seconds, "prefill_tokens_per_s": cell["S_PP"], "decode_tokens_per_s": cell["S_TG"]}))' "$file"
}
# shellcheck disable=SC2086
llamacpp() { if there ${llamacpp%% *} "$1"; then keep "$1" llamacpp_json "$2"; fi; }
# The f32 product rate of somebody else's library (torch, MKL where it has it), so that ours is not held against itself alone.
torch_gemm() {
  keep torch-gemm "$torch" -c '
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
best = 1e9
for _ in range(8):
    start = time.perf_counter(); a @ b; best = min(best, time.perf_counter() - start)
print(json.dumps({"peer": "torch " + torch.__version__, "mkl": torch.backends.mkl.is_available(), "gemm_gflop_s": 2 * 2048**3 / best / 1e9}))' "$threads"
}

run_row() {
  row=$1 out=$out_dir/$date-$row.jsonl
  mkdir -p "$out_dir"; : > "$out"
  echo "$row -> $out" >&2
  local small=$models/llama-160m
  local turns=$rounds
  case $row in judge | ragged | memory) turns=1 ;; esac # these take turns within one process, or have one turn alone
  for round in $(seq "$turns"); do
    case $row in
    160m-f32)
      shape 32 128 128; torch_gemm
      engine ours --model "$small"; vllm "$small"; llamacpp llama.cpp "$gguf/llama-160m-f32.gguf"
      engine ours-fma --model "$small" --products fma
      mistralrs "$small"; transformers "$small"
      ours ours-one-by-one engine --model "$small" --sequences 4 --max-batch 1 --runs 1 ;;
    qwen2-f32)
      shape 32 128 48; local qwen=$models/qwen2-0.5b
      engine ours --model "$qwen"; vllm "$qwen"; engine ours-fma --model "$qwen" --products fma; transformers "$qwen"; llamacpp llama.cpp "$gguf/qwen2-0.5b-f32.gguf" ;;
    160m-q8)
      shape 32 128 128; engine ours --model "$small" --quantize q8_0; vllm "$small"
      engine ours-gguf --model "$gguf/llama-160m-q8_0.gguf"; llamacpp llama.cpp-q8_0 "$gguf/llama-160m-q8_0.gguf" ;;
    160m-q4k)
      shape 32 128 128; engine ours --model "$small" --quantize q4k; llamacpp llama.cpp-q4_k_m "$gguf/llama-160m-q4_k_m.gguf"
      engine ours-gguf --model "$gguf/llama-160m-q4_k_m.gguf" ;;
    1b-q8)
      shape 16 512 128; local billion=$gguf/llama-1b-q8_0.gguf
      engine ours --model "$billion"; llamacpp llama.cpp-q8_0 "$billion" ;;
    prefill) # as one sequence, where attention counts most, and as 16
      torch_gemm
      ours ours engine --model "$small" --sequences 1 --prompt-len 2048 --output-len 1 --runs 5
      ours ours-16x128 engine --model "$small" --sequences 16 --prompt-len 128 --output-len 1 --runs 5
      ours ours-fma-16x128 engine --model "$small" --sequences 16 --prompt-len 128 --output-len 1 --runs 5 --products fma ;;
    decode)
      torch_gemm; shape 64 128 128; engine ours --model "$small"; engine ours-fma --model "$small" --products fma ;;
    judge) ours ours judge --model "$small" --runs "$rounds" ;;
    ragged) ours ours engine --model "$small" --sequences 256 --max-batch 64 --ragged --runs "$rounds" ;;
    scheduler) keep ours cargo bench --quiet --bench scheduler ;;
    memory) ours ours engine --model "$small" --sequences 256 --max-batch 64 --ragged --minutes "${MINUTES:-30}" ;;
    ceiling) torch_gemm; shape 1 128 1; engine ours --model "$small" ;;
    *) echo "unknown row $row" >&2; exit 2 ;;
    esac
  done
  summary "$out"
}

summary() {
  python3 - "$@" <<'PY'
import json, statistics, sys
SHOWN = ("output_tokens_per_s", "prefill_tokens_per_s", "decode_tokens_per_s", "prefill_share_of_gemm", "decode_share_of_gemm",
         "decode_share_of_bandwidth", "batch_occupancy", "preemptions", "peak_rss_mib", "ragged_share_of_uniform", "ratio_to_decoded", "ratio_to_one_token",
         "ratio_to_scores", "ours_decoded", "step_us_100_queued", "step_us_10000_queued", "ratio", "rss_start_mib", "rss_warm_mib", "rss_end_mib",
         "rss_growth_mib", "first_tenth_tokens_per_s", "last_tenth_tokens_per_s", "last_share_of_first", "gemm_gflop_s")
def figures(line):
    found = {name: line[name] for name in SHOWN if isinstance(line.get(name), (int, float))}
    machine = line.get("machine", {}).get("gemm_gflop_s")
    return found | ({"gemm_gflop_s": machine} if machine else {})
for path in sys.argv[1:]:
    lines = [json.loads(text) for text in open(path)]
    print(path)
    names = list(dict.fromkeys(line["who"] for line in lines))
    for who in names:
        rounds = [figures(line) for line in lines if line["who"] == who]
        shown = [f"{name} {statistics.median(r[name] for r in rounds if name in r):.4g}" for name in SHOWN if any(name in r for r in rounds)]
        print(f"  {who:18}", f"{len(rounds)} rounds:", ", ".join(shown))
    # A ratio is of one round's runs, minutes apart; its median over the rounds counts.
    rate = {(line["who"], line["round"]): line["output_tokens_per_s"] for line in lines if "output_tokens_per_s" in line}
    for ours in (who for who in names if who.startswith("ours") and who != "ours-one-by-one"):
        for other in (who for who in names if who != ours and not who.startswith("ours") or (ours, who) == ("ours", "ours-one-by-one")):
            ratios = [rate[ours, r] / rate[other, r] for r in {r for _, r in rate} if (ours, r) in rate and (other, r) in rate]
            if ratios:
                print(f"  {ours} / {other}: {statistics.median(ratios):.2f}  ({min(ratios):.2f} – {max(ratios):.2f})")
    # Ours against the product rate that torch measured in the same round.
    gemm = {line["round"]: line["gemm_gflop_s"] for line in lines if line["who"] == "torch-gemm"}
    for ours in (who for who in names if who.startswith("ours") and gemm):
        for phase in ("prefill", "decode"):
            values = [line[phase + "_gflop_s"] / gemm[line["round"]] for line in lines if line["who"] == ours and line.get(phase + "_gflop_s") and line["round"] in gemm]
            if values:
                print(f"  {ours} {phase}, of torch's product rate: {statistics.median(values):.3f}")
PY
}

if [ "$1" = summary ]; then shift; summary "$@"; exit; fi
[ "${NO_BUILD:-}" = 1 ] || cargo build --release --quiet
for name in "$@"; do
  if [ "$name" = all ]; then
    for each in ceiling 160m-f32 qwen2-f32 160m-q8 160m-q4k 1b-q8 prefill decode judge ragged scheduler memory; do run_row "$each"; done
  else
    run_row "$name"
  fi
done
