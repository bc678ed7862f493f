#!/usr/bin/env bash
# Everything a machine with a card has to say, in one go of under nine minutes: doctor, the engine's benches, and Transformers beside them.
#   scripts/gpu-check.sh pack [FILE]    where the project builds: the stripped binary, the reference models and this script, as one file
#                                       (target/gpu-check.tar.xz, under 60 MB). NO_BUILD=1: with the binary there is
#   scripts/gpu-check.sh run FILE [OUT] on the machine with the card (a driver, and a python3 with torch and transformers for the libraries
#                                       and the peer): a JSON line per step in OUT/gpu-check.jsonl, what was printed in OUT/*.log
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
        echo "gpu-check: no time is left for $name" | tee -a "$out/left-out.log"
        return
    fi
    timeout -k 5 "$((left < limit ? left : limit))" "$@" >"$out/$name.out" 2>"$out/$name.log" || rc=$?
    python3 - "$name" "$rc" "$((SECONDS - start))" "$commit" "$out/$name.out" >>"$out/gpu-check.jsonl" <<'PYTHON'
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
    ((rc == 0)) || tail -n 8 "$out/$name.log"
}

run() {
    local file=$1
    out=$(realpath -m "${2:-gpu-check-out}") tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    mkdir -p "$out"
    xz -dc "$file" | tar -C "$tmp" -x
    cd "$tmp"
    commit=$(cat commit)
    local bench=(./pairwright bench engine --weights dummy --device cuda --runs 1)
    local large=(--sequences 256 --max-batch 256 --prompt-len 200 --output-len 450)
    step doctor-quick 100 ./pairwright doctor --device cuda --quick --references references
    step llama-8b 100 "${bench[@]}" --model llama-8b "${large[@]}"
    [[ ! -f transformers_gpu.py ]] || step transformers-llama-8b 200 python3 transformers_gpu.py llama-8b
    step llama-8b-fp8 60 "${bench[@]}" --model llama-8b "${large[@]}" --quantize fp8 --kv-dtype fp8
    step qwen3-0.6b 60 "${bench[@]}" --model qwen3-0.6b --sequences 256 --max-batch 256 --prompt-len 128 --output-len 512
    step doctor-rates 120 ./pairwright doctor --device cuda
    step judge-llama-8b 120 ./pairwright bench judge --weights dummy --device cuda --model llama-8b --pairs 200 --baseline-pairs 40 --runs 1
    step llama-8b-eager 60 "${bench[@]}" --model llama-8b "${large[@]}" --eager
    echo "gpu-check: $SECONDS s in all; $out/gpu-check.jsonl"
}

case ${1:-} in
pack | run) "$@" ;;
*) sed -n '2,10p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
