#!/usr/bin/env bash
# All that a GPU is needed for, in one command and about eight minutes; the next start goes on:
#
#   benchmarks/gpu.sh [--models tiny-mrms mrms tiny-hmseg] [--resolutions 256x512 ...] [--minutes 8]
#                     [--table-minutes 2.5] [--precision fp16] [--tune-seconds 10] [--jobs 1]
#                     [--again]
#
# Needs: pip install -e '.[cuda]' (beside a torch for CUDA 13: cuda13), an NVIDIA GPU and its driver;
# peers that are installed (a CUDA build of torch, onnxruntime-gpu, TensorRT) are timed beside it.
# Without a GPU: one line, exit 2.
set -euo pipefail
cd "$(dirname "$0")/.."
export NVIDIA_TF32_OVERRIDE=0 # all in fp32: TensorRT has no other switch
exec "${PYTHON:-python}" -m benchmarks.gpu "$@"
