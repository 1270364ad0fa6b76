"""GPUs as targets: CUDA for some architectures, OpenCL for Adreno."""

import json
import re
from dataclasses import replace
from typing import Any

from deploy.gpu.nvrtc import check_architectures, known_architectures
from deploy.precision import FP16, Precision
from deploy.target import Target
from lut.errors import UserError

WORDS = ("cuda", "adreno")

# What GPUs of CUDA and OpenCL allow a kernel: TVM's rules for loops that are not ours ask for it.
_GPU_LIMITS = {
    "cuda": {"max_threads_per_block": 1024, "max_shared_memory_per_block": 49152},
    "opencl": {"max_threads_per_block": 256, "max_shared_memory_per_block": 32768},
}
# One of each generation since the paper's card, a GTX 1080 Ti (sm_61), which CUDA 13 does not know;
# later ones compile the last one's PTX when they load it.
CUDA_ARCHITECTURES = ("sm_61", "sm_75", "sm_80", "sm_86", "sm_90")
_LEAST_FP16 = 53  # GPUs before sm_53 have no half


def names_cuda(text: str, config: dict[str, Any] | None) -> bool:
    """Whether a target's text, or its JSON, is for NVIDIA's GPUs."""
    if config is not None:
        return config.get("kind") == "cuda"
    return text == "cuda" or text.startswith("nvidia/")


def names_adreno(text: str) -> bool:
    """Whether a target's text is for a phone's GPU."""
    return text == "adreno" or text.startswith("qcom/")


def resolve_cuda(
    text: str, config: dict[str, Any] | None, architectures: str | None, precision: Precision
) -> Target:
    """The target of a word, a tag or of TVM's JSON, read as `config`; `architectures` are those
    that machine code is made for, such as ``sm_61,sm_90``. Raises UserError for anything else."""
    if config is not None:
        named = str(config["arch"]) if "arch" in config else None
        target = replace(_cuda_target("cuda", architectures or named), name="json")
    else:
        target = _cuda_target(text, architectures)
    check_architectures(target.features)
    old = [name for name in target.features if int(name[3:]) < _LEAST_FP16]
    if precision is FP16 and old:
        raise UserError(f"--precision fp16 needs sm_{_LEAST_FP16} or later, not {old[0]}")
    return replace(target, precision=precision)


def _cuda_target(text: str, architectures: str | None) -> Target:
    if architectures is not None:
        names = tuple(name.strip() for name in architectures.split(","))
    elif text == "cuda":
        names = tuple(name for name in CUDA_ARCHITECTURES if name in known_architectures())
    else:
        # A suffix (sm_90a) allows instructions that no kernel here uses.
        names = (str(_tag(text, "nvidia/geforce-gtx-1080-ti")["arch"]).rstrip("af"),)
    bad = [name for name in names if not re.fullmatch(r"sm_[1-9]\d{1,2}", name)]
    if bad:
        raise UserError(f"unknown GPU architecture {bad[0]!r}: write such as --arch sm_61,sm_90")
    names = tuple(sorted(set(names), key=lambda name: int(name[3:])))
    config = {"kind": "cuda", "arch": names[0], "thread_warp_size": 32, **_GPU_LIMITS["cuda"]}
    return Target(text, config, "cuda", names)


def resolve_adreno(text: str) -> Target:
    """The target of the word or of one of TVM's tags; raises UserError for anything else."""
    if text != "adreno" and str(_tag(text, "adreno")["kind"]) != "opencl":
        raise UserError(f"target {text!r}: GPU code for phones is OpenCL; use adreno")
    config = {"kind": "opencl", "device": "adreno", **_GPU_LIMITS["opencl"]}
    return Target(text, config, "opencl", ())


def _tag(text: str, example: str) -> dict[str, Any]:
    """What one of TVM's tags stands for."""
    import tvm

    try:
        config: dict[str, Any] = json.loads(str(tvm.target.Target(text)))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"target {text!r}: TVM has no such tag; use {example}, or JSON") from error
    return config
