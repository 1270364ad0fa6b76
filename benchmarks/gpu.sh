#!/usr/bin/env bash
# All that a GPU is needed for, in one command and about eight minutes:
#
#   benchmarks/gpu.sh [--models tiny-mrms mrms] [--resolutions 256x512 ...] [--minutes 8]
#                     [--table-minutes 2.5] [--precision fp16] [--tune-seconds 10]
#
# Needs: pip install -e '.[cuda]', an NVIDIA GPU and its driver; peers that are installed (a CUDA
# build of torch, onnxruntime-gpu, TensorRT) are timed beside it. Without a GPU: one line, exit 2.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
