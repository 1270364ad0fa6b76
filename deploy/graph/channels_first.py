"""ChannelsFirst: what works on tokens, (1, pixels, channels), or on (1, H, W, C), works on maps."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.orders import (
    Atom,
    Axis,
    Heads,
    Order,
    joined,
    order_of_map,
    reshaped,
    tidy,
    turned,
    without,
)
from deploy.graph.scores import scores_of
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
        del var
        view = self._view(call.args[0])
        if view is None:
            return None
        axes = call.attrs.axes
        order = turned(view.order, None if axes is None else [int(axis) for axis in axes])
        return _View(view.map, order)

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
        """softmax([scale *] q k [+ bias]) v of heads, of all pixels or of each group of a grid."""
        scores = scores_of(self.graph, call.args[0])
        if scores is None:
            return None
        q, k, v = (self._view(arg) for arg in (*scores.factors, call.args[1]))
        last = len(shape_of(var)) - 1
        if q is None or k is None or v is None:
            return None
        matrices = [
            Heads.found(view.order, shape_of(view.map)[1:], row, last - 1 + last - row)
            for view, row in ((q, last - 1), (k, last), (v, last - 1))
        ]
        of_q, of_k, of_v = matrices
        if of_q is None or of_k is None or of_v is None:
            return None
        batches = [
            [[(atom.kind, atom.size) for atom in axis] for axis in view.order[: last - 1]]
            for view in (q, k, v)
        ]
        # The keys' order is no matter, but is one.
        if batches[1:] != batches[:-1] or k.order[last] != v.order[last - 1]:
            return None
        if not of_q.grid == of_k.grid == of_v.grid or of_q.heads != of_v.heads:
            return None
        bias = None
        if scores.bias is not None:
            kinds = [kind for axis in batches[0] for kind, _ in axis]
            bias = scores.bias.of(of_q.grid.count, of_q.heads) if kinds != ["C", "P"] else None
            if bias is None:
                return None
        emit = self.builder_.emit
        product = emit(
            relax.op.matmul(self._matrices(q, of_q), self._matrices(k, of_k, turned=True))
        )
        if scores.scale != 1:
            product = emit(relax.op.multiply(product, relax.const(scores.scale, "float32")))
        if bias is not None:
            product = emit(relax.op.add(product, relax.const(bias)))
        weights = emit(relax.op.nn.softmax(product, axis=-1))
        mixed = emit(relax.op.matmul(weights, self._matrices(v, of_v)))
        order = of_v.order(*q.plane)
        result = self._map_of(mixed, order, (v.channels, *q.plane))
        batch = [
            [a if a.kind == "P" else Atom("C", a.size, a.step // of_q.width * of_v.width) for a in axis]
            for axis in q.order[: last - 1]
        ]
        return _View(result, tidy([*batch, q.order[last - 1], (Atom("C", of_v.width, 1),)]))

    def _matrices(self, view: _View, heads: Heads, *, turned: bool = False) -> relax.Var:
        """(groups, heads, pixels, channels), or (groups, heads, channels, pixels)."""
        order = heads.order(*view.plane, turned=turned)
        shape = tuple(math.prod(atom.size for atom in axis) for axis in order)
        return self._ordered(_View(view.map, order), shape)

    def _map_of(self, tensor: relax.Var, order: Order, shape: tuple[int, int, int]) -> relax.Var:
        """The map whose elements a tensor has in this order."""
        atoms = [atom for axis in order for atom in axis]
        stored = sorted(atoms, key=lambda atom: (atom.kind, -atom.step))
        emit = self.builder_.emit
        value = emit(relax.op.reshape(tensor, [atom.size for atom in atoms] or [1]))
        if stored != atoms:
            value = emit(relax.op.permute_dims(value, [atoms.index(atom) for atom in stored]))
        return self._emit(relax.op.reshape(value, (1, *shape)))


def _all_channels(view: _View) -> Axis:
    return joined([Atom("C", view.channels, 1)])


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
