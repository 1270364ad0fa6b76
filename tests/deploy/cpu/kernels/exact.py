"""What int8 kernels compute, in numpy: sums in int64, then float32 with one rounding a step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm

from deploy.cpu.isa import AVX2_INT8, AVX512_INT8, Isa
from deploy.cpu.layout import activation_shape
from deploy.cpu.machine_code import compile_kernels
from deploy.grid import Grid
from lut.ops import Activation
from tests import conditions

from . import arm

ISAS = [
    pytest.param((AVX2_INT8["avx2"], "x86-64-v3"), id="avx2", marks=conditions.AVX2.mark),
    pytest.param(
        (AVX2_INT8["avxvnni"], "sierraforest"), id="avxvnni", marks=conditions.AVXVNNI.mark
    ),
    pytest.param((AVX512_INT8["avx512bw"], "x86-64-v4"), id="avx512", marks=conditions.AVX512.mark),
    pytest.param((AVX512_INT8["avx512vnni"], "znver4"), id="vnni", marks=conditions.VNNI.mark),
]
FEW = [ISAS[0], ISAS[-1]]  # where the products are those of another kernel
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
    y = np.full(activation_shape(on[0], *shape), 77, np.uint8)
    return unpack(run_raw(func, on, arrays, y), shape[0])


def run_raw(func: Any, on: tuple[Isa, str], arrays: list[np.ndarray], out: np.ndarray):
    if on[0].name == "neon":
        return arm.run(func, on[1], arrays, out)
    target = tvm.target.Target({"kind": "llvm", "mcpu": on[1], "num-cores": 2})
    library = compile_kernels({"main": func}, target)
    y = tvm.runtime.tensor(out)
    library["main"](*[tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays], y)
    return y.numpy()


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


def read(q: np.ndarray, of: Grid, unit: Grid) -> np.ndarray:
    factor = of.scale / unit.scale
    return fma(q.astype(f32), factor, unit.zero - of.zero * factor)


REAL = Grid(1.0, 0)


def unit_of(act: Activation, y: Grid) -> Grid:
    return y if act == "none" else REAL


def finish(
    sums: np.ndarray, x: Grid, weights: np.ndarray, y: Grid, act: Activation, add: Any = None
) -> np.ndarray:
    """`sums` int64 (N, O, H, W) of q - zero and weights, bias added; `add` a map and its
    scale, or numbers in the unit."""
    unit = unit_of(act, y)
    if isinstance(add, tuple):
        add = read(add[0], add[1], unit)
    start = f32(unit.zero) if add is None else add
    return ended(scaled(sums, x, weights, unit, start), y, act)


def scaled(sums: np.ndarray, x: Grid, weights: np.ndarray, unit: Grid, start) -> np.ndarray:
    multiplier = (x.scale * weights.astype(np.float64) / unit.scale).astype(f32)
    return fma(sums.astype(np.int32).astype(f32), per_channel(multiplier), start)


def ended(value: np.ndarray, y: Grid, act: Activation) -> np.ndarray:
    value = activate(value, act)
    return narrow(value if act == "none" else fma(value, 1 / y.scale, y.zero))


def convolve(q, zero, w, bias, *geometry):
    """Sums of int64: of whole numbers below 2^53 double is exact."""
    x = torch.from_numpy(q.astype(np.float64) - zero)
    w = torch.from_numpy(w.astype(np.float64))
    y = F.conv2d(x, w if w.ndim == 4 else w[:, :, None, None], None, *geometry)
    return y.numpy().astype(np.int64) + per_channel(bias)


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

    def scale(self, zero: int | None = None) -> Grid:
        at = int(self.rng.integers(0, 256)) if zero is None else zero
        return Grid(float(f32(self.rng.uniform(0.01, 0.05))), at)
