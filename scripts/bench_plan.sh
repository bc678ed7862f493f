#!/usr/bin/env bash
# How far `plan --measure` is from the run that follows: plan and make in turn, with the same flags, on shapes with random weights and the
# demonstration's tokenizer, rows and template. Prints each stage's error and the medians; raw lines go to benches/runs/<date>-plan.jsonl.
#   scripts/bench_plan.sh [ROUNDS]     3 rounds unless told otherwise
# Environment: MEASURE (30s), ROWS (96), MAX_TOKENS (96), THREADS (2), OUT (the file of raw lines), NICE (priority of both, 0), PAIRWRIGHT (the
# binary, else target/release/pairwright).
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3} measure=${MEASURE:-30s} rows=${ROWS:-96} max_tokens=${MAX_TOKENS:-96} threads=${THREADS:-2}
out=$(realpath -m "${OUT:-benches/runs/$(date -u +%F)-plan.jsonl}")
program=$(realpath "${PAIRWRIGHT:-target/release/pairwright}")
commit=$(git rev-parse --short HEAD 2>/dev/null || echo none)
cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -1 || true)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
run() { nice -n "${NICE:-0}" "$program" "$@"; }

run make --demo --out "$folder/demo" --quiet
python3 - "$folder" <<'END'
import json, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[1])
toy = folder / "demo/demo/model"
base = json.loads((toy / "config.json").read_text())
shared = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
          **{name: base[name] for name in ("bos_token_id", "eos_token_id") if name in base}}
shapes = {  # the 160M llama of benches/engine.rs, and one of 11M
    "llama-160m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 4,
                   "intermediate_size": 2048, "vocab_size": 32000},
    "llama-11m": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6, "num_key_value_heads": 2,
                  "intermediate_size": 1024, "vocab_size": base["vocab_size"]},
}
for name, shape in shapes.items():
    (folder / name).mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(toy / file, folder / name / file)
    (folder / name / "config.json").write_text(json.dumps({**shared, **shape}))
source = [json.loads(line) for line in (folder / "demo/demo/prompts.jsonl").read_text().splitlines()]
with open(folder / "rows.jsonl", "w") as file:
    for turn in range(4):  # one language, so that the judge's test is small, and answers of several lengths
        for row in source:
            text = " ".join([row["targets"]] * (turn + 1))
            file.write(json.dumps({**row, "inputs": f"({turn + 1}) {row['inputs']}", "targets": text, "language": "Dutch",
                                   "language_code": "nld"}, ensure_ascii=False) + "\n")
END
for round in $(seq "$rounds"); do
  for pair in "llama-160m llama-11m" "llama-11m llama-160m"; do
    read -r generator judge <<< "$pair"
    job=(--prompts "$folder/rows.jsonl" --limit "$rows" --generator "$folder/$generator" --judge "$folder/$judge" --weights dummy
         --max-tokens "$max_tokens" --device cpu --threads "$threads" --out "$folder/run" --quiet)
    rm -rf "$folder/run"
    before=$(cut -d' ' -f1 /proc/loadavg)
    run plan "${job[@]}" --save --measure "$measure" > /dev/null
    run make "${job[@]}"
    after=$(cut -d' ' -f1 /proc/loadavg)
    run report "$folder/run" --json | python3 -c '
import json, sys
round, commit, cpu, measure, threads, before, after, out = sys.argv[1:]
with open(out, "a") as file:
    for stage in json.load(sys.stdin)["predicted"]:
        line = {"round": int(round), "commit": commit, "cpu": cpu, "measure": measure, "threads": int(threads),
                "load_before": float(before), "load_after": float(after), **stage}
        file.write(json.dumps(line) + "\n")
        print(round, stage["stage"], stage["model"], "predicted %.1f s, took %.1f s: %+.0f %%" % (
            stage["predicted_s"][1], stage["actual_s"], 100 * stage["error"]), flush=True)
' "$round" "$commit" "$cpu" "$measure" "$threads" "$before" "$after" "$out"
  done
done
python3 - "$out" <<'END'
import json, statistics, sys
errors = {}
for line in map(json.loads, open(sys.argv[1])):
    errors.setdefault((line["stage"], line["model"]), []).append(line["error"])
for (stage, model), found in sorted(errors.items()):
    print("%-14s %-40s median error %+.0f %%, from %+.0f to %+.0f %%, n = %d" % (
        stage, model, 100 * statistics.median(found), 100 * min(found), 100 * max(found), len(found)))
END
