"""Resize: one axis after the other, from tables of places and weights.

Coordinates are onnxruntime's (`deploy.coordinates`): at a tie the nearest element hangs on the last
bit.
"""

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax, te, tirx

from deploy.coordinates import coordinates
from deploy.graph.importer.indexing import named_by_axis, take
from deploy.graph.importer.node import (
    Constant,
    Expr,
    Node,
    Scalar,
    constant,
    index,
    reduction,
    shape_of,
    sizes,
)

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@dataclass(frozen=True)
class _Axis:
    """What becomes of one axis: `length` elements become `size`; the part `start` to `end` of it is
    resized where only a region is."""

    axis: int
    length: int
    size: int
    scale: np.float32
    start: np.float32
    end: np.float32


def resize(node: Node) -> Expr:
    """By scales or to sizes; nearest, linear or cubic; with antialias where it is asked for."""
    mode = node.choice("mode", "nearest", "linear", "cubic")
    kind = node.choice("coordinate_transformation_mode", *_COORDINATES)
    rounding = node.choice("nearest_mode", *_ROUNDINGS)
    antialias = bool(node.attribute("antialias", 0))
    exclude = bool(node.attribute("exclude_outside", 0))
    a = np.float32(node.attribute("cubic_coeff_a", -0.75))
    outside = node.attribute("extrapolation_value", 0.0)
    axes = _axes(node, kind)
    x = node.tensor(0)
    if mode != "nearest" and not node.is_float():
        node.refuse(f"mode={mode!r} of {node.dtype()} is not supported; cast to float32 before it")
    if _is_plain_bilinear(node, mode, kind, antialias, axes):
        sides = list(node.shape())
        for axis in axes:
            sides[axis.axis] = axis.size
        # Also where the size stays: labels and scores at the image's size are recognised by it.
        return relax.op.image.resize2d(
            x, tuple(sides[2:]), layout="NCHW", method="linear",
            coordinate_transformation_mode="half_pixel", rounding_method="",
        )  # fmt: skip
    for axis in axes:
        at = coordinates(kind, axis.length, axis.size, axis.scale, axis.start, axis.end)
        if mode == "nearest":
            places = _nearest(rounding, at).clip(0, axis.length - 1)
            if len(places) != axis.length or (places != np.arange(axis.length)).any():
                x = take(node, x, axis.axis, places)
        elif axis.size != axis.length or kind == "tf_crop_and_resize" or axis.scale != 1:
            places, weights = _taps(mode, at, axis, antialias, exclude, a)
            x = _resampled(node, x, axis.axis, places, weights)
        if kind == "tf_crop_and_resize":
            beyond = (at < 0) | (at > axis.length - 1)
            if beyond.any():
                if mode == "cubic":  # onnxruntime then goes on over the edge
                    node.refuse("a cubic region that leaves the input has no one meaning; crop it")
                x = _replaced(node, x, axis.axis, beyond, outside)
    return x


def _is_plain_bilinear(
    node: Node, mode: str, kind: str, antialias: bool, axes: list[_Axis]
) -> bool:
    """Whether TVM's operator, and our kernels behind it, mean the same."""
    plain = (mode, kind, antialias) == ("linear", "half_pixel", False)
    if not plain or len(node.shape()) != 4 or node.shape()[0] != 1 or node.dtype() != "float32":
        return False
    changed = [axis for axis in axes if axis.size != axis.length or axis.scale != 1]
    # TVM takes the ratio of the sizes for the scale.
    exact = all(axis.scale == np.float32(axis.size) / np.float32(axis.length) for axis in changed)
    return exact and all(axis.axis > 1 for axis in changed)


def _axes(node: Node, kind: str) -> list[_Axis]:
    """The axes that are resized, in order."""
    old = node.shape()
    named = node.attribute("axes", None)
    axes = list(range(len(old))) if named is None else [node.checked_axis(a) for a in named]
    policy = node.choice("keep_aspect_ratio_policy", "stretch", "not_larger", "not_smaller")
    given = [
        value if value is not None and value.size else None
        for value in (node.optional(2, "scales"), node.optional(3, "sizes"))
    ]
    scales, wanted = given
    if (scales is None) == (wanted is None):
        node.refuse("it needs either scales or sizes; the file is not valid ONNX")
    region = _region(node, kind, len(axes))
    lengths = [old[axis] for axis in axes]
    numbers = scales if scales is not None else wanted
    assert numbers is not None
    if numbers.size != len(axes) or (numbers <= 0).any():
        node.refuse(f"scales or sizes {numbers.tolist()} for {len(axes)} axes: not valid ONNX")
    if wanted is not None:
        new = [int(size) for size in wanted]
        factors = [np.float32(b) / np.float32(a) for a, b in zip(lengths, new, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            new = [math.floor(float(factor) * length + 0.5) for length in lengths]
            factors = [factor] * len(axes)
    else:
        factors = [np.float32(scale) for scale in numbers]
        spans = [np.float32(1)] * len(axes)
        if kind == "tf_crop_and_resize":
            spans = [end - start for start, end in region]
        new = [
            math.floor(np.float32(length) * span * factor)
            for length, span, factor in zip(lengths, spans, factors, strict=True)
        ]
        fractional = any(
            np.float32(length) * factor != size
            for length, factor, size in zip(lengths, factors, new, strict=True)
        )
        if fractional and kind in ("align_corners", "tf_crop_and_resize"):
            node.refuse(
                f"{kind!r} with scales that give no whole sizes ({new} and a fraction) has "
                "no one meaning; give it sizes"
            )
    if min(new, default=1) < 1:
        node.refuse(f"it gives sizes {new}; use a larger resolution")
    resized = [
        _Axis(axis, length, size, np.float32(factor), *part)
        for axis, length, size, factor, part in zip(
            axes, lengths, new, factors, region, strict=True
        )
    ]
    if kind == "tf_crop_and_resize":
        return [axis for axis in resized if _is_changed(axis) or axis.start != 0 or axis.end != 1]
    return sorted(resized, key=lambda axis: axis.axis)


def _is_changed(axis: _Axis) -> bool:
    return axis.size != axis.length or axis.scale != 1


def _region(node: Node, kind: str, count: int) -> list[tuple[np.float32, np.float32]]:
    roi = node.optional(1, "region of interest") if node.has(1) else None
    if kind != "tf_crop_and_resize":
        return [(np.float32(0), np.float32(1))] * count
    if roi is None or roi.size != 2 * count:
        node.refuse("tf_crop_and_resize needs a region for each axis; the file is not valid ONNX")
    starts, ends = roi.astype(np.float32).reshape(2, count)
    return list(zip(starts, ends, strict=True))


def _nearest(rounding: str, at: Constant) -> Constant:
    down = np.floor(at)
    if rounding == "floor":
        places = down
    elif rounding == "ceil":
        places = np.ceil(at)
    elif rounding == "round_prefer_floor":
        places = np.where(at - down > np.float32(0.5), down + 1, down)
    else:
        places = np.where(at - down >= np.float32(0.5), down + 1, down)
    return places.astype(np.int64)


def _taps(
    mode: str, at: Constant, axis: _Axis, antialias: bool, exclude: bool, a: np.float32
) -> tuple[Constant, Constant]:
    """Places and weights (size, taps) of the elements that each new element is made of."""
    shrink = min(float(axis.scale), 1.0) if antialias else 1.0
    support = (1 if mode == "linear" else 2) / shrink
    first = np.floor(at).astype(np.int64)[:, None]
    reach = math.ceil(support)
    places = first + np.arange(1 - reach, reach + 1)
    distance = np.abs(places - at.astype(np.float64)[:, None]) * shrink
    weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, float(a))
    if exclude:
        weights = np.where((places < 0) | (places >= axis.length), 0, weights)
    weights = weights / weights.sum(axis=1, keepdims=True)
    places = places.clip(0, axis.length - 1)
    used = (weights != 0).any(axis=0)
    return places[:, used], weights[:, used].astype(np.float32)


def _cubic(distance: Constant, a: float) -> Constant:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _resampled(node: Node, x: Expr, axis: int, places: Constant, weights: Constant) -> Expr:
    """Each element of one axis is a weighted sum of old ones."""
    x = node.bind(x)
    old = shape_of(x)
    new = (*old[:axis], len(places), *old[axis + 1 :])

    def nest(tensor: te.Tensor, table: te.Tensor, factors: te.Tensor) -> te.Tensor:
        k = reduction(places.shape[1])

        def element(*place: Scalar) -> Scalar:
            at = index(table, place[axis], k)
            value = tensor(*place[:axis], at, *place[axis + 1 :])
            return te.sum(value * factors(place[axis], k), axis=[k])

        return te.compute(sizes(new), element, name="resample")

    return node.loops(
        nest, x, constant(places), constant(weights.astype(node.dtype())),
        name=named_by_axis("resample", old, axis),
    )  # fmt: skip


def _replaced(node: Node, x: Expr, axis: int, beyond: Constant, value: float) -> Expr:
    x = node.bind(x)
    return node.compute(
        shape_of(x),
        lambda tensors, *place: tirx.Select(
            tensors[1](place[axis]), tirx.const(value, tensors[0].dtype), tensors[0](*place)
        ),
        x, constant(beyond), name="replace",
    )  # fmt: skip
