#!/usr/bin/env bash
# The compiler's wrapper of builds with the feature cuda (.cargo/cuda.toml): one program that starts with and without NVIDIA's driver.
# cudarc can open the libraries when they are first used, and Candle asks it for linking instead; where both are set cudarc's sources
# open them, but its build script refuses the two together. So the sources are told here, and the build script is not.
set -euo pipefail
case " $* " in
*" --crate-name cudarc "*) exec "$@" --cfg 'feature="dynamic-loading"' ;;
*) exec "$@" ;;
esac
