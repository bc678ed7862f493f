#!/usr/bin/env bash
# Everything a machine with a card has to say, in one go of under nine minutes: doctor, the engine's benches, and Transformers beside them.
#   scripts/gpu-check.sh pack [FILE]    where the project builds: the stripped binary, the reference models and this script, as one file
#                                       (target/gpu-check.tar.xz, under 60 MB). NO_BUILD=1: with the binary there is
#   scripts/gpu-check.sh run FILE [OUT] on the machine with the card (a driver, and a python3 with torch and transformers for the libraries
#                                       and the peer): a JSON line per step in OUT/gpu-check.jsonl, what was printed in OUT/gpu-check.log
# Environment: PEERS_DIR (../shared/peers): a folder with transformers_gpu.py and shapes.json; without it there is no peer.
#   SECONDS_IN_ALL (530). Steps that do not fit any more are left out and named; a failed one does not end the others.
set -euo pipefail

# A model's shape: sizes from published configurations; its weights are random.
shape() { # FOLDER MODEL_TYPE ARCHITECTURE HIDDEN LAYERS HEADS KV_HEADS INTERMEDIATE VOCABULARY TIED
    mkdir -p "$1"
    printf '{"model_type": "%s", "architectures": ["%s"], "hidden_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d,
"num_key_value_heads": %d, "head_dim": 128, "intermediate_size": %d, "vocab_size": %d, "tie_word_embeddings": %s,
"max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu", "torch_dtype": "bfloat16"}\n' \
        "${@:2}" >"$1/config.json"
}

pack() {
    cd "$(dirname "${BASH_SOURCE[0]}")/.."
    local file=${1:-target/gpu-check.tar.xz} folder=${CARGO_TARGET_DIR:-target} peers=${PEERS_DIR:-../shared/peers} size
    if [[ "${NO_BUILD:-0}" != 1 ]]; then
        scripts/cuda_toolchain.sh
        CARGO_TARGET_DIR=$folder cargo build --release --locked --features cuda --config .cargo/cuda.toml
    fi
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    strip -o "$tmp/pairwright" "$folder/release/pairwright"
    cp -r tests/fixtures/models "$tmp/references"
    cp scripts/gpu-check.sh "$tmp/"
    [[ ! -f "$peers/transformers_gpu.py" ]] || cp "$peers/transformers_gpu.py" "$peers/shapes.json" "$tmp/"
    shape "$tmp/llama-8b" llama LlamaForCausalLM 4096 32 32 8 14336 128256 false
    shape "$tmp/qwen3-0.6b" qwen3 Qwen3ForCausalLM 1024 28 16 8 3072 151936 true
    git rev-parse --short HEAD >"$tmp/commit" 2>/dev/null || echo none >"$tmp/commit"
    tar -C "$tmp" -c . | xz -T0 -6 >"$file"
    size=$(stat -c %s "$file")
    echo "gpu-check: $file, $((size / 1000000)) MB"
    ((size < 60000000)) || { echo "gpu-check: more than 60 MB" >&2; exit 1; }
}

# step NAME SECONDS COMMAND…: keeps the command's last line of JSON under that name. 124 in `rc`: it was stopped.
step() {
    local name=$1 limit=$2 left=$((${SECONDS_IN_ALL:-530} - SECONDS)) rc=0 start=$SECONDS
    shift 2
    if ((left < 20)); then
        echo "gpu-check: no time is left for $name" | tee -a "$out/gpu-check.log"
        return
    fi
    timeout -k 5 "$((left < limit ? left : limit))" "$@" >"$out/step.out" 2>"$out/step.log" || rc=$?
    python3 - "$name" "$rc" "$((SECONDS - start))" "$commit" "$out/step.out" >>"$out/gpu-check.jsonl" <<'PYTHON'
import json, sys
name, rc, seconds, commit, path = sys.argv[1:]
lines = [line for line in open(path, errors="replace") if line.startswith("{")]
found = {}
if lines:
    try:
        found = json.loads(lines[-1])
    except ValueError:
        found = {"unreadable": lines[-1][:200]}
print(json.dumps({"step": name, "rc": int(rc), "seconds": int(seconds), "commit": commit, **found}))
PYTHON
    echo "gpu-check: $name: exit $rc after $((SECONDS - start)) s"
    ((rc == 0)) || tail -n 8 "$out/step.log"
    (echo "== $name" && cat "$out/step.log" "$out/step.out") >>"$out/gpu-check.log"
    rm "$out/step.log" "$out/step.out"
}

# load_files SHAPE FOLDER COMMAND…: random weights of the shape as files, the seconds that reading them takes once they are in memory, and
# what COMMAND says of them, together on one line. Takes the model's size of disk and of memory.
load_files() {
    python3 - "$@" <<'PYTHON'
import json, os, pathlib, subprocess, sys, time
import torch
from safetensors.torch import save_file
shape, folder, command = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
config = json.loads((shape / "config.json").read_text())
width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
device = "cuda" if torch.cuda.is_available() else "cpu"
numbers = lambda *sizes: torch.randn(*sizes, device=device, dtype=torch.bfloat16).mul_(0.02).cpu()
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.json").write_text(json.dumps(config))
parts = [{"model.embed_tokens.weight": numbers(config["vocab_size"], width), "model.norm.weight": numbers(width)}]
if not config["tie_word_embeddings"]:
    parts[0]["lm_head.weight"] = numbers(config["vocab_size"], width)
shapes = {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width), "self_attn.v_proj": (keys, width),
          "self_attn.o_proj": (width, queries), "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width),
          "mlp.down_proj": (width, inner), "input_layernorm": (width,), "post_attention_layernorm": (width,)}
index = {}
def save(part):
    name = f"model-{len(files) + 1:05d}.safetensors"
    save_file(part, folder / name)
    files.append(folder / name)
    index.update(dict.fromkeys(part, name))
files = []
save(parts[0])
for layer in range(config["num_hidden_layers"]):
    save({f"model.layers.{layer}.{name}.weight": numbers(*sizes) for name, sizes in shapes.items()})
(folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
torch.cuda.is_available() and torch.cuda.empty_cache()
buffer, read_s = bytearray(16 << 20), []
for _ in range(3):
    started = time.perf_counter()
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    read_s.append(round(time.perf_counter() - started, 3))
started = time.perf_counter()
done = subprocess.run([*command, "--model", str(folder)], capture_output=True, text=True)
sys.stderr.write(done.stderr)
said = {"files_bytes": sum(path.stat().st_size for path in files), "read_s": read_s, "program_s": round(time.perf_counter() - started, 2)}
for line in done.stdout.splitlines():
    if line.startswith("{"):
        said |= json.loads(line)
print(json.dumps(said))
sys.exit(done.returncode)
PYTHON
}

# Microseconds of doctor's dense products, where each number of rows has the algorithm that the library likes best for it: what it costs
# that ours have one for all.
torch_products() {
    python3 - <<'PYTHON'
import json, statistics, torch
found, (k, n) = {}, (4096, 14336)
weight = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
for m in (1, 16, 64, 256, 2048):
    x, y, times = torch.randn(m, k, device="cuda", dtype=torch.bfloat16), torch.empty(m, n, device="cuda", dtype=torch.bfloat16), []
    product = lambda: torch.mm(x, weight.t(), out=y)
    [product() for _ in range(3)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        [product() for _ in range(10)]
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(); graph.replay(); end.record(); torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 100)
    found[f"m={m} k={k} n={n}"] = round(min(times), 2)
print(json.dumps({"peer": f"torch {torch.__version__}", "linear_bf16_micros": found}))
PYTHON
}

run() {
    local file=$1
    out=$(realpath -m "${2:-gpu-check-out}") tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    mkdir -p "$out"
    xz -dc "$file" | tar -C "$tmp" -x
    cd "$tmp"
    commit=$(cat commit)
    export -f load_files torch_products # for the steps' own shells
    local bench=(./pairwright bench engine --weights dummy --device cuda --runs 1)
    local large=(--sequences 256 --max-batch 256 --prompt-len 200 --output-len 450)
    # Seconds on an H200 (2026-11-28): doctor 58, llama-8b 36, qwen3-0.6b 9, sanitizer 9.
    step doctor 120 ./pairwright doctor --device cuda --references references
    step llama-8b 100 "${bench[@]}" --model llama-8b "${large[@]}"
    step llama-8b-own 60 "${bench[@]}" --model llama-8b "${large[@]}" --products own
    step llama-8b-fp8 60 "${bench[@]}" --model llama-8b "${large[@]}" --quantize fp8
    step llama-8b-fp8-own 60 "${bench[@]}" --model llama-8b "${large[@]}" --quantize fp8 --products own
    step qwen3-0.6b 60 "${bench[@]}" --model qwen3-0.6b --sequences 256 --max-batch 256 --prompt-len 128 --output-len 512
    [[ ! -f transformers_gpu.py ]] || step transformers-llama-8b 200 python3 transformers_gpu.py llama-8b
    step llama-8b-fp8-kv 60 "${bench[@]}" --model llama-8b "${large[@]}" --quantize fp8 --kv-dtype fp8
    step judge-llama-8b 120 ./pairwright bench judge --weights dummy --device cuda --model llama-8b --pairs 200 --baseline-pairs 40 --runs 1
    step load-llama-8b 90 bash -c 'load_files "$@"' - llama-8b files ./pairwright bench engine --weights files --device cuda --runs 1 \
        --sequences 1 --max-batch 256 --prompt-len 16 --output-len 2
    rm -rf files
    step torch-products 30 bash -c torch_products
    step llama-8b-eager 60 "${bench[@]}" --model llama-8b "${large[@]}" --eager
    # Allocations that doctor has refused on purpose count as errors there: what is looked for is any other.
    ! command -v compute-sanitizer >/dev/null ||
        step sanitizer 60 compute-sanitizer --tool memcheck --print-limit 2000 --show-backtrace no ./pairwright doctor --device cuda --quick
    echo "gpu-check: $SECONDS s in all; $out/gpu-check.jsonl"
}

case ${1:-} in
pack | run) "$@" ;;
*) sed -n '2,10p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
