"""Few networks that together contain every entry of the latency table. No torch."""

import random
from collections.abc import Sequence
from itertools import product

from hmseg.genotype import GROUPS, MRMS_GENOTYPE, RATIO_TENTHS, Genotype, Group, Op
from hmseg.operators import OPERATORS, Size, Space
from lut.errors import UserError
from lut.ops import Operation

STAGES = tuple(group.name for group in GROUPS)

Ratios = tuple[int, int]


def covering_networks(
    space: Space, rng: random.Random, stages: Sequence[str] = STAGES
) -> list[Genotype]:
    """Networks in which each operator of these stages occurs at each of its input sizes.

    Nine for each low size (54 at 256x512, 63 at 768x1536): every network has one entry of s5b, of
    which there are nine at each. Layers that can be skipped take each operator at least twice; s1
    and s2's first layer, which may be one kernel, take every pair that is an entry of its own.
    Otherwise the networks are random, so that an entry meets the neighbours that it has in the
    search. The other stages are those of MRMS, and ratios that no chosen stage depends on are 0.5.
    """
    sizes, first_two = _ratios_by_size(space, stages), _first_two(space, rng, stages)
    count = len(OPERATORS)
    sizes *= -(-len(first_two) // (count * len(sizes)))
    pairs = _product(stages)
    first_two += [rng.choice(pairs) for _ in range(count * len(sizes) - len(first_two))]
    rng.shuffle(first_two)
    networks = []
    for ratios in sizes:
        layers = [
            _covering_layers(group, rng) if group.name in stages else [ops] * count
            for group, ops in zip(GROUPS, MRMS_GENOTYPE.ops, strict=True)
        ]
        for i in range(count):
            ops = [choices[i] for choices in layers]
            s1, s2 = first_two.pop()
            ops[:2] = (s1,), (s2, *ops[1][1:])
            networks.append(Genotype(tuple(ops), *ratios[i % len(ratios)]))
    rng.shuffle(networks)
    return networks


def random_networks(
    space: Space, rng: random.Random, count: int, stages: Sequence[str] = STAGES
) -> list[Genotype]:
    """`count` networks drawn uniformly over what `covering_networks` of these stages vary; fewer
    where a draw repeats one, as it does in a stage of few choices."""
    pairs = [pair for ratios in _ratios_by_size(space, stages) for pair in ratios]
    choices: list[Op | None] = list(OPERATORS)

    def layers(group: Group) -> tuple[Op | None, ...]:
        later = (rng.choice([*choices, None]) for _ in range(group.layers - 1))
        return (rng.choice(choices), *later)

    draws = (
        Genotype(
            tuple(
                layers(group) if group.name in stages else ops
                for group, ops in zip(GROUPS, MRMS_GENOTYPE.ops, strict=True)
            ),
            *rng.choice(pairs),
        )
        for _ in range(count)
    )
    return list(dict.fromkeys(draws))


def _ratios_by_size(space: Space, stages: Sequence[str]) -> list[list[Ratios]]:
    """The pairs of ratios to visit, those of one size of the last chosen stage together."""
    unknown = set(stages) - set(STAGES)
    if unknown or not stages:
        raise UserError(
            f"unknown stage {min(unknown, default='')!r}; there are {', '.join(STAGES)}"
        )
    medium = any(name.startswith(("s4", "s5")) for name in stages)
    low = any(name.startswith("s5") for name in stages)
    by_size: dict[Size, list[Ratios]] = {}
    for m in RATIO_TENTHS if medium else (5,):
        for r in RATIO_TENTHS if low else (5,):
            *_, middle, lowest = space.sizes(m, r)
            by_size.setdefault(lowest if low else middle, []).append((m, r))
    return list(by_size.values())


def _product(stages: Sequence[str]) -> list[tuple[Op, Op]]:
    """What s1 and s2's first layer can be together."""
    fixed = [ops[0] for ops in MRMS_GENOTYPE.ops[:2]]
    first, second = (
        OPERATORS if group.name in stages else [op for op in (ops,) if op]
        for group, ops in zip(GROUPS[:2], fixed, strict=True)
    )
    return list(product(first, second))


def _first_two(space: Space, rng: random.Random, stages: Sequence[str]) -> list[tuple[Op, Op]]:
    """Few choices of the two that contain all their entries."""
    pairs = _product(stages)
    rng.shuffle(pairs)
    chosen, seen = [], set[Operation]()
    for new in (3, 2, 1):  # those that bring the most first
        for pair in pairs:
            keys = set(space.first_two(*pair)) - seen
            if len(keys) >= new:
                chosen.append(pair)
                seen |= keys
    return chosen


def _covering_layers(group: Group, rng: random.Random) -> list[tuple[Op | None, ...]]:
    """Nine choices for a group: each operator once in the first layer, twice in the others."""
    count = len(OPERATORS)
    first: list[Op] = rng.sample(OPERATORS, count)
    slots = count * (group.layers - 1)
    later: list[Op | None] = list((*OPERATORS, *OPERATORS)[:slots])
    later += [rng.choice([*OPERATORS, None]) for _ in range(slots - len(later))]
    rng.shuffle(later)
    size = group.layers - 1
    return [(first[i], *later[i * size : (i + 1) * size]) for i in range(count)]
