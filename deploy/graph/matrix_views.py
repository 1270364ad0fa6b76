"""Products of matrices whose elements maps have: written in one form, which matchers know."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tvm import relax

from deploy.graph.orders import Atom, Grid, Heads, Order, joined, tidy, without
from deploy.graph.scores import Scores
from deploy.graph.view import shape_of
from lut.ops import Shape

Emit = Callable[[relax.Expr], relax.Var]


@dataclass(frozen=True)
class View:
    """A tensor that has a map's elements in another order."""

    map: relax.Var  # of the new function
    order: Order

    @property
    def channels(self) -> int:
        """Of the map."""
        return shape_of(self.map)[1]

    @property
    def plane(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return shape_of(self.map)[2:]  # type: ignore[return-value]

    @property
    def pixels(self) -> int:
        """Of the map."""
        return math.prod(self.plane)

    def exchanged(self) -> "View":
        """With its last two axes exchanged."""
        return View(self.map, (*self.order[:-2], self.order[-1], self.order[-2]))

    def heads(self, row: int, column: int) -> Heads | None:
        """As matrices of pixels and channels, on these axes."""
        return Heads.found(self.order, (self.channels, *self.plane), row, column)


def ordered(emit: Emit, view: View, shape: Sequence[int]) -> relax.Var:
    """The tensor of this shape that a view is of."""
    atoms = [atom for axis in view.order for atom in axis]
    stored = sorted(atoms, key=lambda atom: (atom.kind, -atom.step))
    value = emit(relax.op.reshape(view.map, [atom.size for atom in stored] or [1]))
    if stored != atoms:
        value = emit(relax.op.permute_dims(value, [stored.index(atom) for atom in atoms]))
    return emit(relax.op.reshape(value, tuple(shape)))


def map_of_tensor(emit: Emit, tensor: relax.Expr, order: Order, shape: Shape) -> relax.Var:
    """The map of this shape whose elements a tensor has in this order."""
    atoms = [atom for axis in order for atom in axis]
    stored = sorted(atoms, key=lambda atom: (atom.kind, -atom.step))
    value = emit(relax.op.reshape(tensor, [atom.size for atom in atoms] or [1]))
    if stored != atoms:
        value = emit(relax.op.permute_dims(value, [atoms.index(atom) for atom in stored]))
    return emit(relax.op.reshape(value, (1, *shape)))


def attention(emit: Emit, scores: Scores, q: View, k: View, v: View) -> View | None:
    """softmax([scale *] q k [+ bias]) v of heads, of all pixels or of each group of a grid."""
    last = len(q.order) - 1
    of_q, of_k, of_v = q.heads(last - 1, last), k.heads(last, last - 1), v.heads(last - 1, last)
    if of_q is None or of_k is None or of_v is None:
        return None
    # The keys' order is no matter, but is one.
    if not _same_batches(q, k) or not _same_batches(k, v) or k.order[last] != v.order[last - 1]:
        return None
    if not of_q.grid == of_k.grid == of_v.grid or of_q.heads != of_v.heads:
        return None
    bias = None
    if scores.bias is not None:
        kinds = [atom.kind for axis in q.order[: last - 1] for atom in axis]
        if kinds == sorted(kinds, reverse=True):  # groups, then heads
            bias = scores.bias.of(of_q.grid.count, of_q.heads)
        if bias is None:
            return None
    product = emit(relax.op.matmul(_matrices(emit, q, of_q), _matrices(emit, k, of_k, turned=True)))
    if scores.scale != 1:
        product = emit(relax.op.multiply(product, relax.const(scores.scale, "float32")))
    if bias is not None:
        product = emit(relax.op.add(product, relax.const(bias)))
    weights = emit(relax.op.nn.softmax(product, axis=-1))
    mixed = emit(relax.op.matmul(weights, _matrices(emit, v, of_v)))
    result = map_of_tensor(emit, mixed, of_v.order(*q.plane), (v.channels, *q.plane))
    batch = _batch_of(q, of_q, of_v.width)
    return View(result, tidy([*batch, q.order[last - 1], (Atom("C", of_v.width, 1),)]))


def product(emit: Emit, a: View, b: View) -> View | None:
    """The product of the matrices of each head, (*heads, rows, inner) x (*heads, inner, columns):
    as it is, or both sides exchanged and turned, whichever gives a map of more pixels or, where
    rows are channels, of more channels."""
    last = len(a.order) - 1
    if len(b.order) != last + 1 or last < 1 or not _same_batches(a, b):
        return None
    straight = _Factor.found(a, last - 1, last), _Factor.found(b, last - 1, last)
    left, right = straight
    if left is None or right is None:
        return None
    exchanged = left.turned and right.turned
    if not exchanged and left.turned != right.turned:
        # Either way one side is turned.
        rows, columns = left.size(down=True), right.size(down=False)
        exchanged = columns < rows if left.turned else columns > rows
    if exchanged:
        # (a b)^T = b^T a^T; what was turned no longer is.
        left, right = right.other(), left.other()
    if not _contracted(left, right):
        return None
    rows, columns = left.size(down=True), right.size(down=False)
    heads = left.matrices.heads
    factors = (
        _matrices(emit, side.view, side.matrices, turned=side.turned) for side in (left, right)
    )
    mixed = emit(relax.op.matmul(*factors))
    plane = (rows, 1) if left.turned else left.view.plane
    of_result = Heads(heads, columns, Grid())
    result = map_of_tensor(emit, mixed, of_result.order(*plane), (heads * columns, *plane))
    down = joined([Atom("P", rows, 1)]) if left.turned else left.pixels
    axes = [down, joined([Atom("C", columns, 1)])]
    batch = _batch_of(left.view, left.matrices, columns)
    return View(result, tidy([*batch, *(axes[::-1] if exchanged else axes)]))


@dataclass(frozen=True)
class _Factor:
    """One side: a map as matrices of pixels down and channels along, or `turned`."""

    view: View
    matrices: Heads
    turned: bool
    pixels: tuple[Atom, ...]  # the axis of those

    @staticmethod
    def found(view: View, down: int, along: int) -> "_Factor | None":
        for turned, (row, column) in enumerate(((down, along), (along, down))):
            matrices = view.heads(row, column)
            if matrices is not None and matrices.grid.count == 1:
                return _Factor(view, matrices, bool(turned), view.order[row])
        return None

    def other(self) -> "_Factor":
        """Its transpose."""
        return _Factor(self.view, self.matrices, not self.turned, self.pixels)

    def size(self, *, down: bool) -> int:
        return self.matrices.width if down == self.turned else self.view.pixels


def _contracted(left: _Factor, right: _Factor) -> bool:
    """Whether the sums go over the same elements in the same order, and columns that become
    channels are pixels in their own order."""
    if left.matrices.heads != right.matrices.heads:
        return False
    if left.size(down=False) != right.size(down=True):
        return False
    natural = joined([Atom("P", right.view.pixels, 1)])
    if left.turned and not right.turned:  # pixels with pixels
        return left.pixels == right.pixels
    return right.pixels == natural


def _same_batches(a: View, b: View) -> bool:
    sizes = [
        [[(atom.kind, atom.size) for atom in axis] for axis in view.order[:-2]] for view in (a, b)
    ]
    return sizes[0] == sizes[1]


def _batch_of(view: View, heads: Heads, width: int) -> list[list[Atom]]:
    """The axes of groups and heads, of heads so wide."""
    return [
        [a if a.kind == "P" else Atom("C", a.size, a.step // heads.width * width) for a in axis]
        for axis in view.order[:-2]
    ]


def _matrices(emit: Emit, view: View, heads: Heads, *, turned: bool = False) -> relax.Var:
    """(groups, heads, pixels, channels), or (groups, heads, channels, pixels)."""
    order = heads.order(*view.plane, turned=turned)
    return ordered(emit, View(view.map, order), [_size(axis) for axis in order])


def total_over_pixels(emit: Emit, view: View, axis: int) -> View | None:
    """The sums along an axis that goes through all pixels, kept with size one."""
    if _size(view.order[axis]) != view.pixels or any(a.kind != "P" for a in view.order[axis]):
        return None
    mean = emit(relax.op.mean(view.map, axis=[2, 3], keepdims=True))
    total = emit(relax.op.multiply(mean, relax.const(float(view.pixels), "float32")))
    return View(total, without(view.order, "P"))


def spread(emit: Emit, view: View, order: Order) -> View | None:
    """A view of this order, of a map whose channels each stand for as many neighbouring ones."""
    wanted = sum(_size([a for a in axis if a.kind == "C"]) > 1 for axis in order)
    channels = math.prod(a.size for axis in order for a in axis if a.kind == "C")
    if channels % view.channels or not wanted:
        return None
    each = channels // view.channels
    fewer = tidy(
        [
            [Atom("C", a.size, a.step // each) if a.kind == "C" else a for a in axis
             if a.kind == "P" or a.step >= each]
            for axis in order
        ]
    )  # fmt: skip
    if fewer != view.order or each == 1:
        return None
    weight = np.repeat(np.eye(view.channels, dtype=np.float32), each, axis=0)
    wide = emit(relax.op.nn.conv2d(view.map, relax.const(weight[..., None, None])))
    return View(wide, order)


def _size(axis: Sequence[Atom]) -> int:
    return math.prod(atom.size for atom in axis)
