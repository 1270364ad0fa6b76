"""The sizes of a file's inputs, fixed: a batch of one image, the height and width asked for."""

import onnx

from deploy.reading.text import plain
from deploy.resolution import Resolution
from lut.errors import UserError

_CHANNELS = (1, 3, 4)


def real_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs of a graph that are no weights; old files list these too."""
    constants = {t.name for t in graph.initializer} | {
        t.values.name for t in graph.sparse_initializer
    }
    return [value for value in graph.input if value.name not in constants]


def dynamic_sides(graph: onnx.GraphProto) -> tuple[bool, bool]:
    """Whether the height and the width of an image among the inputs are left open."""
    height = width = False
    for value in real_inputs(graph):
        dims = value.type.tensor_type.shape.dim
        sides = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
        axis = _height_axis(sides) if len(sides) == 4 else None
        if axis is not None:
            height, width = height or not sides[axis], width or not sides[axis + 1]
    return height, width


def fix_axes(model: onnx.ModelProto, resolution: Resolution | None) -> None:
    """Give every input of a file a static shape, in place.

    Raises UserError where height or width are dynamic and no resolution is given, where it says
    something else than the file, and for a batch of several images.
    """
    for value in real_inputs(model.graph):
        title = f"the input '{plain(value.name)}'"
        if not value.type.HasField("tensor_type"):
            raise UserError(f"{title} is no tensor; export the network with an image as its input")
        if not value.type.tensor_type.HasField("shape"):
            raise UserError(f"{title} has no shape; export the network with one")
        _fix(value.type.tensor_type.shape.dim, title, resolution)


def _fix(dims: list[onnx.TensorShapeProto.Dimension], title: str, asked: Resolution | None) -> None:
    sides = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    text = _text(dims)
    if any(side < 0 for side in sides):
        raise UserError(f"{title} has a negative size: {text}")
    if len(sides) != 4:
        if not all(sides):
            raise UserError(
                f"{title} is {text}: only an image of 4 axes, its batch and sizes, may be dynamic; "
                "export the network with a fixed shape"
            )
        return
    if sides[0] > 1:
        raise UserError(
            f"{title} is {text}: {sides[0]} images at once; export it with a batch of 1"
        )
    height = _height_axis(sides)
    if height is None and not all(sides[1:]):
        raise UserError(
            f"{title} is {text}: which axis has the channels cannot be seen; export the "
            "network with 1, 3 or 4 channels fixed"
        )
    dims[0].dim_value = 1
    if height is None:
        return
    for axis, name in ((height, "height"), (height + 1, "width")):
        side = asked[axis - height] if asked else 0
        if not sides[axis] and not asked:
            raise UserError(f"{title} is {text}: its {name} is dynamic; give --resolution HxW")
        if asked and sides[axis] not in (0, side):
            raise UserError(
                f"{title} is {text}: its {name} is fixed, {asked} is asked for: export the "
                "file again for that size, or leave --resolution out"
            )
        if not sides[axis]:
            dims[axis].dim_value = side


def _height_axis(sides: list[int]) -> int | None:
    """The axis of the height, by where the channels stand: second (NCHW) or last (NHWC)."""
    if sides[1] in _CHANNELS:
        return 2
    return 1 if sides[3] in _CHANNELS else None


def _text(dims: list[onnx.TensorShapeProto.Dimension]) -> str:
    sides = [
        str(d.dim_value) if d.HasField("dim_value") else plain(d.dim_param) or "?" for d in dims
    ]
    return f"({', '.join(sides[:9])})"
