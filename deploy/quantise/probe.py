"""Runs frames through a float graph and keeps what its maps hold, and what it finds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.graph.reference import OnnxSession
from deploy.quantise.countdown import Countdown
from deploy.quantise.frames import Frames
from deploy.quantise.ranges import Seen
from deploy.quantise.wiring import Wiring
from deploy.reading.text import plain
from lut.errors import UserError

SAMPLE = 1 << 18  # elements of a map that are kept, of all frames together
_LEAST = 256  # of a frame
_PREFIX = "hmseg_probe_"

# Told of each frame: its number, and the graph's own outputs without their batch axis.
OnFrame = Callable[[int, Sequence[NDArray[Any]]], None]


def see_maps(
    model: onnx.ModelProto, maps: Sequence[str], frames: Frames, *, threads: int | None,
    on_frame: OnFrame, progress: Callable[[str], None],
) -> dict[str, Seen]:  # fmt: skip
    """What the maps of a graph hold on the frames.

    Raises UserError for a frame that cannot be read, and where a map is not finite.
    """
    session = OnnxSession(_with_probes(model, maps, max(_LEAST, SAMPLE // len(frames))),
                          threads=threads)  # fmt: skip
    own = len(model.graph.output)
    lows, highs = (np.full((len(frames), len(maps)), x, np.float32) for x in (np.inf, -np.inf))
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in maps}
    left = Countdown("calibrating", len(frames), progress)
    for index in range(len(frames)):
        outputs = session.run_batch(frames.given(index)[None])
        on_frame(index, [output[0] for output in outputs[:own]])
        for place, name in enumerate(maps):
            low, high, sample = outputs[own + 3 * place : own + 3 * place + 3]
            lows[index, place], highs[index, place] = low.item(), high.item()
            samples[name].append(sample.ravel())
            if not (np.isfinite(low) and np.isfinite(high) and np.isfinite(sample).all()):
                raise UserError(
                    f"{frames.paths[index]}: the map {plain(name)!r} of the network is not finite "
                    "there, so that it has no range; leave this frame out, or mend the network"
                )
        left.done(index + 1)
    return {
        name: Seen(float(lows[:, i].min()), float(highs[:, i].max()), np.concatenate(samples[name]))
        for i, name in enumerate(maps)
    }


def see_ends(
    model: onnx.ModelProto, maps: Sequence[str], frames: Frames, seen: Mapping[str, Seen]
) -> dict[str, Seen]:
    """The maps that are the image's alone, of any image: what was seen, and what black and white
    make of them."""
    if not maps:
        return {}
    metadata = frames.metadata
    shape = (*metadata.resolution, metadata.channels)
    session = OnnxSession(_with_probes(model, maps, 1))
    own, found = len(model.graph.output), {}
    runs = [
        session.run_batch(metadata.network_input(np.full(shape, value, np.uint8))[None])[own:]
        for value in (0, 255)
    ]
    for place, name in enumerate(maps):
        low = min(run[3 * place].item() for run in runs)
        high = max(run[3 * place + 1].item() for run in runs)
        found[name] = seen[name].merged(Seen(low, high, np.empty(0, np.float32)))
    return found


def _with_probes(model: onnx.ModelProto, maps: Sequence[str], most: int) -> onnx.ModelProto:
    """A copy with three outputs more for each map: its least and its largest element, and at most
    about `most` of its elements."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, wiring = copy.graph, Wiring(model.graph)
    for place, name in enumerate(maps):
        outputs = [f"{_PREFIX}{kind}_{place}" for kind in ("low", "high", "sample")]
        for op, output in zip(("ReduceMin", "ReduceMax"), outputs, strict=False):
            graph.node.append(helper.make_node(op, [name], [output], name=output, keepdims=0))
        shape = wiring.shape(name)
        steps = _steps(shape, most)
        # From the middle of the first step: the edge of a map, which padding makes, is a part only.
        bounds = [[step // 2 for step in steps], list(shape), list(range(len(shape))), steps]
        names = [name]
        for kind, values in zip(("from", "to", "axes", "steps"), bounds, strict=True):
            names.append(f"{_PREFIX}{kind}_{place}")
            graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), names[-1]))
        graph.node.append(helper.make_node("Slice", names, [outputs[2]], name=outputs[2]))
        graph.output.extend(helper.make_empty_tensor_value_info(output) for output in outputs)
    return copy


def _steps(shape: Sequence[int], most: int) -> list[int]:
    """A step along each axis: pixels first, then channels."""
    steps = [1] * len(shape)
    pixels = [1] if len(shape) == 3 else [len(shape) - 2, len(shape) - 1]
    size = int(np.prod(shape))
    for position, axis in enumerate(pixels):
        wanted = max(1.0, size / most) ** (1 / (len(pixels) - position))
        steps[axis] = min(shape[axis], int(np.ceil(wanted)))
        size = size // steps[axis]
    axis = 2 if len(shape) == 3 else 1
    steps[axis] = min(shape[axis], max(1, -(-size // most)))
    return steps
