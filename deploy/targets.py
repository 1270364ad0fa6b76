"""Targets by name: each kind of machine knows its own words."""

from dataclasses import replace
from typing import Any

from deploy.cpu import targets as cpu
from deploy.cpu.cpu_names import CPU_NAMES
from deploy.gpu import targets as gpu
from deploy.precision import BF16, FP16, FP32, INT8, Precision, parse_precision
from deploy.target import Target
from lut.errors import UserError
from lut.json_text import parse_json

WORDS = (*cpu.WORDS[:3], *gpu.WORDS, *cpu.WORDS[3:])
_LISTED = ", ".join(WORDS)


def list_cpu_names() -> list[str]:
    """LLVM's names of CPUs, sorted, but for those that are words of ours."""
    return sorted(set().union(*CPU_NAMES.values()) - set(WORDS))


def check_target(text: str) -> None:
    """Raise UserError, as `resolve_target`, for whatever TVM need not be asked about: it takes
    seconds to import."""
    config = _read_json(text) if text.lstrip().startswith("{") else None
    if not gpu.names_cuda(text, config):
        _check_kind(config)
        if not gpu.names_adreno(text):
            cpu.check_cpu(text, config, _LISTED)


def resolve_target(
    text: str, architectures: str | None = None, precision: str | None = None
) -> Target:
    """Turn an alias (``cpu``, ``arm``, ``android``, ``cuda``, ``adreno``), an x86-64 level or CPU
    name of LLVM (``x86-64-v3``, ``skylake-avx512``, ``cortex-a76``), an ``arm/``, ``nvidia/`` or
    ``qcom/`` tag of TVM, or TVM's JSON into a Target. `architectures` are those that CUDA's machine
    code is made for, such as ``sm_61,sm_90``; `precision` is ``fp32``, as by default, for CUDA
    ``fp16``, for CPUs ``int8`` and, where they compute with it, ``bf16``.

    Raises UserError, naming what there is, for anything else.
    """
    wanted = FP32 if precision is None else parse_precision(precision)
    config = _read_json(text) if text.lstrip().startswith("{") else None
    if gpu.names_cuda(text, config):
        if wanted not in (FP32, FP16):
            raise _elsewhere(wanted, text)
        return gpu.resolve_cuda(text, config, architectures, wanted)
    _check_kind(config)
    if gpu.names_adreno(text):
        target = gpu.resolve_adreno(text)
    else:
        target = cpu.resolve_cpu(text, config, _LISTED)
    if architectures is not None:
        raise UserError(f"--arch is for --target cuda, not for {text}")
    return in_precision(target, wanted)


def in_precision(target: Target, precision: Precision) -> Target:
    """A target that is no GPU of NVIDIA's with its maps in another precision; raises UserError
    where its machine does not compute with it."""
    on_cpu = target.architecture in cpu.ARCHITECTURES
    if precision is FP32 or (precision is INT8 and on_cpu):
        return replace(target, precision=precision)
    if not on_cpu or precision is not BF16:
        raise _elsewhere(precision, target.name if target.name != "json" else target.machine)
    return cpu.with_bfloat16(target)


def _elsewhere(precision: Precision, text: str) -> UserError:
    return UserError(f"--precision {precision} is for {precision.machines}, not for {text}")


def _check_kind(config: dict[str, Any] | None) -> None:
    if config is not None and config.get("kind") != "llvm":
        raise UserError(
            'target: this version compiles for {"kind": "llvm", "mcpu": ...} and '
            '{"kind": "cuda", "arch": ...} only'
        )


def _read_json(text: str) -> dict[str, Any]:
    try:
        config = parse_json(text)
    except UserError as error:
        raise UserError(f"target: {error}") from error
    return config if isinstance(config, dict) else {}
