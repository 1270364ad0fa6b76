"""ChannelsFirst: what works on tokens, (1, pixels, channels), or on (1, H, W, C), works on maps."""

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from deploy.graph.beside_ones import Joined, product_beside
from deploy.graph.matrix_views import (
    View,
    attention,
    map_of_tensor,
    ordered,
    product,
    spread,
    total_over_pixels,
)
from deploy.graph.orders import (
    Atom,
    Axis,
    Order,
    joined,
    order_of_map,
    reshaped,
    tidy,
    turned,
    without,
)
from deploy.graph.picked import Picked, Places
from deploy.graph.scores import scores_of
from deploy.graph.stored import marked, with_mark
from deploy.graph.view import Array, Graph, shape_of

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
    "relax.call_pure_packed": "stored",
    "relax.matmul": "product",
    "relax.concat": "concat",
    "relax.mean": "mean",
    "relax.nn.softmax": "softmax",
    "relax.permute_dims": "permute",
    "relax.reshape": "reshape",
    "relax.strided_slice": "slice",
    "relax.sum": "sum",
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


@relax.expr_functor.mutator
class _Mutator(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.graph = Graph(module["main"])
        self.views: dict[relax.Var, View] = {}  # by the old function's variables
        self.joined: dict[relax.Var, Joined] = {}
        self.picked = Picked(self.graph, self.builder_, self.builder_.emit, _UNARY | _BINARY)
        self.planar: dict[relax.Var, relax.Var] = {}  # tensors made from views
        self.copies: dict[relax.Var, View] = {}  # of tensors that were no views

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Write a binding on maps, or as it was."""
        view = self._as_view(binding.var, binding.value)
        if view is not None:
            self.views[binding.var] = view
            self.picked.origins.setdefault(view.map, binding.var)
            return
        for var in relax.analysis.free_vars(binding.value):
            if var in self.views:
                self.set_var_remap(var, self._tensor(var))
        super().visit_var_binding_(binding)
        self.picked.origins.setdefault(self.visit_expr(binding.var), binding.var)

    def _tensor(self, var: relax.Var) -> relax.Var:
        """The elements of a view in its own order."""
        if var not in self.planar:
            view, shape = self.views[var], shape_of(var)
            same = shape == shape_of(view.map) and view.order == order_of_map(*shape[1:])
            self.planar[var] = view.map if same else ordered(self.builder_.emit, view, shape)
        return self.planar[var]

    def _view(self, expr: Any) -> View | None:  # noqa: ANN401 - an Expr
        """The view that a value is; a map is one of itself, but for a parameter."""
        if expr in self.views:
            return self.views[expr]
        shape = getattr(expr.ty, "shape", None) if isinstance(expr, relax.Var) else None
        if shape is None or len(shape) != 4 or str(expr.ty.dtype) != "float32":
            return None
        if shape_of(expr)[0] != 1 or self.graph.definition(expr) is None:
            return None
        return View(self.visit_expr(expr), order_of_map(*shape_of(expr)[1:]))

    def _as_view(self, var: relax.Var, value: relax.Expr) -> View | None:
        if not isinstance(value, relax.Call) or not isinstance(value.op, tvm.ir.Op):
            return None
        name = str(value.op.name)
        rule = _RULES.get(name)
        if rule is None or str(var.ty.dtype) != "float32" or self.graph.is_result(var):
            return None
        # What reads maps as they are stays as it is.
        moves = name in ("relax.concat", "relax.permute_dims", "relax.reshape", "relax.matmul")
        operands = [arg for arg in value.args if isinstance(arg, relax.Var)]
        if any(arg in self.joined for arg in operands):
            return self._of_joined(var, value)
        if not moves and not any(arg in self.views for arg in operands):
            return None
        view: View | None = getattr(self, rule)(var, value)
        return view

    # The rules.

    def permute(self, var: relax.Var, call: relax.Call) -> View | None:
        del var
        view = self._view(call.args[0])
        if view is None:
            return None
        axes = call.attrs.axes
        order = turned(view.order, None if axes is None else [int(axis) for axis in axes])
        return View(view.map, order)

    def reshape(self, var: relax.Var, call: relax.Call) -> View | None:
        view = self._view(call.args[0])
        order = None if view is None else reshaped(view.order, shape_of(var))
        return None if view is None or order is None else View(view.map, order)

    def unary(self, var: relax.Var, call: relax.Call) -> View | None:
        del var
        view = self._view(call.args[0])
        if view is None:
            return None
        return View(
            self.builder_.emit(relax.Call(call.op, [view.map, *call.args[1:]], call.attrs)),
            view.order,
        )

    def stored(self, var: relax.Var, call: relax.Call) -> View | None:
        """The mark of a map that lies on a grid (`deploy.graph.stored`)."""
        view = self._view(call.args[1])
        if marked(self.graph, var) is None or view is None:
            return None
        return View(self.builder_.emit(with_mark(call, view.map)), view.order)

    def binary(self, var: relax.Var, call: relax.Call) -> View | None:
        shape = shape_of(var)
        constants = [self.graph.constant(arg) for arg in call.args]
        views = [
            self._view(self._narrow(arg)) if value is None else None
            for arg, value in zip(call.args, constants, strict=True)
        ]
        base = max((view for view in views if view is not None), key=_elements, default=None)
        if base is None or _size(base.order) != math.prod(shape):
            return None
        operator: Any = call.op
        if operator.name == "relax.divide" and views[1] is not None and _less(views[1], base):
            # The smaller map's inverse is a factor, which kernels have.
            inverse = self.builder_.emit(relax.op.divide(relax.const(1.0), views[1].map))
            views[1] = View(inverse, views[1].order)
            operator = tvm.ir.Op.get("relax.multiply")
        operands = []
        for view, value in zip(views, constants, strict=True):
            if value is not None:
                value = _constant_on(base, value, shape)
                operands.append(None if value is None else relax.const(value))
                continue
            if view is not None and not _fits(view, base):
                view = spread(self.builder_.emit, view, base.order)
            operands.append(None if view is None else view.map)
        if any(operand is None for operand in operands):
            return None
        if operator.name in _EITHER_ORDER and constants[0] is not None:
            operands = operands[::-1]  # a bias stands behind what it is added to
        return View(self.builder_.emit(relax.Call(operator, operands, call.attrs)), base.order)

    def mean(self, var: relax.Var, call: relax.Call) -> View | None:
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
        mean = self.builder_.emit(relax.op.mean(view.map, axis=[1], keepdims=True))
        return View(mean, without(view.order, "C"))

    def sum(self, var: relax.Var, call: relax.Call) -> View | None:
        """Over all pixels and nothing else."""
        del var
        view = self._view(call.args[0])
        if view is None or not bool(call.attrs.keepdims) or call.attrs.axis is None:
            return None
        axes = [int(axis) % len(view.order) for axis in call.attrs.axis]
        return total_over_pixels(self.builder_.emit, view, axes[0]) if len(axes) == 1 else None

    def softmax(self, var: relax.Var, call: relax.Call) -> View | None:
        """Over channels that lie together, or over all pixels; left to TVM."""
        view = self._view(call.args[0])
        if view is None:
            return None
        along = view.order[int(call.attrs.axis) % len(shape_of(var))]
        atoms = sorted((a for axis in view.order for a in axis), key=lambda a: (a.kind, -a.step))
        if len(along) != 1:
            return None
        emit = self.builder_.emit
        lines = emit(relax.op.reshape(view.map, [atom.size for atom in atoms]))
        lines = emit(relax.op.nn.softmax(lines, axis=atoms.index(along[0])))
        return View(emit(relax.op.reshape(lines, shape_of(view.map))), view.order)

    def concat(self, var: relax.Var, call: relax.Call) -> View | None:
        """No view; what is noted is a view beside ones, as for sums beside products."""
        if not isinstance(call.args[0], relax.Tuple):
            return None
        parts: list[View | None] = []
        axis = int(call.attrs.axis) % len(shape_of(var))
        for field in call.args[0].fields:
            value = self.graph.constant(field)
            if value is not None and (value.shape[axis] != 1 or (value != 1).any()):
                return None
            parts.append(self.views.get(field) if value is None else None)
            if value is None and field not in self.views:
                return None
        if None in parts and len(parts) > 1:
            self.joined[var] = Joined(axis, tuple(parts))
        return None

    def _of_joined(self, var: relax.Var, call: relax.Call) -> View | None:
        """A part that is cut out again; of products with joined matrices the parts are noted."""
        name = str(call.op.name)
        if name == "relax.matmul":
            a, b = call.args
            sides = [self.joined.get(arg) or self.views.get(arg) for arg in (a, b)]
            found = product_beside(self.builder_.emit, *sides)
            if found is not None:
                self.joined[var] = found
        if name == "relax.strided_slice" and len(call.args) in (4, 5):
            joined = self.joined[call.args[0]]
            given = [[int(v.value) for v in arg.fields] for arg in call.args[1:]]
            if given[0] != [joined.axis] or given[3:] not in ([], [[1]]):
                return None
            return joined.cut(given[1][0], given[2][0])
        return None

    def _narrow(self, arg: relax.Expr) -> relax.Expr:
        """What is spread over a larger shape of as many axes, which operators do themselves."""
        call = self.graph.call(arg, "relax.broadcast_to")
        if call is None or len(shape_of(call.args[0])) != len(shape_of(arg)):
            return arg
        return call.args[0]

    def _product(self, var: relax.Var, call: relax.Call) -> View | None:
        """Of two views, or of one and a tensor, which becomes a map."""
        a, b = (self.views.get(arg) for arg in call.args)
        if a is None and b is not None:
            a = self._matrix(call.args[0])
        if b is None and a is not None:
            b = self._matrix(call.args[1])
        rank = len(shape_of(var))
        if a is None or b is None or not len(a.order) == len(b.order) == rank:
            return None
        return product(self.builder_.emit, a, b)

    def _matrix(self, tensor: relax.Expr) -> View:
        """Matrices (*heads, rows, columns) that no map has, as one."""
        *batch, rows, columns = shape_of(tensor)
        heads = math.prod(batch)
        axes = [Atom("C", heads, columns)], [Atom("P", rows, 1)], [Atom("C", columns, 1)]
        order = reshaped(tidy(axes), shape_of(tensor))
        assert order is not None  # the heads' axis may be cut anywhere
        shape = heads * columns, rows, 1
        planar = self.visit_expr(tensor)
        return View(map_of_tensor(self.builder_.emit, planar, order, shape), order)

    def slice(self, var: relax.Var, call: relax.Call) -> View | None:
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
        picked = self.picked.channels(view.map, channels)
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
        return View(picked, tidy(closer))

    def product(self, var: relax.Var, call: relax.Call) -> View | None:
        weight = self.graph.constant(call.args[1])
        if weight is None:
            found = self._attention(call)
            return found if found is not None else self._product(var, call)
        view = self._view(call.args[0]) if weight.ndim == 2 else None
        if weight.ndim == 2 and (view is None or view.order[-1] != _all_channels(view)):
            view = self._copied(call.args[0], weight.shape[1])
        if view is None:
            return None
        result = self.builder_.emit(_pointwise(view.map, weight.T[..., None, None]))
        return View(result, tidy([*view.order[:-1], (Atom("C", weight.shape[1], 1),)]))

    def _copied(self, tensor: relax.Expr, cout: int) -> View | None:
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
        self.copies[tensor] = View(copied, order)
        return self.copies[tensor]

    def _attention(self, call: relax.Call) -> View | None:
        """Weights by values, or values by weights, both turned."""
        weights, values = call.args
        exchanged = self.graph.call(values, "relax.permute_dims")
        if exchanged is not None and exchanged.attrs.axes is not None:
            axes = [int(axis) for axis in exchanged.attrs.axes]
            if axes == [*range(len(axes) - 2), len(axes) - 1, len(axes) - 2]:
                found = self._mixed(exchanged.args[0], weights, turned=True)
                if found is not None:
                    return found
        return self._mixed(weights, values)

    def _mixed(
        self, weights: relax.Expr, values: relax.Expr, *, turned: bool = False
    ) -> View | None:
        scores = scores_of(self.graph, weights)
        if scores is None:
            return None
        q, k, v = (self._view(arg) for arg in (*scores.factors, values))
        if q is None or k is None or v is None or len({len(view.order) for view in (q, k, v)}) > 1:
            return None
        result = attention(self.builder_.emit, scores, q, k, v.exchanged() if turned else v)
        return result.exchanged() if turned and result is not None else result


def _all_channels(view: View) -> Axis:
    return joined([Atom("C", view.channels, 1)])


def _size(order: Order) -> int:
    return math.prod(atom.size for axis in order for atom in axis)


def _elements(view: View) -> int:
    return view.channels * view.pixels


def _less(view: View, base: View) -> bool:
    return _elements(view) < _elements(base)


def _fits(view: View, base: View) -> bool:
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


def _constant_on(base: View, value: Array, shape: tuple[int, ...]) -> Array | None:
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
