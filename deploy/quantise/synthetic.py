"""Scales without frames, for networks whose time alone counts: a kernel in 8 bits takes as long
whatever its numbers mean, so latency tables need no calibration. What such a network finds is of no
use."""

import onnx

from deploy.grid import Grid
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import Places, find_places
from deploy.quantise.scales import Range, grid_of
from deploy.quantise.wiring import Wiring

_SIX = 6.0  # where a ReLU6 ends, and what a map that nothing bounds is taken to reach
_ANY = Range(-_SIX, _SIX)


def with_synthetic_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float graph with pairs where calibration would put them, on grids that are made up: from 0
    to 6 behind a Relu or a Clip from 0, so that the bytes do its work as they do for measured
    ranges; from -6 to 6 elsewhere. Maps that have one scale share one grid."""
    wiring = Wiring(model.graph)
    places = find_places(wiring)
    return with_pairs(model, places, _grids(wiring, places))


def _grids(wiring: Wiring, places: Places) -> dict[str, Grid]:
    ranges = {name: _range(wiring, name) for name in places.maps}
    for group in places.shared:
        together = ranges[group[0]]
        for name in group[1:]:
            together = together.union(ranges[name])
        ranges |= dict.fromkeys(group, together)
    return {name: grid_of(found) for name, found in ranges.items()}


def _range(wiring: Wiring, name: str) -> Range:
    maker = wiring.maker(name)
    bounds = None if maker is None else wiring.bounds(wiring.nodes[maker])
    return _ANY if bounds is None else Range(0.0, min(bounds[1], _SIX))
