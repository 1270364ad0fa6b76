"""Resize in all its ages, Upsample among them: full lists of scales or sizes, no axes, no roi.

The meaning of opset 10 and below is onnxruntime's: positions are ``x / scale``, and the nearest
pixel is the one above where the map grows smaller, the one below where it grows larger.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.reading.graph import Node
from deploy.reading.opsets.rule import Rule, needed, parameter
from deploy.reading.writer import Writer

_SCALES = "scales"
_KNOWN = {
    "mode": ("nearest", "linear", "cubic"),
    "coordinate_transformation_mode": (
        "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
        "tf_half_pixel_for_nn", "tf_crop_and_resize",
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
}  # fmt: skip


def _upsample(writer: Writer, node: Node, opset: int) -> None:
    """Upsample, and Resize as it was in opset 10."""
    if node.op == "Upsample" and opset < 9:
        scales = np.array(node.get(_SCALES), np.float32)
    else:
        scales = needed(writer, node, 1, _SCALES).astype(np.float32)
    mode = node.get("mode", "nearest")
    mode = "linear" if mode == "bilinear" else mode
    if mode not in ("nearest", "linear"):
        raise node.error(f"its mode is none of opset {opset}'s: nearest, linear")
    if len(scales) != writer.graph.rank(node.inputs[0]):
        raise node.error("its scales do not fit its input's axes")
    asymmetric = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "linear":
        writer.end("Resize", node.inputs[0], "", writer.constant(scales), **asymmetric)
        return
    down, up = np.minimum(scales, 1), np.maximum(scales, 1)
    x = node.inputs[0]
    if (down < 1).any():
        x = writer("Resize", x, "", writer.constant(down), nearest_mode="ceil", **asymmetric)
    writer.end("Resize", x, "", writer.constant(up), nearest_mode="floor", **asymmetric)


def _resize(writer: Writer, node: Node, opset: int) -> None:
    if opset < 11:
        _upsample(writer, node, opset)
        return
    x, shape = node.inputs[0], writer.graph.shape(node.inputs[0])
    axes = [axis % len(shape) for axis in node.attributes.pop("axes", range(len(shape)))]
    scales, sizes = (_list(writer, node, index) for index in (2, 3))
    policy = node.attributes.pop("keep_aspect_ratio_policy", b"stretch")
    given = scales if sizes is None else sizes
    if given is None or (scales is not None and sizes is not None):
        raise node.error("it needs either scales or sizes")
    if len(axes) != len(given):
        raise node.error("its scales or sizes do not fit its axes")
    for attribute, known in _KNOWN.items():
        if node.get(attribute, known[0]) not in known:
            raise node.error(f"its {attribute} is none of {', '.join(known)}")
    if sizes is not None and policy != b"stretch":
        scales, sizes = _one_scale(node, [shape[axis] for axis in axes], sizes, policy), None
    if node.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        _half_pixel_for_nn(writer, node, axes, scales, sizes)
        return
    roi = ""
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        region = np.array([0.0, 1.0], np.float32).repeat(len(shape))
        some = needed(writer, node, 1, "region").astype(np.float32).reshape(2, -1)
        for position, axis in enumerate(axes):
            region[[axis, axis + len(shape)]] = some[:, position]
        roi = writer.constant(region)
    if sizes is not None:
        full = list(shape)
        for axis, size in zip(axes, sizes, strict=True):
            full[axis] = int(size)
        if full == list(shape) and not roi:
            writer.end("Identity", x)
            return
        inputs = [x, roi, "", writer.constant(full)]
    else:
        factors = np.ones(len(shape), np.float32)
        assert scales is not None
        factors[axes] = scales
        if (factors == 1).all() and not roi:
            writer.end("Identity", x)
            return
        inputs = [x, roi, writer.constant(factors)]
    writer.end("Resize", *inputs, **node.attributes)


def _one_scale(
    node: Node, sides: list[int], sizes: NDArray[Any], policy: bytes
) -> NDArray[np.float32]:
    """The scale of all axes that keeps the aspect ratio within some sizes, or around them."""
    factors = [np.float32(size) / np.float32(side) for size, side in zip(sizes, sides, strict=True)]
    factor = min(factors) if policy == b"not_larger" else max(factors)
    if any(int(factor * side) != int(np.floor(factor * side + 0.5)) for side in sides):
        raise node.error("it keeps the aspect ratio; export it with the sizes that this comes to")
    return np.full(len(sides), factor, np.float32)


def _list(writer: Writer, node: Node, index: int) -> NDArray[Any] | None:
    """Scales or sizes; empty ones are left out."""
    value = parameter(writer, node, index, ("", "", _SCALES, "sizes")[index])
    return value.reshape(-1) if value is not None and value.size else None


def _half_pixel_for_nn(
    writer: Writer, node: Node, axes: list[int], scales: NDArray[Any] | None,
    sizes: NDArray[Any] | None,
) -> None:  # fmt: skip
    """TensorFlow's nearest pixel before opset 13, ``(x + 0.5) / scale``: a Gather of each axis."""
    if node.get("mode", "nearest") != "nearest":
        raise node.error("tf_half_pixel_for_nn goes with the mode nearest; export it with opset 13")
    roundings: dict[str, Callable[[Any], Any]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_ceil": lambda v: np.floor(v + np.float32(0.5)),
        "round_prefer_floor": lambda v: np.ceil(v - np.float32(0.5)),
    }
    rounding = roundings[node.get("nearest_mode", "round_prefer_floor")]
    x = node.inputs[0]
    for i, axis in enumerate(axes):
        side = writer.graph.shape(x)[axis]
        factor = np.float32(scales[i]) if scales is not None else None
        size = int(np.floor(factor * np.float32(side))) if factor is not None else int(sizes[i])  # type: ignore[index]
        factor = np.float32(size) / np.float32(side) if factor is None else factor
        if size != side or factor != 1:
            position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / factor
            index = np.clip(rounding(position), 0, side - 1).astype(np.int64)
            x = writer("Gather", x, writer.constant(index), axis=axis)
    writer.end("Identity", x)


RULES: dict[tuple[str, str], Rule] = {
    ("", "Upsample"): _upsample,
    ("", "Resize"): _resize,
}
