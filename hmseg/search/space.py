"""Which candidates a search chooses from: the whole space, or a part of it (Table 6)."""

from dataclasses import dataclass

from hmseg.genotype import GROUPS, RATIO_TENTHS, Genotype, Op
from hmseg.operators import OPERATORS
from lut.errors import UserError

DIMENSIONS = ("operators", "depth", "resolution")
CANDIDATES: tuple[Op | None, ...] = (*OPERATORS, None)  # of every layer; None is identity
LAYERS = tuple((group, layer) for group in GROUPS for layer in range(group.layers))
"""The 22 operator layers, in the order of the genotype: (group, index in the group)."""


@dataclass(frozen=True)
class SearchSpace:
    """The candidates of each of the 22 layers, and of the two ratios in tenths."""

    layers: tuple[tuple[Op | None, ...], ...]
    ratios: tuple[tuple[int, ...], tuple[int, ...]]


def search_space(dimensions: tuple[str, ...], base: Genotype) -> SearchSpace:
    """The space in which only the named dimensions are searched; the others are `base`'s.

    Without ``operators`` a layer is `base`'s operator, or e6k3 where `base` skips it; without
    ``depth`` the layers that `base` skips are skipped and no other.
    """
    operators, depth = "operators" in dimensions, "depth" in dimensions

    def candidates(index: int, own: Op | None) -> tuple[Op | None, ...]:
        if own is None and not depth:
            return (None,)
        ops = OPERATORS if operators else (own or Op(6, 3),)
        return (*ops, None) if depth and LAYERS[index][1] > 0 else tuple(ops)

    own = [op for ops in base.ops for op in ops]
    free = "resolution" in dimensions
    return SearchSpace(
        tuple(candidates(index, op) for index, op in enumerate(own)),
        (
            RATIO_TENTHS if free else (base.medium_tenths,),
            RATIO_TENTHS if free else (base.low_tenths,),
        ),
    )


def parse_dimensions(text: str) -> tuple[str, ...]:
    """Read ``operators,depth,resolution`` or a part of it; raises UserError for anything else."""
    words = text.split(",")
    for word in words:
        if word not in DIMENSIONS:
            raise UserError(f"unknown dimension {word!r}; write {','.join(DIMENSIONS)}")
    return tuple(name for name in DIMENSIONS if name in words)


def to_genotype(ops: list[Op | None], medium_tenths: int, low_tenths: int) -> Genotype:
    """The genotype of 22 choices and two ratios."""
    places = iter(ops)
    grouped = tuple(tuple(next(places) for _ in range(group.layers)) for group in GROUPS)
    return Genotype(grouped, medium_tenths, low_tenths)
