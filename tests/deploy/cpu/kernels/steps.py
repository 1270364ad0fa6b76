"""What steps behind an operation do, in double, and inputs for them."""

from collections.abc import Iterable
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Isa
from deploy.cpu.rows.epilogue import CONSTANTS, OPERANDS
from lut.ops import Shape, Step

STEPS = get_args(Step)
# A few of each sort: each kernel's code for them is the same.
THEN = st.sampled_from(
    [(), (), ("relu",), ("prelu",), ("add", "relu"), ("swish",), ("scale", "mul_channel"),
     ("mul_pixel", "add"), ("hsigmoid", "mul"), ("sub_pixel", "clip"), ("elu", "add_pixel")]
)  # fmt: skip
_FUNCTIONS = {
    "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "sigmoid": torch.sigmoid,
    "hsigmoid": F.hardsigmoid, "swish": F.silu, "tanh": torch.tanh, "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"), "softplus": F.softplus, "mish": F.mish,
}  # fmt: skip


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inputs_of(then: Iterable[Step], output) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Other maps and vectors per channel."""
    maps = [normal(20 + i, 1, *OPERANDS[s](*output)) for i, s in enumerate(then) if s in OPERANDS]
    vectors = [normal(40 + i, output[0]) for s in then for i in range(CONSTANTS.get(s, 0))]
    return maps, vectors


def follow(y: np.ndarray, then, maps, vectors) -> np.ndarray:
    """The steps on a map (1, C, H, W)."""
    value, maps, vectors = torch.from_numpy(y).double(), iter(maps), iter(vectors)

    def channel() -> torch.Tensor:
        return torch.from_numpy(next(vectors)).double()[:, None, None]

    for step in then:
        if step in _FUNCTIONS:
            value = _FUNCTIONS[step](value)
        elif step == "prelu":
            value = torch.where(value < 0, value * channel(), value)
        elif step == "scale":
            value = value * channel() + channel()
        elif step == "clip":  # of bounds in the wrong order it is the upper one
            value = torch.minimum(torch.maximum(value, channel()), channel())
        elif step == "elu":
            value = torch.where(value < 0, channel() * torch.expm1(value), value)
        elif step.startswith("add"):
            value = value + torch.from_numpy(next(maps)).double()
        elif step.startswith("sub"):
            value = value - torch.from_numpy(next(maps)).double()
        else:
            assert step.startswith("mul")
            value = value * torch.from_numpy(next(maps)).double()
    return value.numpy()


class Given:
    """Random maps and vectors for the steps of an operation with this output."""

    def __init__(self, then: tuple[Step, ...], output: Shape) -> None:
        self.then = then
        self.maps, self.vectors = inputs_of(then, output)

    def packed_maps(self, isa: Isa) -> list[np.ndarray]:
        return [layout.pack_activation(isa, x) for x in self.maps]

    def apply(self, value: torch.Tensor) -> np.ndarray:
        return follow(value.numpy(), self.then, self.maps, self.vectors)
