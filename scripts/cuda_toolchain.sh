#!/usr/bin/env bash
# NVIDIA's CUDA compiler, as hash-pinned packages of Python's index, in third_party/cuda: 220 MB, no root, no GPU, no driver. A machine
# that has CUDA 13.0 of its own needs none of this: see README.md.
#   scripts/cuda_toolchain.sh [PYTHON]     PYTHON: one that has pip (python3)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3} requirements=scripts/cuda-requirements.txt folder=third_party/cuda
stamp=$folder/.made-from-$(cat "$requirements" "$0" | sha256sum | cut -c 1-16)
[[ ! -e "$stamp" ]] || exit 0
new=$folder.new
rm -rf "$folder" "$new"
mkdir -p "$new"
"$python" -m pip install -q --no-deps --only-binary=:all: --no-compile --require-hashes --target "$new/pip" -r "$requirements"
mv "$new/pip/nvidia/cu13" "$folder"
rm -rf "$new"
# Candle's build links the CUDA libraries by name; the program opens them when it runs instead (.cargo/cuda.toml). So the linker gets
# empty ones, but for the compiler's own run time, which is small and goes into the program.
mkdir -p "$folder/lib64"
ln -sf ../lib/libcudart_static.a "$folder/lib64/libcudart.a"
for library in cuda nvrtc curand cublas cublasLt; do
    ar rcs "$folder/lib64/lib$library.a"
done
"$folder/bin/nvcc" --version | sed -n 's/^Cuda compilation tools, /cuda_toolchain: /p'
touch "$stamp"
