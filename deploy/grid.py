"""What the numbers of maps in 8 bits mean, in ONNX's convention: x = (q - zero) * scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SIX = 6 * (1 + 1e-3)  # 255 times a float32 scale


@dataclass(frozen=True)
class Grid:
    """The numbers that a map's bytes, 0 to 255, stand for."""

    scale: float
    zero: int = 0

    @property
    def most(self) -> float:
        """The largest number."""
        return (255 - self.zero) * self.scale

    @property
    def within_six(self) -> bool:
        """Whether none of them is above 6, where a ReLU6 ends."""
        return self.most <= _SIX


@dataclass(frozen=True)
class Scales:
    """Of an operation in 8 bits, beside its weights (int8, in torch's shapes) and biases (int32, in
    units of input scale times weight scale).

    inputs: of the maps that the kernel reads, in the order of its parameters; weights: of each
    weight array in the order in which `pack` names them, (O,) float32; hidden: of the maps that are
    never written, in the order in which they come about; output: of what is written (a wide
    operation's has no meaning).
    """

    inputs: tuple[Grid, ...]
    weights: tuple[NDArray[np.float32], ...]
    output: Grid
    hidden: tuple[Grid, ...] = ()
