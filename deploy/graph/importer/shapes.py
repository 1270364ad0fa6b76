"""Operators that move elements without choosing among them."""

import math
from collections.abc import Sequence

import numpy as np
from onnx import helper
from tvm import relax

from deploy.graph.importer.node import Constant, Expr, Node, Result, Value

_MOST = 1 << 26  # elements of a constant that a few bytes of a file ask for


def constant_value(node: Node) -> Constant:
    """The value that is an attribute."""
    for name in ("value_int", "value_ints", "value_float", "value_floats"):
        value = node.attribute(name, None)
        if value is not None:
            return np.array(value, np.int64 if "int" in name else np.float32)
    value = node.attribute("value", None)
    if not isinstance(value, np.ndarray):
        node.refuse("a constant that is text or sparse is not supported")
    return value


def constant_of_shape(node: Node) -> Constant:
    """One value everywhere."""
    shape = node.integers(0, "shape")
    value = node.attribute("value", np.zeros(1, np.float32))
    if math.prod(shape) > _MOST or min(shape, default=0) < 0:
        node.refuse(f"a constant of shape {shape} is not supported")
    return np.full(shape, value.reshape(()))


def constant_range(node: Node) -> Constant:
    """From a start by steps to a limit, which is not reached."""
    start, limit, step = (
        node.parameter(index, what) for index, what in enumerate(("start", "limit", "step"))
    )
    if not step or (float(limit) - float(start)) / float(step) > _MOST:
        node.refuse(f"a range from {start} to {limit} by {step} is not supported")
    count = max(math.ceil((limit - start) / step), 0)
    return (start + np.arange(count) * step).astype(start.dtype)


def eye_like(node: Node) -> Constant:
    """Ones on a diagonal, in the shape of the input."""
    said = node.attribute("dtype", None)
    dtype = node.dtype() if said is None else helper.tensor_dtype_to_np_dtype(said).name
    shape = node.shape()
    if len(shape) != 2 or math.prod(shape) > _MOST:
        node.refuse(f"a matrix of shape {shape} is not supported")
    return np.eye(*shape, k=node.attribute("k", 0)).astype(dtype)


def shape(node: Node) -> Constant:
    """The sizes of the input's axes, from `start` to `end`."""
    return np.array(
        node.shape()[slice(node.attribute("start", 0), node.attribute("end", None))], np.int64
    )


def size(node: Node) -> Constant:
    """How many elements the input has."""
    return np.array(math.prod(node.shape()), np.int64)


def identity(node: Node) -> Value:
    """The input."""
    return node.value(0)


def dropout(node: Node) -> Value:
    """The input: nothing is dropped where a network is not trained."""
    node.ignore("seed")
    if node.has(2) and node.parameter(2, "training_mode").any():
        node.refuse("it is in training mode; export the network with model.eval()")
    if any(node.outputs[1:]):
        node.refuse("its second output, the mask, is not supported; remove the node")
    return node.value(0)


def reshape(node: Node) -> Value:
    """0 keeps a size (without allowzero), -1 is what is left."""
    old, new = node.shape(), node.integers(1, "shape")
    if not node.attribute("allowzero", 0):
        if any(size == 0 and axis >= len(old) for axis, size in enumerate(new)):
            node.refuse(f"the shape {new} keeps a size that is not there; not valid ONNX")
        new = [size or old[axis] for axis, size in enumerate(new)]
    if -1 in new:
        rest = math.prod(size for size in new if size != -1)
        new[new.index(-1)] = math.prod(old) // rest if rest else 0
    return reshaped(node, new)


def flatten(node: Node) -> Value:
    """A matrix: the axes before `axis`, and those from it on."""
    rank, axis = len(node.shape()), node.attribute("axis", 1)
    if not -rank <= axis <= rank:
        node.refuse(f"axis {axis} of a tensor of {rank} axes; the file is not valid ONNX")
    axis += rank if axis < 0 else 0
    return reshaped(node, (math.prod(node.shape()[:axis]), math.prod(node.shape()[axis:])))


def squeeze(node: Node) -> Value:
    """Without axes of size 1: those that are named, or all."""
    sizes = node.shape()
    named = node.integers(1, "axes") if node.has(1) else node.attribute("axes", None)
    if named is None:
        named = [axis for axis, size in enumerate(sizes) if size == 1]
    axes = {node.checked_axis(axis) for axis in named}
    if any(sizes[axis] != 1 for axis in axes):
        node.refuse(f"axes {named} of shape {sizes} are not all 1; the file is not valid ONNX")
    return reshaped(node, [size for axis, size in enumerate(sizes) if axis not in axes])


def unsqueeze(node: Node) -> Value:
    """With axes of size 1, numbered as they are in the result."""
    named = node.integers(1, "axes") if node.has(1) else node.attribute("axes")
    rank = len(node.shape()) + len(named)
    axes = {node.checked_axis(axis, rank) for axis in named}
    if len(axes) < len(named):
        node.refuse(f"axes {named} name one twice; the file is not valid ONNX")
    old = iter(node.shape())
    return reshaped(node, [1 if axis in axes else next(old) for axis in range(rank)])


def reshaped(node: Node, shape: Sequence[int]) -> Value:
    """The first input in another shape."""
    if math.prod(shape) != math.prod(node.shape()):
        node.refuse(
            f"a tensor of shape {node.shape()} has no shape {tuple(shape)}; "
            "export the network for the resolution that it is compiled for"
        )
    if node.is_constant(0):
        return node.parameter(0, "data").reshape(shape)
    if tuple(shape) == node.shape():
        return node.tensor(0)
    return relax.op.reshape(node.tensor(0), tuple(shape))


def transpose(node: Node) -> Value:
    """Axes in another order, by default the reverse."""
    rank = len(node.shape())
    order = node.attribute("perm", None) or list(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        node.refuse(f"perm={order} of a tensor of {rank} axes; the file is not valid ONNX")
    if node.is_constant(0):
        return node.parameter(0, "data").transpose(order)
    return relax.op.permute_dims(node.tensor(0), list(order))


def concat(node: Node) -> Expr:
    """One behind the other on one axis."""
    axis, tensors = node.axis(), node.tensors()
    return relax.op.concat(tensors, axis) if len(tensors) > 1 else tensors[0]


def split(node: Node) -> Result:
    """Pieces of one axis: of the sizes that are named, or equal ones with a smaller last one."""
    axis, count = node.axis("axis", 0), len(node.outputs)
    total = node.shape()[axis]
    said = node.attribute("num_outputs", count)
    pieces = node.integers(1, "sizes") if node.has(1) else node.attribute("split", None)
    if pieces is None:
        piece = -(-total // said)
        pieces = [min(piece, total - piece * number) for number in range(said)]
    if len(pieces) != count or sum(pieces) != total or min(pieces) < 1:
        node.refuse(f"pieces of {pieces} of {total} elements in {count} outputs; not valid ONNX")
    ends = np.cumsum(pieces).tolist()
    if count == 1:
        return node.tensor(0)
    x = node.tensor(0)
    return [
        relax.op.strided_slice(x, [axis], [end - piece], [end])
        for end, piece in zip(ends, pieces, strict=True)
    ]


def expand(node: Node) -> Expr:
    """Broadcast with a shape, in both directions."""
    wanted = node.integers(1, "shape")
    try:
        shape = np.broadcast_shapes(node.shape(), tuple(wanted))
    except ValueError:
        node.refuse(f"a tensor of shape {node.shape()} does not fit {wanted}; not valid ONNX")
    if math.prod(shape) > max(_MOST, 16 * math.prod(node.shape())):
        node.refuse(f"a tensor of shape {shape} is too large")
    if shape == node.shape():
        return node.tensor(0)
    return relax.op.broadcast_to(node.tensor(0), shape)


def tile(node: Node) -> Expr:
    """Repeated along each axis."""
    repeats = node.integers(1, "repeats")
    if len(repeats) != len(node.shape()):
        node.refuse(f"repeats {repeats} for {len(node.shape())} axes; the file is not valid ONNX")
    old = node.shape()
    return node.compute(
        [size * times for size, times in zip(old, repeats, strict=True)],
        lambda tensors, *place: tensors[0](
            *(
                at % size if times > 1 else at
                for at, size, times in zip(place, old, repeats, strict=True)
            )
        ),
        node.tensor(0),
    )


def depth_to_space(node: Node) -> Expr:
    """Channels to blocks of the map: the block's place first (DCR), or last (CRD)."""
    block = node.attribute("blocksize")
    n, c, h, w = _map(node)
    if c % block**2:
        node.refuse(f"{c} channels are no blocks of {block}x{block}; the file is not valid ONNX")
    if node.choice("mode", "DCR", "CRD") == "DCR":
        parts, order = (n, block, block, c // block**2, h, w), [0, 3, 4, 1, 5, 2]
    else:
        parts, order = (n, c // block**2, block, block, h, w), [0, 1, 4, 2, 5, 3]
    return _moved(node, parts, order, (n, c // block**2, h * block, w * block))


def space_to_depth(node: Node) -> Expr:
    """Blocks of the map to channels, the block's place first (DCR), or last (CRD)."""
    block = node.attribute("blocksize")
    n, c, h, w = _map(node)
    if h % block or w % block:
        node.refuse(f"a map {h}x{w} is no blocks of {block}x{block}; the file is not valid ONNX")
    parts = (n, c, h // block, block, w // block, block)
    order = [0, 3, 5, 1, 2, 4]
    if node.choice("mode", "DCR", "CRD") == "CRD":
        order = [0, 1, 3, 5, 2, 4]
    return _moved(node, parts, order, (n, c * block**2, h // block, w // block))


def _map(node: Node) -> tuple[int, int, int, int]:
    if len(node.shape()) != 4:
        node.refuse(f"an input of shape {node.shape()} is no map; the file is not valid ONNX")
    n, c, h, w = node.shape()
    return n, c, h, w


def _moved(node: Node, parts: Sequence[int], order: Sequence[int], shape: Sequence[int]) -> Expr:
    split_up = relax.op.reshape(node.tensor(0), tuple(parts))
    return relax.op.reshape(relax.op.permute_dims(split_up, list(order)), tuple(shape))
