"""Which layers hurt: each one in 8 bits by itself, all others in float32."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx

from deploy.grid import Grid
from deploy.quantise.countdown import Countdown
from deploy.quantise.judge import Judge
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import Layer, find_places
from deploy.quantise.wiring import Wiring

FRAMES = 4  # that a layer is judged on


@dataclass(frozen=True)
class Sensitivity:
    """Of one layer alone, with the maps that it reads: what the scores are off by, as in
    `Figures`, and the share of the labels that is equal to float32's."""

    layer: str
    score_error: float
    equal: float

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def scan(
    model: onnx.ModelProto, layers: Sequence[Layer], grids: Mapping[str, Grid], judge: Judge,
    indices: Sequence[int], progress: Callable[[str], None],
) -> tuple[Sensitivity, ...]:  # fmt: skip
    """All layers of a float graph, those that hurt most first."""
    wiring, found = Wiring(model.graph), []
    names = {layer.name for layer in layers}
    left = Countdown("looking for layers that hurt", len(layers), progress)
    for done, layer in enumerate(layers):
        places = find_places(wiring, names - {layer.name})
        figures = judge.figures(with_pairs(model, places, grids), indices)
        found.append(Sensitivity(layer.name, figures.score_error, figures.equal))
        left.done(done + 1)
    return tuple(sorted(found, key=lambda one: -one.score_error))


def worst(table: Sequence[Sensitivity], kept: Collection[str], most: int) -> list[str]:
    """The layers that hurt most, besides those that are kept already."""
    return [one.layer for one in table if one.layer not in kept][:most]
