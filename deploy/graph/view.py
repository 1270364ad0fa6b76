"""Looking at a function of the imported graph: definitions, uses, constants, convolutions.

In one long file, as they ask each other: what a convolution ends at depends on the activation that
reads it, and what an activation swallows on the convolutions before it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from lut.ops import Activation

Array = NDArray[np.float32]
Expr: TypeAlias = relax.Expr
Var: TypeAlias = relax.Var


class Graph:
    """The bindings of a function's one dataflow block, in order."""

    def __init__(self, function: relax.Function) -> None:
        self.function = function
        self._definitions: dict[Var, Expr] = {}
        self._uses: dict[Var, int] = defaultdict(int)
        self._readers: dict[Var, list[Var]] = defaultdict(list)
        for block in function.body.blocks:
            for binding in block.bindings:
                self._definitions[binding.var] = binding.value
                for var in relax.analysis.free_vars(binding.value):
                    self._uses[var] += _count(binding.value, var)
                    self._readers[var].append(binding.var)
        self.vars: Sequence[Var] = list(self._definitions)  # bound variables in the graph's order
        result = function.body.body
        value = self.definition(result)
        fields = value.fields if isinstance(value, relax.Tuple) else [result]
        self.results = [field for field in fields if isinstance(field, relax.Var)]
        self._uses[result] += 1

    @cached_property
    def _before_activation(self) -> set[Expr]:
        """Convolutions, with their bias and before it is added, that activations alone read."""
        found: set[Expr] = set()
        for act, value in (activation(self, var) for var in self.vars):
            if act != "none":
                block = conv_block(self, value, with_act=False)
                found.update((value, *block.inner) if block is not None else ())
        return found

    def definition(self, var: Expr) -> Any:  # noqa: ANN401 - an Expr or None
        """The expression bound to a variable; None for a parameter and for a constant."""
        return self._definitions.get(var) if isinstance(var, relax.Var) else None

    def call(self, var: Expr, *names: str) -> Any:  # noqa: ANN401 - a Call or None
        """The definition, if it is a call of one of these Relax operators."""
        value = self.definition(var)
        if isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op):
            return value if value.op.name in names else None
        return None

    def loops(self, var: Expr, name: str) -> list[Expr] | None:
        """What loops of the importer's own under this name read; None for anything else."""
        call = self.call(var, "relax.call_tir")
        if call is None or call.args[0].name_hint.rstrip("0123456789") != name:
            return None
        return list(call.args[1].fields)

    def constant(self, expr: Expr) -> Array | None:
        """The value of a constant, or of one that is only reshaped, as the importer leaves biases
        (folding those with TVM would compile a kernel for each)."""
        reshape = self.call(expr, "relax.reshape")
        if reshape is not None:
            value = self.constant(reshape.args[0])
            return None if value is None else value.reshape(shape_of(expr))
        if isinstance(self.definition(expr), tvm.ir.GenericConst):  # bound, as loops read it
            expr = self.definition(expr)
        return expr.value.numpy() if isinstance(expr, tvm.ir.GenericConst) else None

    def is_result(self, var: Var) -> bool:
        """Whether the function returns the variable, alone or in a tuple."""
        return var in self.results

    def before_activation(self, var: Var) -> bool:
        """Whether the variable is a convolution, with its bias or still without it, that an
        activation, and nothing else, reads."""
        return var in self._before_activation

    def scaled(self, output: Expr, factor: float) -> Any:  # noqa: ANN401 - a Var or None
        """What is multiplied by this number, or divided by its inverse."""
        for name, number in (("multiply", factor), ("divide", 1 / factor)):
            if (value := self._with_number(output, f"relax.{name}", number)) is not None:
                return value
        return None

    def shifted(self, output: Expr, offset: float) -> Any:  # noqa: ANN401 - a Var or None
        """What this number is added to."""
        return self._with_number(output, "relax.add", offset)

    def _with_number(self, output: Expr, name: str, number: float) -> Any:  # noqa: ANN401
        call = self.call(output, name)
        for value, other in [call.args, call.args[::-1]] if call is not None else []:
            constant = self.constant(other)
            if constant is not None and constant.size == 1 and isinstance(value, relax.Var):
                return value if np.isclose(constant.item(), number, rtol=1e-6) else None
        return None

    def uses(self, var: Var) -> int:
        """How often bindings, and the function's result, read the variable."""
        return self._uses[var]

    def readers(self, var: Var) -> Sequence[Var]:
        """The variables whose bindings read the variable, in order."""
        return self._readers[var]

    def used_once(self, var: Var) -> bool:
        """Whether one binding, or the function's result, reads the variable, once."""
        return self._uses[var] == 1


def values_between(graph: Graph, outputs: Sequence[Var], inputs: Sequence[Var]) -> set[Var]:
    """The values behind `outputs` that are read on the way from `inputs` to them alone."""
    ends = {*outputs, *inputs}
    found: set[Var] = set()
    reads: Counter[Var] = Counter()
    pending = [*outputs]
    while pending:
        expr = graph.definition(pending.pop())
        for value in set(relax.analysis.free_vars(expr)) - ends - found:
            reads[value] += _count(expr, value)
            if graph.definition(value) is not None and reads[value] == graph.uses(value):
                found.add(value)
                pending.append(value)
    return found


def shape_of(expr: Expr) -> tuple[int, ...]:
    """The static shape of a tensor."""
    return tuple(int(size) for size in expr.ty.shape)


def map_of(expr: Expr) -> tuple[int, int, int]:
    """Channels, height and width of a map of batch size 1."""
    _, channels, height, width = shape_of(expr)
    return channels, height, width


def plane_of(expr: Expr) -> tuple[int, int]:
    """Height and width: the last two sizes."""
    *_, height, width = shape_of(expr)
    return height, width


@dataclass(frozen=True)
class ConvBlock:
    """A convolution, its bias, and the activation after it.

    `inner` are the values before the output that the block computes; weight (O, I/groups, k, k),
    bias (O,); padding is the same on all sides.
    """

    input: Var
    output: Var
    inner: tuple[Var, ...]
    weight: Array
    bias: Array
    act: Activation
    stride: int
    padding: int
    dilation: int
    groups: int

    @property
    def weights(self) -> tuple[Array, Array]:
        """Weight and bias."""
        return self.weight, self.bias

    @property
    def kernel(self) -> int:
        """Side of the window."""
        return int(self.weight.shape[2])

    @property
    def cin(self) -> int:
        """Input channels."""
        return int(self.weight.shape[1]) * self.groups

    @property
    def cout(self) -> int:
        """Output channels."""
        return int(self.weight.shape[0])

    @property
    def pointwise(self) -> bool:
        """1x1, stride 1, not grouped."""
        return (self.kernel, self.stride, self.padding, self.groups) == (1, 1, 0, 1)

    @property
    def depthwise(self) -> bool:
        """One odd window per channel, padded so that stride 1 keeps the size."""
        return (
            self.groups == self.cin == self.cout
            and self.kernel % 2 == 1
            and self.kernel > 1
            and self.padding == self.dilation * (self.kernel // 2)
        )


def conv_block(graph: Graph, output: Expr, *, with_act: bool = True) -> ConvBlock | None:
    """The convolution block that ends at `output`, if there is one whose inner values are used
    by nothing else. `with_act` False asks for one without an activation.
    """
    act, value = activation(graph, output)
    inner = []
    if act != "none":
        if not with_act:
            return None
        inner.append(value)
    bias = None
    add = graph.call(value, "relax.add")
    if add is not None:
        bias = graph.constant(add.args[1])
        if (
            bias is None
            or not isinstance(add.args[0], relax.Var)
            or not graph.used_once(add.args[0])
        ):
            return None
        value = add.args[0]
        inner.append(value)
    conv = graph.call(value, "relax.nn.conv2d")
    if conv is None:
        return None
    weight = graph.constant(conv.args[1])
    attrs = conv.attrs
    strides, paddings, dilations = (
        {int(v) for v in field} for field in (attrs.strides, attrs.padding, attrs.dilation)
    )
    square = weight is not None and weight.ndim == 4 and weight.shape[2] == weight.shape[3]
    if weight is None or not square or max(map(len, (strides, paddings, dilations))) > 1:
        return None
    if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW" or shape_of(value)[0] != 1:
        return None
    if bias is None:
        bias = np.zeros(weight.shape[0], np.float32)
    elif bias.shape != (1, weight.shape[0], 1, 1):
        return None
    return ConvBlock(
        input=conv.args[0],
        output=output,
        inner=tuple(inner),
        weight=weight,
        bias=bias.reshape(-1),
        act=act,
        stride=strides.pop(),
        padding=paddings.pop(),
        dilation=dilations.pop(),
        groups=int(attrs.groups),
    )


def activation(graph: Graph, output: Expr, *, alone: bool = True) -> tuple[Activation, Var]:
    """An activation and what it is applied to, which nothing else reads (or may read, where it
    needs not be `alone`); ("none", output) for anything else."""
    act, value, reads = _activation(graph, output)
    fits = isinstance(value, relax.Var) and (not alone or graph.uses(value) == reads)
    return (act, value) if fits else ("none", output)


def _activation(graph: Graph, output: Expr) -> tuple[Activation, Expr, int]:
    """And how often it reads that."""
    calls: dict[str, Activation] = {"nn.relu": "relu", "nn.relu6": "relu6", "sigmoid": "sigmoid"}
    for name, act in calls.items():
        call = graph.call(output, f"relax.{name}")
        if call is not None:
            return act, call.args[0], 1
    value, bounds = _clipped(graph, output)
    if bounds == (0.0, 6.0):
        return "relu6", value, 1
    if bounds == (0.0, float("inf")):
        return "relu", value, 1
    return "hswish", _hard_swish(graph, output), 2


def function_of(graph: Graph, output: Expr, *, alone: bool = True) -> tuple[Any, Any]:
    """A function of a value alone that `activation` does not know, as a `lut.ops.Step`, and the
    value, which nothing else reads (unless it needs not be `alone`); (None, None) for anything
    else."""
    step, value, reads = _function(graph, output)
    fits = isinstance(value, relax.Var) and (not alone or graph.uses(value) == reads)
    return (step, value) if fits else (None, None)


def _function(graph: Graph, output: Expr) -> tuple[Any, Any, int]:
    """And how often it reads that."""
    for name, step in _FUNCTIONS.items():
        call = graph.call(output, f"relax.{name}")
        if call is not None:
            return step, call.args[0], 1
    mish = graph.loops(output, "mish")
    if mish is not None:
        return "mish", mish[0], 1
    for x, gate in product_of(graph, output):
        inner = graph.call(gate, "relax.sigmoid")
        if inner is not None and x.same_as(inner.args[0]) and graph.used_once(gate):
            return "swish", x, 2
        if _tanh_of_softplus(graph, gate, x) and _alone_between(graph, x, output):
            return "mish", x, 2
    step, x, reads = _written_gelu(graph, output)
    if step is not None and _alone_between(graph, x, output):
        return step, x, reads
    sixth, bounds = _clipped(graph, output)
    if bounds == (0.0, 1.0) and isinstance(sixth, relax.Var) and graph.used_once(sixth):
        scaled = graph.shifted(sixth, 0.5)
        if isinstance(scaled, relax.Var) and graph.used_once(scaled):
            return "hsigmoid", graph.scaled(scaled, 1 / 6), 1
    return None, None, 0


_FUNCTIONS = {
    "nn.silu": "swish", "tanh": "tanh", "nn.gelu": "gelu", "nn.gelu_tanh": "gelu_tanh",
    "nn.softplus": "softplus",
}  # fmt: skip


def _tanh_of_softplus(graph: Graph, value: Expr, x: Var) -> bool:
    tanh = graph.call(value, "relax.tanh")
    softplus = None if tanh is None else graph.call(tanh.args[0], "relax.nn.softplus")
    return softplus is not None and bool(x.same_as(softplus.args[0]))


def _written_gelu(graph: Graph, output: Expr) -> tuple[Any, Any, int]:
    """GELU by the error function or by tanh, written out: the step, what it is applied to, and how
    often it reads that."""
    number, factors = _factors(graph, output)
    for x, gate in (
        (factors, factors[::-1]) if len(factors) == 2 and np.isclose(number, 0.5) else ()
    ):
        more = graph.shifted(gate, 1.0)
        erf, tanh = graph.call(more, "relax.erf"), graph.call(more, "relax.tanh")
        if erf is not None and x.same_as(graph.scaled(erf.args[0], 0.5**0.5)):
            return "gelu", x, 2
        if tanh is not None:
            number, inner = _factors(graph, tanh.args[0])
            if len(inner) == 1 and np.isclose(number, (2 / np.pi) ** 0.5):
                for first, cubic in sum_of(graph, inner[0]):
                    reads = _cube(graph, cubic, x)
                    if x.same_as(first) and reads:
                        return "gelu_tanh", x, 2 + reads
    return None, None, 0


def _cube(graph: Graph, output: Expr, x: Var) -> int:
    """How often 0.044715 x^3 reads x; 0 for anything else."""
    number, factors = _factors(graph, output)
    if not np.isclose(number, 0.044715):
        return 0
    if len(factors) == 1:
        power = graph.call(factors[0], "relax.power")
        exponent = None if power is None else graph.constant(power.args[1])
        is_cube = exponent is not None and bool((exponent == 3).all())
        return int(is_cube and x.same_as(power.args[0]))
    return 3 if len(factors) == 3 and all(x.same_as(factor) for factor in factors) else 0


def _factors(graph: Graph, output: Expr) -> tuple[float, list[Var]]:
    """A number and the values whose product a value is: through products, and quotients by numbers,
    that nothing else reads."""
    number, factors, todo = 1.0, [], [output]
    while todo:
        value = todo.pop()
        constant = graph.constant(value)
        call = graph.call(value, "relax.multiply", "relax.divide")
        inside = value.same_as(output) or (isinstance(value, relax.Var) and graph.used_once(value))
        if constant is not None and constant.size == 1:
            number *= float(constant.item())
        elif call is not None and inside and call.op.name == "relax.multiply":
            todo.extend(call.args)
        elif call is not None and inside and graph.constant(call.args[1]) is not None:
            divisor = graph.constant(call.args[1])
            if divisor is None or divisor.size != 1 or divisor.item() == 0:
                return 0.0, []
            number /= float(divisor.item())
            todo.append(call.args[0])
        elif constant is None and isinstance(value, relax.Var):
            factors.append(value)
        else:
            return 0.0, []
    return number, factors


def prelu_of(graph: Graph, output: Expr) -> tuple[Var, Array] | None:
    """What is multiplied by a constant slope below zero, and the slope."""
    call = graph.call(output, "relax.nn.leakyrelu")
    if call is not None:
        return call.args[0], np.array(call.attrs.alpha, np.float32)
    return _with_constant(graph, graph.loops(output, "prelu"))


def elu_of(graph: Graph, output: Expr) -> tuple[Var, Array] | None:
    """What an ELU is applied to, and the constant factor that it has below zero."""
    return _with_constant(graph, graph.loops(output, "elu"))


def bounds_of(graph: Graph, output: Expr) -> tuple[Var, Array, Array] | None:
    """What is clipped, and the constants it is at least and at most, one of which may be
    infinite."""
    value, bounds = _clipped(graph, output)
    if bounds and isinstance(value, relax.Var):
        return value, np.array(bounds[0], np.float32), np.array(bounds[1], np.float32)
    for operator, loops, end in (("maximum", "max", np.inf), ("minimum", "min", -np.inf)):
        call = graph.call(output, f"relax.{operator}")
        args = list(call.args) if call is not None else graph.loops(output, loops)
        for pair in (args, args[::-1]) if args is not None and len(args) == 2 else ():
            found = _with_constant(graph, pair)
            if found is not None and not np.isnan(found[1]).any():
                value, bound = found
                other = np.full_like(bound, end)
                return (value, bound, other) if end > 0 else (value, other, bound)
    return None


def _with_constant(graph: Graph, pair: Sequence[Expr] | None) -> tuple[Var, Array] | None:
    """Two that are read, where the second is a constant and the first is none."""
    second = None if pair is None else graph.constant(pair[1])
    if pair is None or second is None or graph.constant(pair[0]) is not None:
        return None
    return (pair[0], second) if isinstance(pair[0], relax.Var) else None


def spread_of(graph: Graph, output: Expr) -> tuple[Var, tuple[int, int]] | None:
    """What zeros are put between, and how far its rows and columns lie apart then."""
    loops = graph.loops(output, "zeros_between")
    if loops is None or not isinstance(loops[0], relax.Var) or len(shape_of(output)) != 4:
        return None
    (_, _, *small), (_, _, *large) = shape_of(loops[0]), shape_of(output)
    apart = [(b - 1) // (a - 1) if a > 1 else 1 for a, b in zip(small, large, strict=True)]
    return loops[0], (apart[0], apart[1])


def per_channel(constant: Array, channels: int) -> Array | None:
    """(channels,) of a constant that is one value for each, or one for all; else None."""
    if constant.size == 1:
        return np.full(channels, constant.item(), np.float32)
    shape = (1,) * (4 - constant.ndim) + constant.shape
    return constant.reshape(-1) if shape == (1, channels, 1, 1) else None


def _clipped(graph: Graph, output: Expr) -> tuple[Expr, tuple[float, ...]]:
    clip = graph.call(output, "relax.clip")
    if clip is None:
        return output, ()
    return clip.args[0], tuple(float(bound.value) for bound in clip.args[1:])


def _hard_swish(graph: Graph, output: Expr) -> Any:  # noqa: ANN401 - a Var or None
    """x where a value is x * relu6(x + 3) / 6, as ONNX's HardSwish is imported, or written out with
    the division at its end, or x * HardSigmoid(x), and nothing else reads the steps between."""
    for x, gate in product_of(graph, graph.scaled(output, 1 / 6)):
        if _relu6_of_3_more(graph, gate, x) and _alone_between(graph, x, output):
            return x
    for x, gate in product_of(graph, output):
        is_gate = _relu6_of_3_more(graph, graph.scaled(gate, 1 / 6), x)
        is_gate = is_gate or _hard_sigmoid(graph, gate, x)
        if is_gate and _alone_between(graph, x, output):
            return x
    return None


def _relu6_of_3_more(graph: Graph, value: Expr, x: Var) -> bool:
    shifted, bounds = _clipped(graph, value)
    return bounds == (0.0, 6.0) and bool(x.same_as(graph.shifted(shifted, 3.0)))


def _hard_sigmoid(graph: Graph, value: Expr, x: Var) -> bool:
    """clip(x / 6 + 0.5, 0, 1)."""
    sixth, bounds = _clipped(graph, value)
    scaled = graph.shifted(sixth, 0.5) if bounds == (0.0, 1.0) else None
    return bool(x.same_as(graph.scaled(scaled, 1 / 6)))


def _alone_between(graph: Graph, x: Var, output: Var) -> bool:
    """Whether each value between x and the output, all of which lead to x, is read once."""
    todo = [output]
    while todo:
        read = relax.analysis.free_vars(graph.definition(todo.pop()))
        steps = [value for value in read if not value.same_as(x)]
        if not all(graph.used_once(step) for step in steps):
            return False
        todo += steps
    return True


def bilinear_resize(graph: Graph, output: Expr) -> Any:  # noqa: ANN401 - a Var or None
    """What a bilinear resize of one map with half-pixel centres (align_corners=False) reads, else
    None."""
    resize = graph.call(output, "relax.image.resize2d")
    if resize is None:
        return None
    attrs = resize.attrs
    bilinear = (attrs.method, attrs.coordinate_transformation_mode, attrs.layout) == (
        "linear", "half_pixel", "NCHW",
    )  # fmt: skip
    one = bilinear and isinstance(resize.args[0], relax.Var) and shape_of(output)[0] == 1
    return resize.args[0] if one else None


def global_average(graph: Graph, output: Expr) -> Any:  # noqa: ANN401 - a Var or None
    """What is averaged over height and width to (1, C, 1, 1), else None."""
    mean = graph.call(output, "relax.mean")
    if mean is not None:
        shape = shape_of(mean.args[0])
        axes = sorted(int(axis) % len(shape) for axis in mean.attrs.axis or ())
        matched = len(shape) == 4 and shape[0] == 1 and axes == [2, 3] and mean.attrs.keepdims
        return mean.args[0] if matched and isinstance(mean.args[0], relax.Var) else None
    pool = graph.call(output, "relax.nn.adaptive_avg_pool2d")
    matched = pool is not None and (shape_of(output)[0], *shape_of(output)[2:]) == (1, 1, 1)
    return pool.args[0] if matched and isinstance(pool.args[0], relax.Var) else None


def sum_of(graph: Graph, output: Expr) -> list[tuple[Var, Var]]:
    """The two addends of a value, in both orders; empty where it is no sum of two variables."""
    return _both_orders(graph.call(output, "relax.add"))


def product_of(graph: Graph, output: Expr) -> list[tuple[Var, Var]]:
    """The two factors of a value, in both orders; empty where it is no such product."""
    return _both_orders(graph.call(output, "relax.multiply"))


def _both_orders(call: Any) -> list[tuple[Var, Var]]:  # noqa: ANN401 - a Call or None
    if call is None or not all(isinstance(arg, relax.Var) for arg in call.args):
        return []
    first, second = call.args
    return [(first, second), (second, first)]


def _count(value: Any, var: Any) -> int:  # noqa: ANN401 - TVM's expressions
    if isinstance(value, relax.Call):
        return sum(_count(arg, var) for arg in value.args)
    if isinstance(value, relax.Tuple):
        return sum(_count(field, var) for field in value.fields)
    if isinstance(value, relax.TupleGetItem):
        return _count(value.tuple_value, var)
    return int(value.same_as(var))
