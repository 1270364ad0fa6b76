"""Run one kernel on numpy arrays, and the instruction sets that this machine can run."""

from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import tvm
from hypothesis import strategies as st

from deploy.cpu.isa import AVX2, AVX512, Isa
from deploy.cpu.machine_code import compile_kernels
from deploy.graph.float64_resize import resize
from lut.ops import Activation
from tests import conditions

CPUS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}


ISAS = [
    pytest.param(AVX2, id=AVX2.name, marks=conditions.AVX2.mark),
    pytest.param(AVX512, id=AVX512.name, marks=conditions.AVX512.mark),
]


def target(isa: Isa) -> Any:
    mcpu = CPUS[isa.name] if isa.element.name == "float32" else "znver4"
    return tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "num-cores": 2})


ACTIVATIONS = st.sampled_from(get_args(Activation))


def upsample(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, in double, at coordinates that are float32's, as onnxruntime's and ours are."""
    kind = {"mode": b"linear", "coordinate_transformation_mode": b"half_pixel"}
    return resize(kind, x.astype(np.float64), sizes=np.array([*x.shape[:2], height, width]))


def activate(value: torch.Tensor, act: Activation) -> torch.Tensor:
    functions = {
        "none": lambda v: v, "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish,
        "sigmoid": torch.sigmoid,
    }  # fmt: skip
    return functions[act](value)


def run(func: Any, isa: Isa, arrays: list[np.ndarray], out: tuple[int, ...], dtype="float32"):
    """Compile and call; the output starts as garbage, and what surrounds it must stay."""
    library = compile_kernels({"main": func}, target(isa))
    y = tvm.runtime.tensor(np.full(out, 77, dtype))
    library["main"](*[tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays], y)
    return y.numpy()


def unpack_activation(x: np.ndarray, channels: int) -> np.ndarray:
    """(N, C/c, H, W, c) -> (N, C, H, W)."""
    n, blocks, height, width, lanes = x.shape
    planar = x.transpose(0, 1, 4, 2, 3).reshape(n, blocks * lanes, height, width)
    return np.ascontiguousarray(planar[:, :channels])


def planar(isa: Isa, y: np.ndarray, channels: int, act: Activation = "none") -> np.ndarray:
    """Back to NCHW; the padding channels must be what the activation makes of zero."""
    padding = y.transpose(0, 1, 4, 2, 3).reshape(y.shape[0], -1, *y.shape[2:4])[:, channels:]
    assert (padding == (0.5 if act == "sigmoid" else 0)).all()
    return unpack_activation(y, channels)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
