"""The architecture parameters: a distribution over networks, and samples of it (Eq. 2).

Everything here is float64 and on the CPU: a few hundred numbers. Nothing is random but the noise
that is handed in, and that follows from the seed and the step.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hmseg.genotype import RATIO_TENTHS, Genotype, Op
from hmseg.search.space import CANDIDATES, LAYERS, SearchSpace, to_genotype

COUNT = len(CANDIDATES)
ROWS = len(LAYERS) + 2  # 22 layers, the medium and the low ratio


@dataclass(frozen=True)
class Path:
    """One network of the space, with the gates (24,) that its layers' and resizes' outputs are
    multiplied by; None where no gradient is to reach the architecture."""

    choices: tuple[int, ...]  # of each row, an index into CANDIDATES or RATIO_TENTHS
    gates: Tensor | None = None

    @property
    def ops(self) -> list[Op | None]:
        """Of the 22 layers."""
        return [CANDIDATES[choice] for choice in self.choices[:-2]]

    @property
    def ratios(self) -> tuple[int, int]:
        """Medium and low, in tenths."""
        medium, low = self.choices[-2:]
        return RATIO_TENTHS[medium], RATIO_TENTHS[low]

    @property
    def genotype(self) -> Genotype:
        """As a genotype."""
        return to_genotype(self.ops, *self.ratios)


class Architecture(nn.Module):
    """Logits (24, 10): a row for each layer (9 operators and identity) and each ratio (3).

    `allowed` marks the candidates of the space; the others have probability 0.
    """

    allowed: Tensor

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        rows = [[op in layer for op in CANDIDATES] for layer in space.layers]
        short = [False] * (COUNT - len(RATIO_TENTHS))
        rows += [[*(tenths in ratio for tenths in RATIO_TENTHS), *short] for ratio in space.ratios]
        self.register_buffer("allowed", torch.tensor(rows), persistent=False)
        self.logits = nn.Parameter(torch.zeros(ROWS, COUNT, dtype=torch.float64))

    def _masked(self) -> Tensor:
        return self.logits.masked_fill(~self.allowed, -torch.inf)

    def probabilities(self) -> Tensor:
        """(24, 10): a row sums to 1."""
        return torch.softmax(self._masked(), 1)

    @torch.no_grad()
    def begin_near(self, genotype: Genotype, probability: float) -> None:
        """Give the choices of a network of the space this probability, above 0 and below 1, in
        every row that has a choice, and the others of a row equal shares of the rest."""
        ops = [op for ops in genotype.ops for op in ops]
        own = [CANDIDATES.index(op) for op in ops]
        own += [RATIO_TENTHS.index(genotype.medium_tenths), RATIO_TENTHS.index(genotype.low_tenths)]
        odds = probability / (1 - probability)
        for row, (choice, allowed) in enumerate(zip(own, self.allowed, strict=True)):
            self.logits[row] = 0
            self.logits[row, choice] = math.log(odds * max(1, int(allowed.sum()) - 1))

    def log_probability(self, path: Path) -> Tensor:
        """Of a path, with gradient."""
        chosen = torch.tensor(path.choices)[:, None]
        return torch.log_softmax(self._masked(), 1).gather(1, chosen).sum()

    @torch.no_grad()
    def most_probable(self) -> Path:
        """The most probable candidate of each row; the first of equals."""
        return Path(tuple(self._masked().argmax(1).tolist()))

    def sample(self, noise: NDArray[np.float64], temperature: float) -> Path:
        """A path drawn with Gumbel noise (24, 10), with its straight-through gates (Eq. 2).

        The gate of a candidate is hard - soft.detach() + soft: 1 in value where it is chosen, and
        in gradient its Gumbel softmax at this temperature. Only the chosen ones are computed.
        """
        noisy = self._masked() + torch.from_numpy(noise)
        soft = torch.softmax(noisy / temperature, 1)
        chosen = noisy.argmax(1)
        mine = soft.gather(1, chosen[:, None])[:, 0]
        return Path(tuple(chosen.tolist()), 1 + (mine - mine.detach()))


def gumbel_noise(seed: int, step: int, draw: int) -> NDArray[np.float64]:
    """Noise (24, 10) for draw number `draw` of a step: the same whenever it is asked for."""
    return np.random.default_rng((seed, 2, step, draw)).gumbel(size=(ROWS, COUNT))


def temperature_at(step: int, steps: int, start: float, end: float) -> float:
    """Falls geometrically from `start` at step 0 to `end` at the last of `steps` steps."""
    done = step / (steps - 1) if steps > 1 else 1.0
    return float(start * (end / start) ** done)


def fair_path(allowed: Tensor, seed: int, step: int) -> Path:
    """A path for the warm-up, in which a row's n candidates take turns: each once in n steps, in
    an order drawn anew each time. None is trained more than another."""
    choices = []
    for row, mask in enumerate(allowed.tolist()):
        candidates = [index for index, there in enumerate(mask) if there]
        turn, place = divmod(step, len(candidates))
        order = np.random.default_rng((seed, 3, row, turn)).permutation(len(candidates))
        choices.append(candidates[order[place]])
    return Path(tuple(choices))
