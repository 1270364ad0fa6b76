"""One ONNX node as the functions that write it in Relax see it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tvm import relax, te, tirx

from lut.errors import UserError

Expr: TypeAlias = relax.Expr
Scalar: TypeAlias = Any  # an expression of tirx, or a number; TVM ships no types
Constant: TypeAlias = NDArray[Any]
Value: TypeAlias = Constant | Expr  # a constant stays numpy until an operator of Relax reads it
Result: TypeAlias = Value | Sequence[Value]  # one, or one for each output

# What a tensor may hold. Half precision is computed in float32 (deploy/reading), text never.
TYPES = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
) | {"bool", "float32", "float64"}  # fmt: skip
_LARGEST = 1 << 31  # elements of a tensor; a file that asks for more is a mistake or an attack
_REQUIRED = object()


class Node:
    """Inputs, attributes and outputs of a node; and the words to write it in Relax.

    `inputs` are the values that it reads, in order, None for an optional one that is not there.
    What is not asked for is refused (`refuse_unread`): nothing of a file is passed over.
    """

    def __init__(
        self, proto: onnx.NodeProto, inputs: Sequence[Value | None], builder: relax.BlockBuilder
    ) -> None:
        self.op = str(proto.op_type)
        self.label = label(proto)
        self.builder = builder
        self._inputs = list(inputs)
        self.outputs = [bool(name) for name in proto.output]  # whether each is wanted
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}
        self._unread = set(self._attributes)

    # What the file says.

    def refuse(self, why: str) -> NoReturn:
        """Raise the UserError that names the node; `why` says what to do."""
        raise UserError(f"{self.label}: {why}")

    def attribute(self, name: str, default: Any = _REQUIRED) -> Any:  # noqa: ANN401 - any of ONNX's types
        """The value of an attribute: int, float, str, list or numpy array."""
        self._unread.discard(name)
        if name not in self._attributes:
            if default is _REQUIRED:
                self.refuse(f"the attribute {name!r} is missing; the file is not valid ONNX")
            return default
        value = helper.get_attribute_value(self._attributes[name])
        if isinstance(value, onnx.TensorProto):
            return numpy_helper.to_array(value)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def choice(self, name: str, default: str, *others: str) -> str:
        """The value of an attribute that is one of these words."""
        value = self.attribute(name, default)
        if value not in (default, *others):
            known = ", ".join((default, *others))
            self.refuse(f"{name}={value!r} is not supported (supported: {known})")
        return str(value)

    def ignore(self, *names: str) -> None:
        """Take note of attributes that mean nothing for the result."""
        self._unread.difference_update(names)

    def refuse_unread(self) -> None:
        """Raise UserError for an attribute that nothing asked for."""
        if self._unread:
            names = ", ".join(map(repr, sorted(self._unread)))
            self.refuse(f"{names} is not supported; export the network for opset 20")

    # Its inputs.

    @property
    def count(self) -> int:
        """How many inputs are listed."""
        return len(self._inputs)

    def has(self, index: int) -> bool:
        """Whether an optional input is there."""
        return index < self.count and self._inputs[index] is not None

    def value(self, index: int) -> Value:
        """An input as it is."""
        value = self._inputs[index] if index < self.count else None
        if value is None:
            self.refuse(f"input {index} is missing; the file is not valid ONNX")
        return value

    def tensor(self, index: int) -> Expr:
        """An input as Relax reads it."""
        value = self.value(index)
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype.name not in TYPES:
            self.refuse(f"{value.dtype.name} is not supported; convert the network to float32")
        return constant(value)

    def tensors(self) -> list[Expr]:
        """All inputs as Relax reads them."""
        return [self.tensor(index) for index in range(self.count)]

    def is_constant(self, index: int) -> bool:
        """Whether an input is there and its value is known."""
        return self.has(index) and isinstance(self._inputs[index], np.ndarray)

    def parameter(self, index: int, what: str) -> Constant:
        """An input that must be known when the network is compiled."""
        value = self.value(index)
        if isinstance(value, np.ndarray):
            return value
        self.refuse(f"its {what} is computed at run time; export the network with fixed sizes")

    def optional(self, index: int, what: str) -> Constant | None:
        """The same of one that may be missing."""
        return self.parameter(index, what) if self.has(index) else None

    def integers(self, index: int, what: str) -> list[int]:
        """The same, a list of integers."""
        return [int(number) for number in self.parameter(index, what).reshape(-1)]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The shape of an input."""
        value = self.value(index)
        return value.shape if isinstance(value, np.ndarray) else shape_of(value)

    def dtype(self, index: int = 0) -> str:
        """The element type of an input, as numpy calls it."""
        value = self.value(index)
        return value.dtype.name if isinstance(value, np.ndarray) else dtype_of(value)

    def is_float(self, index: int = 0) -> bool:
        """Whether an input holds floating-point numbers."""
        return self.dtype(index).startswith("float")

    def axis(self, name: str = "axis", default: Any = _REQUIRED, rank: int | None = None) -> int:  # noqa: ANN401 - int
        """An attribute that names an axis of the first input, counted from the front."""
        return self.checked_axis(self.attribute(name, default), rank)

    def checked_axis(self, axis: int, rank: int | None = None) -> int:
        """An axis of the first input, counted from the front."""
        rank = len(self.shape()) if rank is None else rank
        if not -rank <= axis < rank:
            self.refuse(f"axis {axis} of a tensor of {rank} axes; the file is not valid ONNX")
        return int(axis) % rank

    # Writing.

    def bind(self, expr: Expr) -> Expr:
        """A variable for an expression, whose shape and type are known then."""
        return expr if isinstance(expr, relax.Var) else self.builder.emit(expr)

    def loops(self, compute: Callable[..., te.Tensor], *arguments: Expr, name: str = "") -> Expr:
        """What `compute` makes of tensors, as a loop nest of our own: where TVM has no operator, or
        one of another meaning."""
        bound = [self.bind(argument) for argument in arguments]
        return self.bind(
            self.builder.call_te(compute, *bound, primfunc_name_hint=name or self.op.lower())
        )

    def compute(
        self,
        shape: Sequence[int],
        element: Callable[..., Scalar],
        *arguments: Expr,
        name: str = "",
    ) -> Expr:
        """A tensor whose element at ``place`` is ``element(tensors, *place)``."""
        if 0 in shape or math.prod(shape) >= _LARGEST:
            self.refuse(f"it gives a tensor of shape {tuple(shape)}, which is not supported")

        def nest(*tensors: te.Tensor) -> te.Tensor:
            return te.compute(sizes(shape), lambda *place: element(tensors, *place), name="compute")

        return self.loops(nest, *arguments, name=name)

    def elementwise(self, element: Callable[..., Scalar], *arguments: Expr, name: str = "") -> Expr:
        """``element(a, b, ...)`` of tensors that are broadcast as numpy does."""
        arguments = tuple(self.bind(argument) for argument in arguments)
        shape = np.broadcast_shapes(*(shape_of(argument) for argument in arguments))
        return self.compute(
            shape,
            lambda tensors, *place: element(*(spread(tensor, place) for tensor in tensors)),
            *arguments,
            name=name,
        )


def label(proto: onnx.NodeProto) -> str:
    """How messages name a node."""
    return f"node {str(proto.name or next(iter(proto.output), ''))!r} ({printable(proto.op_type)})"


def printable(text: str) -> str:
    """A file's text without what a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def constant(value: Constant | float, dtype: str | None = None) -> Expr:
    """A constant of Relax, of this type or numpy's; TVM by itself takes int64 for int32."""
    array = np.array(value, dtype, order="C")
    return relax.const(array, array.dtype.name)


def shape_of(expr: Expr) -> tuple[int, ...]:
    """The shape of a variable or constant."""
    return tuple(int(size) for size in expr.ty.shape)


def dtype_of(expr: Expr) -> str:
    """The element type of a variable or constant."""
    return str(expr.ty.dtype)


# Words for loop nests.


def sizes(shape: Sequence[int]) -> tuple[Scalar, ...]:
    """The shape of a nest: all indices are int64, as Relax's shapes are."""
    return tuple(tirx.const(size, "int64") for size in shape)


def reduction(size: int, name: str = "k") -> Scalar:
    """An axis to reduce over."""
    return te.reduce_axis((tirx.const(0, "int64"), tirx.const(size, "int64")), name)


def spread(tensor: te.Tensor, place: Sequence[Scalar]) -> Scalar:
    """The element of a tensor that is broadcast to the shape in which `place` is one."""
    own = place[len(place) - len(tensor.shape) :]
    zero = tirx.const(0, "int64")
    return tensor(
        *(zero if int(size) == 1 else at for at, size in zip(own, tensor.shape, strict=True))
    )


def index(tensor: te.Tensor, *place: Scalar) -> Scalar:
    """An element of a table, as an index."""
    return tensor(*place).astype("int64")
