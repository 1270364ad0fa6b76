"""Scales without frames, for networks whose time alone counts: a kernel in 8 bits takes as long
whatever its numbers mean, so latency tables need no calibration. What such a network finds is of no
use.

One kernel alone takes longer the more its numbers differ: that of the labels, where they change
from pixel to pixel. On grids that are made up, random weights give scores that are noise, whose
labels take a multiple of a trained network's time. So one class wins everywhere
(docs/guides/latency-table.md has the figures).
"""

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.grid import Grid
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import Places, find_layers, find_places
from deploy.quantise.scales import Range, grid_of
from deploy.quantise.wiring import Wiring

_SIX = 6.0  # where a ReLU6 ends, and what a map that nothing bounds is taken to reach
_ANY = Range(-_SIX, _SIX)


def with_synthetic_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float graph with pairs where calibration would put them, on grids that are made up: from 0
    to 6 behind a Relu or a Clip from 0, so that the bytes do its work as they do for measured
    ranges; from -6 to 6 elsewhere. Maps that have one scale share one grid. The first class has
    the highest score of every pixel, where convolutions make the scores."""
    model = _with_one_class(model)
    wiring = Wiring(model.graph)
    places = find_places(wiring)
    return with_pairs(model, places, _grids(wiring, places))


def _with_one_class(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which the bias of the layers that make the scores says it: it is more than all that
    their weights can make of inputs up to twice what grids reach."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    wiring = Wiring(copy.graph)
    for number in _score_layers(wiring):
        node = wiring.nodes[number]
        weight = wiring.constant(node.input[1])
        if node.op_type != "Conv" or weight is None:
            continue
        given = wiring.constant(node.input[2]) if len(node.input) > 2 else None
        bias = np.zeros(len(weight), np.float32) if given is None else given.copy()
        most = 2 * _SIX * np.abs(weight).reshape(len(weight), -1).sum(1) + np.abs(bias)
        bias[0] = 2 * most.max() + 1
        name = f"{node.output[0]}_one_class"
        copy.graph.initializer.append(numpy_helper.from_array(bias, name))
        node.input[2:] = [name]
    return copy


def _score_layers(wiring: Wiring) -> list[int]:
    """The last layers ahead of a graph's outputs, by number."""
    layers = {layer.number for layer in find_layers(wiring)}
    todo, seen = list(wiring.outputs), set[int]()
    while todo:
        number = wiring.maker(todo.pop())
        if number is not None and number not in seen:
            seen.add(number)
            todo += [] if number in layers else list(wiring.nodes[number].input)
    return sorted(seen & layers)


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
