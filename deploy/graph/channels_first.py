"""ChannelsFirst: what works on tokens, (1, pixels, channels), or on (1, H, W, C), works on maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.view import Array, Graph, shape_of

Places = NDArray[np.int64]  # of channels
_UNARY = frozenset(
    f"relax.{name}"
    for name in (
        "abs", "clip", "erf", "exp", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu",
        "nn.relu", "nn.relu6", "nn.silu", "rsqrt", "sigmoid", "sqrt", "square", "tanh",
    )
)  # fmt: skip
_BINARY = frozenset(
    f"relax.{name}"
    for name in ("add", "divide", "maximum", "minimum", "multiply", "power", "subtract")
)

_WORTH_A_COPY = 32  # of rows, channels and columns of a product, the fewest
_EITHER_ORDER = frozenset(("relax.add", "relax.multiply"))

# Which method of the mutator knows an operator.
_RULES = {
    **dict.fromkeys(_UNARY, "unary"),
    **dict.fromkeys(_BINARY, "binary"),
    "relax.matmul": "product",
    "relax.mean": "mean",
    "relax.permute_dims": "permute",
    "relax.reshape": "reshape",
    "relax.strided_slice": "slice",
}


@tvm.transform.module_pass(opt_level=0, name="ChannelsFirst")
class ChannelsFirst:
    """Compute on maps (1, C, H, W) what the graph computes on their elements in another order.

    Before: ``permute_dims`` and ``reshape`` from maps to tokens, products with constant matrices,
    elementwise operators, means over channels and attention on those, and back. After: the same on
    the maps: a product with a matrix is a 1x1 convolution, of whose output only the channels that a
    slice takes are computed; attention has the one form that `deploy.graph.match.attention` knows.
    The order of elements is followed by arithmetic on sizes (`Order`), and made by ``permute_dims``
    only where an operator that is not known here reads it. Runs first, before kernels are placed.
    """

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        mutator = _Mutator(module)
        function = mutator.visit_expr(module["main"])
        mutator.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(mutator.builder_.get())


class Atom(NamedTuple):
    """A part of an axis: it counts through `size` channels ("C") or pixels ("P"), `step` apart."""

    kind: str
    size: int
    step: int


Axis = tuple[Atom, ...]
Order = tuple[Axis, ...]  # of a tensor's axes, outermost atom first


@dataclass(frozen=True)
class _View:
    """A tensor that has a map's elements in another order."""

    map: relax.Var  # of the new function
    order: Order

    @property
    def channels(self) -> int:
        return shape_of(self.map)[1]

    @property
    def plane(self) -> tuple[int, int]:
        return shape_of(self.map)[2:]  # type: ignore[return-value]

    @property
    def pixels(self) -> int:
        return math.prod(self.plane)


def order_of_map(channels: int, height: int, width: int) -> Order:
    """Of the map itself."""
    return tidy(
        [(), (Atom("C", channels, 1),), (Atom("P", height, width),), (Atom("P", width, 1),)]
    )


def tidy(axes: Sequence[Sequence[Atom]]) -> Order:
    """The one way to write an order: no atom of size 1, and none that could be joined."""
    return tuple(map(_joined, axes))


def _joined(atoms: Sequence[Atom]) -> Axis:
    joined: list[Atom] = []
    for atom in atoms:
        last = joined[-1] if joined else None
        if atom.size == 1:
            continue
        if last and last.kind == atom.kind and last.step == atom.size * atom.step:
            joined[-1] = Atom(atom.kind, last.size * atom.size, atom.step)
        else:
            joined.append(atom)
    return tuple(joined)


def reshaped(order: Order, shape: Sequence[int]) -> Order | None:
    """The order after a reshape; None where an axis would end within an atom that has no such
    factor."""
    todo = [atom for axis in order for atom in axis][::-1]
    axes: list[list[Atom]] = []
    for size in shape:
        axis: list[Atom] = []
        while size > 1:
            if not todo:
                return None
            atom = todo.pop()
            if size % atom.size == 0:
                axis.append(atom)
                size //= atom.size
            elif atom.size % size == 0:
                rest = atom.size // size
                axis.append(Atom(atom.kind, size, rest * atom.step))
                todo.append(Atom(atom.kind, rest, atom.step))
                size = 1
            else:
                return None
        axes.append(axis)
    return None if todo else tidy(axes)


def without(order: Order, kind: str) -> Order:
    """The same axes without the atoms of a kind."""
    return tuple(tuple(atom for atom in axis if atom.kind != kind) for axis in order)


@relax.expr_functor.mutator
class _Mutator(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.graph = Graph(module["main"])
        self.views: dict[relax.Var, _View] = {}  # by the old function's variables
        self.written: dict[relax.Var, relax.Expr] = {}  # what this pass bound
        # Some channels of maps, by the map and which ones they are.
        self.picked: dict[tuple[relax.Var, bytes], relax.Var] = {}
        self.planar: dict[relax.Var, relax.Var] = {}  # tensors made from views
        self.origins: dict[relax.Var, relax.Var] = {}  # of maps: the first that was one, before
        self.copies: dict[relax.Var, _View] = {}  # of tensors that were no views

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Write a binding on maps, or as it was."""
        view = self._as_view(binding.var, binding.value)
        if view is not None:
            self.views[binding.var] = view
            self.origins.setdefault(view.map, binding.var)
            return
        for var in relax.analysis.free_vars(binding.value):
            if var in self.views:
                self.set_var_remap(var, self._tensor(var))
        super().visit_var_binding_(binding)

    def _tensor(self, var: relax.Var) -> relax.Var:
        """The elements of a view in its own order."""
        if var not in self.planar:
            self.planar[var] = self._ordered(self.views[var], shape_of(var))
        return self.planar[var]

    def _ordered(self, view: _View, shape: tuple[int, ...]) -> relax.Var:
        if shape == shape_of(view.map) and view.order == order_of_map(*shape[1:]):
            return view.map
        atoms = [atom for axis in view.order for atom in axis]
        stored = sorted(atoms, key=lambda atom: (atom.kind, -atom.step))
        value = self.builder_.emit(
            relax.op.reshape(view.map, [atom.size for atom in stored] or [1])
        )
        if stored != atoms:
            places = [stored.index(atom) for atom in atoms]
            value = self.builder_.emit(relax.op.permute_dims(value, places))
        return self.builder_.emit(relax.op.reshape(value, shape))

    def _emit(self, call: relax.Expr) -> relax.Var:
        var = self.builder_.emit(call)
        self.written[var] = call
        return var

    def _view(self, expr: Any) -> _View | None:  # noqa: ANN401 - an Expr
        """The view that a value is; a map is one of itself, but for a parameter."""
        if expr in self.views:
            return self.views[expr]
        shape = getattr(expr.ty, "shape", None) if isinstance(expr, relax.Var) else None
        if shape is None or len(shape) != 4 or str(expr.ty.dtype) != "float32":
            return None
        if shape_of(expr)[0] != 1 or self.graph.definition(expr) is None:
            return None
        return _View(self.visit_expr(expr), order_of_map(*shape_of(expr)[1:]))

    def _as_view(self, var: relax.Var, value: relax.Expr) -> _View | None:
        if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
            return None
        name = str(value.op.name)
        rule = _RULES.get(name)
        if rule is None or str(var.ty.dtype) != "float32" or self.graph.is_result(var):
            return None
        # What reads maps as they are stays as it is.
        moves = name in ("relax.permute_dims", "relax.reshape", "relax.matmul")
        operands = [arg for arg in value.args if isinstance(arg, relax.Var)]
        if not moves and not any(arg in self.views for arg in operands):
            return None
        view: _View | None = getattr(self, rule)(var, value)
        return view

    # The rules.

    def permute(self, var: relax.Var, call: relax.Call) -> _View | None:
        view = self._view(call.args[0])
        if view is None:
            return None
        rank = len(shape_of(var))
        axes = call.attrs.axes
        order = [int(a) % rank for a in axes] if axes is not None else list(range(rank))[::-1]
        return _View(view.map, tuple(view.order[axis] for axis in order))

    def reshape(self, var: relax.Var, call: relax.Call) -> _View | None:
        view = self._view(call.args[0])
        order = None if view is None else reshaped(view.order, shape_of(var))
        return None if view is None or order is None else _View(view.map, order)

    def unary(self, var: relax.Var, call: relax.Call) -> _View | None:
        del var
        view = self._view(call.args[0])
        if view is None:
            return None
        return _View(
            self._emit(relax.Call(call.op, [view.map, *call.args[1:]], call.attrs)), view.order
        )

    def binary(self, var: relax.Var, call: relax.Call) -> _View | None:
        shape = shape_of(var)
        constants = [self.graph.constant(arg) for arg in call.args]
        views = [
            self._view(arg) if value is None else None
            for arg, value in zip(call.args, constants, strict=True)
        ]
        base = max((view for view in views if view is not None), key=_elements, default=None)
        if base is None or _size(base.order) != math.prod(shape):
            return None
        operands = []
        for view, value in zip(views, constants, strict=True):
            if value is not None:
                value = _constant_on(base, value, shape)
                operands.append(None if value is None else relax.const(value))
            elif view is None or not _fits(view, base):
                return None
            else:
                operands.append(view.map)
        if any(operand is None for operand in operands):
            return None
        if call.op.name in _EITHER_ORDER and constants[0] is not None:
            operands = operands[::-1]  # a bias stands behind what it is added to
        return _View(self._emit(relax.Call(call.op, operands, call.attrs)), base.order)

    def mean(self, var: relax.Var, call: relax.Call) -> _View | None:
        """Over all channels and nothing else."""
        view = self._view(call.args[0])
        if view is None or not bool(call.attrs.keepdims) or call.attrs.axis is None:
            return None
        axes = {int(axis) % len(view.order) for axis in call.attrs.axis}
        gone = [atom for axis in axes for atom in view.order[axis]]
        left = [a for i, axis in enumerate(view.order) if i not in axes for a in axis]
        if any(a.kind == "P" for a in gone) or any(a.kind == "C" for a in left):
            return None
        del var
        mean = self._emit(relax.op.mean(view.map, axis=[1], keepdims=True))
        return _View(mean, without(view.order, "C"))

    def slice(self, var: relax.Var, call: relax.Call) -> _View | None:
        """Of channels alone."""
        view = self._view(call.args[0])
        if view is None or len(call.args) not in (4, 5):
            return None
        named, begins, ends, *strides = (
            [int(v.value) for v in arg.fields] for arg in call.args[1:]
        )
        if any(stride != 1 for stride in (strides[0] if strides else [])):
            return None
        channels: Places = np.arange(view.channels, dtype=np.int64)
        order = list(view.order)
        for axis, begin, end in zip(named, begins, ends, strict=True):
            atoms = view.order[axis]
            if any(atom.kind == "P" for atom in atoms) or len(atoms) != 1:
                return None
            atom = atoms[0]
            begin, end = (v + atom.size if v < 0 else min(v, atom.size) for v in (begin, end))
            place = channels // atom.step % atom.size
            channels = channels[(place >= begin) & (place < end)]
            order[axis] = (Atom("C", end - begin, atom.step),)
        picked = self._channels(view.map, channels)
        # Channels that are left lie closer together.
        kept = sorted({a for axis in order for a in axis if a.kind == "C"}, key=lambda a: a.step)
        steps, step = {}, 1
        for atom in kept:
            steps[atom] = step
            step *= atom.size
        if step != len(channels):
            return None
        closer = [
            [Atom("C", a.size, steps[a]) if a.kind == "C" else a for a in axis] for axis in order
        ]
        del var
        return _View(picked, tidy(closer))

    def _channels(self, value: relax.Var, channels: Places) -> relax.Var:
        """Some channels of a map: computed alone, where that is possible."""
        key = value, channels.tobytes()
        if key not in self.picked:
            self.picked[key] = self._pick(value, channels)
        return self.picked[key]

    def _pick(self, value: relax.Var, channels: Places) -> relax.Var:
        call: Any = self.written.get(value) if self._cut_alone(value) else None
        name = str(call.op.name) if call is not None else ""
        if name == "relax.nn.conv2d":
            weight = call.args[1].value.numpy()[channels]
            return self._emit(_pointwise(call.args[0], weight))
        if name in _UNARY or name in _BINARY:
            args = [self._part(arg, channels) for arg in call.args]
            return self._emit(relax.Call(call.op, args, call.attrs))
        first, last = int(channels[0]), int(channels[-1])
        if last - first + 1 == len(channels):
            return self._emit(relax.op.strided_slice(value, [1], [first], [last + 1]))
        return self._emit(relax.op.take(value, relax.const(channels.astype("int64")), axis=1))

    def _cut_alone(self, value: relax.Var) -> bool:
        """Whether a map has one reader, or slices alone: who computes its parts apart does nothing
        twice."""
        todo = [self.origins[value]] if value in self.origins else []
        readers: list[relax.Var] = []
        while todo:
            for reader in self.graph.readers(todo.pop()):
                moved = self.graph.call(reader, "relax.permute_dims", "relax.reshape")
                (readers if moved is None else todo).append(reader)
        cuts = [self.graph.call(reader, "relax.strided_slice") is not None for reader in readers]
        return len(readers) <= 1 or all(cuts)

    def _part(self, arg: relax.Expr, channels: Places) -> relax.Expr:
        if isinstance(arg, tvm.ir.GenericConst):
            value = arg.value.numpy()
            whole = value.ndim < 4 or value.shape[1] == 1
            return arg if whole else relax.const(value[:, channels])
        if isinstance(arg, relax.Var) and shape_of(arg)[1] > 1:
            return self._channels(arg, channels)
        return arg

    def product(self, var: relax.Var, call: relax.Call) -> _View | None:
        weight = self.graph.constant(call.args[1])
        if weight is None:
            return self._attention(var, call)
        view = self._view(call.args[0]) if weight.ndim == 2 else None
        if weight.ndim == 2 and (view is None or view.order[-1] != _all_channels(view)):
            view = self._copied(call.args[0], weight.shape[1])
        if view is None:
            return None
        result = self._emit(_pointwise(view.map, weight.T[..., None, None]))
        return _View(result, tidy([*view.order[:-1], (Atom("C", weight.shape[1], 1),)]))

    def _copied(self, tensor: relax.Expr, cout: int) -> _View | None:
        """A tensor (..., C) that is no view, such as tokens of several windows, as a map, copied
        once for all that read it; None where a product with so many columns is not worth that."""
        if tensor in self.copies:
            return self.copies[tensor]
        shape = shape_of(tensor)
        sizes = (math.prod(shape[:-1]), shape[-1], cout)
        if len(shape) < 2 or min(sizes) < _WORTH_A_COPY or not isinstance(tensor, relax.Var):
            return None
        known = tensor in self.views or tensor in self.planar
        planar = self._tensor(tensor) if known else self.visit_expr(tensor)
        emit = self.builder_.emit
        plane = math.prod(shape[:-2]), shape[-2]
        lines = emit(relax.op.reshape(planar, (1, *plane, shape[-1])))
        copied = emit(relax.op.permute_dims(lines, [0, 3, 1, 2]))
        order = reshaped(((), (Atom("P", math.prod(plane), 1),), (Atom("C", shape[-1], 1),)), shape)
        assert order is not None  # an axis of pixels may be cut anywhere
        self.copies[tensor] = _View(copied, order)
        return self.copies[tensor]

    def _attention(self, var: relax.Var, call: relax.Call) -> _View | None:
        """softmax([scale *] q k) v, of heads whose channels lie together."""
        softmax = self.graph.call(call.args[0], "relax.nn.softmax")
        if (
            softmax is None
            or int(softmax.attrs.axis) % len(shape_of(var)) != len(shape_of(var)) - 1
        ):
            return None
        scores, scale = _scaled(self.graph, softmax.args[0])
        product = self.graph.call(scores, "relax.matmul")
        if product is None:
            return None
        q, k, v = (self._view(arg) for arg in (*product.args, call.args[1]))
        if q is None or k is None or v is None:
            return None
        batch = shape_of(var)[:-2]
        if not batch == shape_of(product.args[0])[:-2] == shape_of(product.args[1])[:-2]:
            return None
        heads, last = math.prod(batch), len(batch) + 1
        parts = [(q, last - 1, last), (k, last, last - 1), (v, last - 1, last)]
        if any(not _is_heads(view, heads, row, column) for view, row, column in parts):
            return None
        if k.order[last] != v.order[last - 1]:  # the keys' order is no matter, but is one
            return None
        result = self._heads(q, k, v, heads, scale)
        width = v.channels // heads
        axes = [(Atom("C", size, width),) if size > 1 else () for size in batch]
        if sum(size > 1 for size in batch) > 1:
            return None
        return _View(result, tidy([*axes, q.order[last - 1], (Atom("C", width, 1),)]))

    def _heads(self, q: _View, k: _View, v: _View, heads: int, scale: float) -> relax.Var:
        """Attention as the matcher knows it, of planar maps."""

        def split_up(view: _View, *, turned: bool) -> relax.Var:
            shape = (1, heads, view.channels // heads, view.pixels)
            value = self.builder_.emit(relax.op.reshape(view.map, shape))
            return (
                self.builder_.emit(relax.op.permute_dims(value, [0, 1, 3, 2])) if turned else value
            )

        emit = self.builder_.emit
        scores = emit(relax.op.matmul(split_up(q, turned=True), split_up(k, turned=False)))
        if scale != 1:
            scores = emit(relax.op.multiply(scores, relax.const(scale, "float32")))
        weights = emit(relax.op.nn.softmax(scores, axis=-1))
        mixed = emit(relax.op.matmul(weights, split_up(v, turned=True)))
        mixed = emit(relax.op.permute_dims(mixed, [0, 1, 3, 2]))
        return self._emit(relax.op.reshape(mixed, (1, v.channels, *q.plane)))


def _scaled(graph: Graph, var: relax.Expr) -> tuple[relax.Expr, float]:
    """What is multiplied by a number, and the number; 1 for anything else."""
    call = graph.call(var, "relax.multiply", "relax.divide")
    for turned in (False, True) if call is not None else ():
        value, other = call.args[::-1] if turned else call.args
        number = graph.constant(other)
        if number is not None and number.size == 1 and isinstance(value, relax.Var):
            if call.op.name == "relax.multiply":
                return value, float(number.item())
            if not turned and number.item():
                return value, 1 / float(number.item())
    return var, 1.0


def _is_heads(view: _View, heads: int, row: int, column: int) -> bool:
    """Whether a view is a matrix for each head: all pixels, and the head's channels."""
    width = view.channels // heads
    before = _joined([atom for axis in view.order[: min(row, column)] for atom in axis])
    return (
        max(row, column) == len(view.order) - 1
        and view.channels == heads * width
        and before == _joined([Atom("C", heads, width)])
        and view.order[column] == _joined([Atom("C", width, 1)])
        and all(atom.kind == "P" for atom in view.order[row])
    )


def _all_channels(view: _View) -> Axis:
    return _joined([Atom("C", view.channels, 1)])


def _size(order: Order) -> int:
    return math.prod(atom.size for axis in order for atom in axis)


def _elements(view: _View) -> int:
    return view.channels * view.pixels


def _fits(view: _View, base: _View) -> bool:
    """Whether a map can be an operand beside a larger one, broadcast over channels or pixels."""
    if len(view.order) != len(base.order):
        return False
    order = base.order
    if view.channels == 1:
        order = without(order, "C")
    elif view.channels != base.channels:
        return False
    if view.plane == (1, 1):
        order = without(order, "P")
    elif view.plane != base.plane:
        return False
    return view.order == order


def _constant_on(base: _View, value: Array, shape: tuple[int, ...]) -> Array | None:
    """A constant that is broadcast to a view's shape, as its map is: one number, one for each
    channel, or for each element."""
    if value.size == 1:
        return value.reshape(())
    value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
    whole = any(
        size > 1 and any(atom.kind == "P" for atom in axis)
        for size, axis in zip(value.shape, base.order, strict=True)
    )
    sizes: list[int] = []
    for size, axis in zip(shape, base.order, strict=True):
        parts = [atom.size if whole or atom.kind == "C" else 1 for atom in axis]
        sizes.append(math.prod(parts))
        del size
    value = np.broadcast_to(value, sizes)
    atoms = [atom for axis in base.order for atom in axis if whole or atom.kind == "C"]
    value = value.reshape([atom.size for atom in atoms])
    stored = sorted(range(len(atoms)), key=lambda i: (atoms[i].kind, -atoms[i].step))
    plane = base.plane if whole else (1, 1)
    return np.ascontiguousarray(value.transpose(stored)).reshape(1, base.channels, *plane)


def _pointwise(value: relax.Expr, weight: Array) -> relax.Expr:
    """A 1x1 convolution."""
    return relax.op.nn.conv2d(value, relax.const(np.ascontiguousarray(weight)))
