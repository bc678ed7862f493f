#!/usr/bin/env bash
# The CUDA build on a machine without a card: compiled and linted with NVIDIA's compiler from Python's index, then run on a pretended device
# (kernels/pretend): the demo, doctor, and the golden models through the whole engine. Says nothing about speed, races or real libraries.
#   scripts/check_cuda.sh           no machine code, and without Candle's GGUF kernels: a third of an hour on two cores, minutes when repeated
#   scripts/check_cuda.sh --whole   all of it, as it would be used
#   scripts/check_cuda.sh --prepare gets the compiler and takes over what the default build has compiled; the rest may then run beside cargo
set -euo pipefail
cd "$(dirname "$0")/.."
[[ "${1:-}" == --whole ]] || export PAIRWRIGHT_CUDA_LITE=1
base=${CARGO_TARGET_DIR:-target} folder=${CARGO_TARGET_DIR:-target}/cuda
cargo_cuda() {
    local command=("$1")
    shift
    [[ "${command[0]}" != nextest ]] || { command+=("$1"); shift; }
    CARGO_TARGET_DIR=$folder cargo "${command[@]}" --release --locked --features cuda --config .cargo/cuda.toml "$@"
}
if [[ "$(uname -m)" != x86_64 ]] || ! command -v python3 >/dev/null; then
    echo "check_cuda: skipped: wants x86-64 and a python3 with pip"
    exit 0
fi
scripts/cuda_toolchain.sh
# What a build without the feature has compiled is the same here, but for what knows of CUDA: links, not copies. A folder of its own since
# nothing tells a kernel that was left out from one that was not.
if [[ -d "$base/release" && ! -e "$folder/release" ]]; then
    mkdir -p "$folder/release"
    cp -al "$base"/release/{build,deps,.fingerprint} "$folder/release"
fi
[[ "${1:-}" != --prepare ]] || exit 0
cargo_cuda build
cargo_cuda clippy --lib --bins -- -D warnings
program=$(realpath "$folder/release/pairwright")

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Without a driver it is a program for the processor, which says so when it is asked for a card.
"$program" make --demo --out "$out/processor" -q
if "$program" make --demo --out "$out/none" -q --device cuda 2>"$out/refused"; then
    echo "check_cuda: --device cuda went through without a driver" >&2
    exit 1
fi
grep -q 'no NVIDIA driver' "$out/refused" || { cat "$out/refused" >&2; exit 1; }

# A card refuses pieces of 16 bytes that do not begin on such; this processor only when it is told to look.
aligned=""
[[ "$("${CXX:-c++}" -print-file-name=libubsan.so)" != /* ]] || aligned="-fsanitize=alignment -fno-sanitize-recover=alignment"
CXXFLAGS="$aligned ${CXXFLAGS:-}" kernels/pretend/build.sh third_party/cuda "$folder/pretend" --test
export LD_LIBRARY_PATH=$(realpath "$folder/pretend")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
"$program" make --demo --out "$out/device" -q --device cuda --known-answers 1
rows() { wc -l < "$1/journal/$2.jsonl"; }
for stage in candidates verdicts; do
    [[ "$(rows "$out/processor" $stage)" == "$(rows "$out/device" $stage)" ]] || { echo "check_cuda: other rows in $stage" >&2; exit 1; }
done
# A GGUF file's blocks stay blocks on the device, and give the processor's answers.
printf '{"id":"a","prompt":"Hello world"}\n{"id":"b","prompt":"The cat"}\n' >"$out/prompts.jsonl"
for device in cpu cuda; do
    "$program" generate --model tests/fixtures/gguf/llama_q8_0.gguf --prompts "$out/prompts.jsonl" --out "$out/$device.jsonl" \
        --device "$device" --dtype f32 --activations f32 --temperature 0 --max-tokens 12 -q
done
diff "$out/cpu.jsonl" "$out/cuda.jsonl" || { echo "check_cuda: other answers with blocks on the device" >&2; exit 1; }
# A library whose sums depend on the number of rows: such a product is not taken, and where there is no other our own kernel is.
for n in {1..16}; do
    printf '{"id":"%s","prompt":"%s. What do people of these islands cook when the first rain comes, and who sits down first?"}\n' "$n" "$n"
done >"$out/many.jsonl"
answers() {
    "$program" generate --model "$out/processor/demo/model" --prompts "$out/many.jsonl" --out "$out/$1.jsonl" --temperature 0 \
        --max-tokens 8 "${@:2}"
}
answers steady --device cuda --dtype f32 --logprobs 2 -q
PRETEND_CUDA_PRODUCTS=both answers both --device cuda --dtype f32 --logprobs 2 -q
diff "$out/steady.jsonl" "$out/both.jsonl" || { echo "check_cuda: a product that depends on the batch was taken" >&2; exit 1; }
# One that refuses most numbers of rows: they are run in parts, and with more rows than there are.
PRETEND_CUDA_PRODUCTS="whole tiles" answers tiles --device cuda --dtype f32 --logprobs 2 -q
diff "$out/steady.jsonl" "$out/tiles.jsonl" || { echo "check_cuda: parts and padding give other answers" >&2; exit 1; }
answers processor --device cpu --dtype f32 -q
PRETEND_CUDA_PRODUCTS=unsteady answers own --device cuda --dtype f32 2>"$out/said"
diff "$out/processor.jsonl" "$out/own.jsonl" || { echo "check_cuda: our own products give other answers" >&2; exit 1; }
grep -q 'cuBLASLt has no product' "$out/said" || { echo "check_cuda: nothing was said of slower products" >&2; cat "$out/said" >&2; exit 1; }
# So it is in 16 bits and in fp8; and who asks for our own gets the same, whatever the library has.
for quantize in none fp8; do
    rounded=(); [[ $quantize == none ]] || rounded=(--quantize "$quantize")
    PRETEND_CUDA_PRODUCTS=unsteady answers "unserved-$quantize" --device cuda --dtype bf16 "${rounded[@]}" -q
    answers "own-$quantize" --device cuda --dtype bf16 --products own "${rounded[@]}" -q
    diff "$out/unserved-$quantize.jsonl" "$out/own-$quantize.jsonl" || { echo "check_cuda: --products own gives others" >&2; exit 1; }
done
# A card on which kernels of warpgroups are wrong does without them, as one that has none, and says so.
PRETEND_CUDA_CAPABILITY=80 answers older --device cuda --dtype bf16 --products own -q
PRETEND_CUDA_MISREADS_LINES=1 answers misread --device cuda --dtype bf16 --products own 2>"$out/said"
diff "$out/older.jsonl" "$out/misread.jsonl" || { echo "check_cuda: wrong kernels of warpgroups were used" >&2; exit 1; }
grep -q 'kernels of warpgroups are wrong' "$out/said" || { echo "check_cuda: nothing was said of wrong kernels" >&2; cat "$out/said" >&2; exit 1; }
# Two devices share a job, or hold the model together.
for devices in cuda:0,cuda:1 cuda:0+cuda:1; do
    PRETEND_CUDA_DEVICES=2 "$program" make --demo --out "$out/$devices" -q --device "$devices" --known-answers 0
    for stage in candidates verdicts; do
        diff <(sort "$out/device/journal/$stage.jsonl") <(sort "$out/$devices/journal/$stage.jsonl") >"$out/differ" ||
            { echo "check_cuda: $devices give other $stage than one device" >&2; head -4 "$out/differ" >&2; exit 1; }
    done
done
# Each operation, models, batches, captured steps and a device without room, as users check their card.
"$program" doctor --device cuda --quick >"$out/doctor.json" || { echo "check_cuda: doctor is not content" >&2; exit 1; }
# A process for each test where nextest is there: contexts and captures are a process's.
export PAIRWRIGHT_TEST_DEVICE=cuda
golden='greedy|logits_and|prompt_logprobs|prefix|reward|samples'
if cargo nextest --version >/dev/null 2>&1; then
    cargo_cuda nextest run --test golden -E "test(/$golden/)"
else
    cargo_cuda test --test golden -- --test-threads 1
fi
echo "check_cuda: the CUDA build passes on a pretended device; no card was involved"
