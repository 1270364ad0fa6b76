"""What int8 kernels compute, in numpy: sums in int64, then float32 with one rounding a step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tvm

from deploy.cpu.isa import AVX2_INT8, AVX512_INT8, Isa
from deploy.cpu.layout import activation_shape
from deploy.cpu.machine_code import compile_kernels
from deploy.cpu.scales import Scale
from lut.ops import Activation
from tests import conditions

ISAS = [
    pytest.param((AVX2_INT8["avx2"], "x86-64-v3"), id="avx2", marks=conditions.AVX2.mark),
    pytest.param((AVX2_INT8["avxvnni"], "sierraforest"), id="avxvnni", marks=conditions.AVXVNNI.mark),
    pytest.param((AVX512_INT8["avx512bw"], "x86-64-v4"), id="avx512", marks=conditions.AVX512.mark),
    pytest.param((AVX512_INT8["avx512vnni"], "znver4"), id="vnni", marks=conditions.VNNI.mark),
]
f32 = np.float32


def pack_bytes(isa: Isa, x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, C/c, H, W, c), with garbage behind the last channel: nothing reads it."""
    n, channels, height, width = x.shape
    padded = np.full((n, isa.blocks(channels) * isa.lanes, height, width), 199, np.uint8)
    padded[:, :channels] = x
    return padded.reshape(n, -1, isa.lanes, height, width).transpose(0, 1, 3, 4, 2)


def unpack(y: np.ndarray, channels: int) -> np.ndarray:
    n, blocks, height, width, lanes = y.shape
    return y.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, height, width)[:, :channels]


def run(func: Any, on: tuple[Isa, str], arrays: list[np.ndarray], shape: tuple[int, ...]):
    isa, cpu = on
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": 2})
    library = compile_kernels({"main": func}, target)
    y = tvm.runtime.tensor(np.full(activation_shape(isa, *shape), 77, np.uint8))
    library["main"](*[tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays], y)
    return unpack(y.numpy(), shape[0])


def fma(a, b, c) -> np.ndarray:
    """One rounding, but for what double's own makes of a tie: never seen."""
    a, b, c = (np.asarray(v, f32).astype(np.float64) for v in (a, b, c))
    return (a * b + c).astype(f32)


def per_channel(values) -> np.ndarray:
    return np.asarray(values)[None, :, None, None]


def narrow(value: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(value.astype(f32)), 0, 255).astype(np.uint8)


def activate(v: np.ndarray, act: Activation) -> np.ndarray:
    if act == "none":
        return v
    if act == "relu":
        return np.maximum(v, f32(0))
    if act == "relu6":
        return np.clip(v, f32(0), f32(6))
    assert act == "hswish"
    return v * (np.clip(v + f32(3), f32(0), f32(6)) * f32(1 / 6))


def read(q: np.ndarray, of: Scale, unit: Scale) -> np.ndarray:
    factor = of.scale / unit.scale
    return fma(q.astype(f32), factor, unit.zero - of.zero * factor)


def finish(
    sums: np.ndarray, x: Scale, weights: np.ndarray, y: Scale, act: Activation, add: Any = None
) -> np.ndarray:
    """`sums` int64 (N, O, H, W) of q - zero and weights, bias added; `add` of a map and its scale."""
    unit = y if act == "none" else Scale(1.0, 0)
    multiplier = (x.scale * weights.astype(np.float64) / unit.scale).astype(f32)
    start = f32(unit.zero) if add is None else read(add[0], add[1], unit)
    value = activate(fma(sums.astype(np.int32).astype(f32), per_channel(multiplier), start), act)
    return narrow(value if act == "none" else fma(value, 1 / y.scale, y.zero))


@dataclass
class Random:
    """Maps and weights whose results use the whole range of a byte."""

    rng: np.random.Generator

    def bytes(self, *shape: int) -> np.ndarray:
        return self.rng.integers(0, 256, shape, dtype=np.uint8)

    def weights(self, *shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, bias, scales."""
        fan_in = int(np.prod(shape[1:]))
        w = self.rng.integers(-127, 128, shape, dtype=np.int8)
        bias = self.rng.integers(-20000, 20000, shape[0], dtype=np.int32)
        return w, bias, (self.rng.uniform(0.5, 2, shape[0]) / 73 / fan_in**0.5).astype(f32)

    def scale(self, zero: int | None = None) -> Scale:
        at = int(self.rng.integers(0, 256)) if zero is None else zero
        return Scale(float(f32(self.rng.uniform(0.01, 0.05))), at)
