"""MergeLinear: 1x1 convolutions where they cost least, as nothing but sums stands between."""

from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.view import (
    Graph,
    activation,
    function_of,
    per_channel,
    shape_of,
    values_between,
)

Array = NDArray[np.float64]


@tvm.transform.module_pass(opt_level=0, name="MergeLinear")
class MergeLinear:
    """Join and move 1x1 convolutions, without changing what is computed but for rounding.

    - A 1x1 convolution behind a convolution becomes part of its weights, where that takes fewer
      products; not behind the projection of an inverted residual.
    - Behind an enlarging resize it moves before it: each channel is resized by itself, and weights
      that sum to one keep a bias.
    - A factor for each channel behind any convolution becomes part of its weights, unless it
      belongs to an activation.
    - Behind a concatenation of such resizes it becomes a sum of convolutions of the parts.

    When: nothing else reads what is between. Products of weights are computed in double. Runs
    before kernels are placed.
    """

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        mutator = _Mutator(module)
        function = mutator.visit_expr(module["main"])
        if not mutator.changed:
            return module
        mutator.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(mutator.builder_.get())


@relax.expr_functor.mutator
class _Mutator(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: tvm.IRModule) -> None:
        super().__init__(module)
        self.graph = Graph(module["main"])
        self.within = _within_functions(self.graph)
        self.changed = False

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        """Write a binding as it was, or the convolution that it is where it costs less."""
        value = None if self.graph.is_result(binding.var) else self._cheaper(binding.var)
        if value is None:
            super().visit_var_binding_(binding)
        else:
            self.changed = True
            self.set_var_remap(binding.var, value)

    def _cheaper(self, var: relax.Var) -> relax.Var | None:
        found = self._pointwise(var)
        if found is not None and self._moves(*found[:2]):
            source, weight, bias = found
            return self._biased(self._convolved(source, weight), bias)
        if self.graph.call(var, "relax.multiply") is None or var in self.within:
            return None
        scaled = self._convolution(var)
        if scaled is None:
            return None
        conv, weight, bias = scaled
        call = relax.Call(conv.op, [self.visit_expr(conv.args[0]), _const(weight)], conv.attrs)
        return self._biased(self.builder_.emit(call), bias)

    def _biased(self, value: relax.Var, bias: Array) -> relax.Var:
        if not bias.any():
            return value
        return self.builder_.emit(relax.op.add(value, _const(bias.reshape(1, -1, 1, 1))))

    def _pointwise(self, var: relax.Expr) -> tuple[relax.Var, Array, Array] | None:
        """What a 1x1 convolution reads, its weight (O, I) and its bias, which stands behind it."""
        found = self._convolution(var)
        if found is None:
            return None
        conv, weight, bias = found
        attrs = conv.attrs
        moving = (*attrs.strides, *(int(p) + 1 for p in attrs.padding))
        if weight.shape[2:] != (1, 1) or any(int(v) != 1 for v in moving) or attrs.groups != 1:
            return None
        return conv.args[0], weight[..., 0, 0], bias

    def _convolution(self, var: relax.Expr) -> tuple[Any, Array, Array] | None:
        """A convolution with constant weights and what is added to each channel, or multiplied with
        it, behind: the call, its weights and the bias in double."""
        call = self.graph.call(var, "relax.add", "relax.multiply")
        for inner, other in (tuple(call.args), tuple(call.args)[::-1]) if call is not None else ():
            constant = self.graph.constant(other)
            if constant is None or len(shape_of(var)) != 4 or not self._once(inner):
                continue
            if shape_of(inner) != shape_of(var):
                continue
            vector = per_channel(constant, shape_of(var)[1])
            found = None if vector is None else self._convolution(inner)
            if found is None or vector is None:
                return None
            conv, weight, bias = found
            factor = vector.astype(np.float64)
            if call.op.name == "relax.add":
                return conv, weight, bias + factor
            return conv, weight * factor[:, None, None, None], bias * factor
        conv = self.graph.call(var, "relax.nn.conv2d")
        constant = None if conv is None else self.graph.constant(conv.args[1])
        if constant is None or conv.attrs.data_layout != "NCHW" or shape_of(var)[0] != 1:
            return None
        if conv.attrs.kernel_layout != "OIHW" or not isinstance(conv.args[0], relax.Var):
            return None
        return conv, constant.astype(np.float64), np.zeros(len(constant))

    def _once(self, var: relax.Expr) -> bool:
        return isinstance(var, relax.Var) and self.graph.used_once(var)

    def _enlarged(self, var: relax.Expr) -> Any:  # noqa: ANN401 - a Call or None
        """A resize to more pixels, whose weights sum to one."""
        call = self.graph.call(var, "relax.image.resize2d")
        if call is None or not self._once(var) or call.attrs.layout != "NCHW":
            return None
        if call.attrs.coordinate_transformation_mode == "tf_crop_and_resize":
            return None
        if not isinstance(call.args[0], relax.Var) or shape_of(var)[0] != 1:
            return None
        return call if _pixels(var) > _pixels(call.args[0]) else None

    def _parts(self, var: relax.Expr) -> list[relax.Var] | None:
        """What is concatenated to a value, if a part of it is better convolved before."""
        call = self.graph.call(var, "relax.concat")
        fields = list(getattr(call.args[0], "fields", ())) if call is not None else []
        if not fields or int(call.attrs.axis) not in (1, -3) or not self._once(var):
            return None
        if not all(isinstance(part, relax.Var) and len(shape_of(part)) == 4 for part in fields):
            return None
        return fields if any(self._enlarged(part) is not None for part in fields) else None

    def _moves(self, source: relax.Var, weight: Array) -> bool:
        """Whether there is something to be gained."""
        if self._enlarged(source) is not None or self._parts(source) is not None:
            return True
        return self._joined(source, weight) is not None

    def _joined(self, source: relax.Var, weight: Array) -> tuple[Any, Array, Array] | None:
        """The convolution that ends at `source` with this 1x1 convolution in it, if that takes
        fewer products; its bias is what it adds to all."""
        found = self._convolution(source) if self._once(source) else None
        if found is None or int(found[0].attrs.groups) != 1:
            return None
        conv, inner, bias = found
        if self._projects(conv):
            return None
        cout, middle = weight.shape
        taps = int(np.prod(inner.shape[1:]))
        if taps * cout > taps * middle + middle * cout:
            return None
        return conv, np.tensordot(weight, inner, 1), weight @ bias

    def _projects(self, conv: Any) -> bool:  # noqa: ANN401 - a Call
        """Whether a convolution is the end of an inverted residual, which has a kernel with what
        stands before it."""
        _, value = activation(self.graph, conv.args[0])
        before = self._convolution(value)
        return before is not None and int(before[0].attrs.groups) > 1

    def _convolved(self, source: relax.Var, weight: Array) -> relax.Var:
        """A 1x1 convolution of an old value, where it costs least."""
        parts = self._parts(source)
        if parts is not None:
            ends = np.cumsum([shape_of(part)[1] for part in parts])[:-1]
            weights = np.split(weight, ends, axis=1)
            # Those of the full size first: others are added to them.
            order = sorted(range(len(parts)), key=lambda i: self._enlarged(parts[i]) is not None)
            total = self._convolved(parts[order[0]], weights[order[0]])
            for i in order[1:]:
                more = self._convolved(parts[i], weights[i])
                total = self.builder_.emit(relax.op.add(total, more))
            return total
        resize = self._enlarged(source)
        if resize is not None:
            small = self._convolved(resize.args[0], weight)
            call = relax.Call(resize.op, [small, *resize.args[1:]], resize.attrs)
            return self.builder_.emit(call)
        joined = self._joined(source, weight)
        if joined is None:
            conv = relax.op.nn.conv2d(self.visit_expr(source), _const(weight[..., None, None]))
            return self.builder_.emit(conv)
        call, weight, bias = joined
        conv = relax.Call(call.op, [self.visit_expr(call.args[0]), _const(weight)], call.attrs)
        return self._biased(self.builder_.emit(conv), bias)


def _within_functions(graph: Graph) -> set[relax.Var]:
    """The values inside a function that is written as several operators, such as a hard sigmoid:
    without one of its factors nobody would know it again."""
    found: set[relax.Var] = set()
    for var in graph.vars:
        step, value = function_of(graph, var)
        if step is not None:
            found |= values_between(graph, [var], [value])
    return found


def _pixels(var: relax.Expr) -> int:
    *_, height, width = shape_of(var)
    return height * width


def _const(value: Array) -> relax.Expr:
    return relax.const(np.ascontiguousarray(value, np.float32))
