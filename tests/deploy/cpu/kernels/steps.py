"""Steps behind an operation: what they read, and what they do in torch's float64."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Isa
from deploy.cpu.rows.epilogue import CONSTANTS, OPERANDS
from lut.ops import Shape, Step

from .helpers import normal

FUNCTIONS: dict[str, Any] = {
    "relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "sigmoid": torch.sigmoid,
    "hsigmoid": F.hardsigmoid, "swish": F.silu, "tanh": torch.tanh, "gelu": F.gelu,
    "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
}  # fmt: skip
# A few of each sort: each kernel's code for them is the same.
THEN = st.sampled_from(
    [(), (), ("relu",), ("prelu",), ("add", "relu"), ("swish",), ("scale", "mul_channel"),
     ("mul_pixel", "add"), ("hsigmoid", "mul")]
)  # fmt: skip


class Given:
    """Random maps and vectors for the steps of an operation with this output."""

    def __init__(self, then: tuple[Step, ...], output: Shape) -> None:
        self.then = then
        self.maps = [
            normal(10 + i, 1, *OPERANDS[s](*output)) for i, s in enumerate(then) if s in OPERANDS
        ]
        self.vectors = [
            normal(20 + 2 * i + j, output[0])
            for i, step in enumerate(then)
            for j in range(CONSTANTS.get(step, 0))
        ]

    def packed_maps(self, isa: Isa) -> list[np.ndarray]:
        return [layout.pack_activation(isa, x) for x in self.maps]

    def apply(self, value: torch.Tensor) -> np.ndarray:
        maps = iter(torch.from_numpy(x).double() for x in self.maps)
        vectors = iter(torch.from_numpy(v).double()[:, None, None] for v in self.vectors)
        for step in self.then:
            if step == "prelu":
                value = torch.where(value < 0, value * next(vectors), value)
            elif step == "scale":
                value = value * next(vectors) + next(vectors)
            elif step.startswith("add"):
                value = value + next(maps)
            elif step.startswith("mul"):
                value = value * next(maps)
            else:
                value = FUNCTIONS[step](value)
        return value.numpy()
