"""A frame as what is done: kernels called in order, on bytes whose places are known beforehand."""

import math
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.arena import Life, aligned, place
from lut.errors import UserError


class Space(Enum):
    """What a tensor's bytes belong to."""

    MAP = "a map of the arena"
    CONSTANT = "a constant"
    INPUT = "the entry's input"
    OUTPUT = "the map that the entry gives, in the arena too"


@dataclass(frozen=True)
class Tensor:
    """What a kernel reads or writes: `offset` counts in its space."""

    space: Space
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Call:
    """One call of a kernel, by name; its output comes last."""

    kernel: str
    arguments: tuple[Tensor, ...]


@dataclass(frozen=True)
class Entry:
    """What one call of the network does, and where its result lies."""

    calls: tuple[Call, ...]
    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class Frame:
    """A network's entries, which share constants; each uses `map_bytes` of an arena or less."""

    entries: dict[str, Entry]
    constants: bytes
    map_bytes: int

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of all that is called, each once."""
        calls = (call.kernel for entry in self.entries.values() for call in entry.calls)
        return tuple(dict.fromkeys(calls))


def plan_frame(module: tvm.IRModule) -> Frame:
    """The plan of a module whose ``main`` (and other entries) call PrimFuncs only; reshapes are
    the same bytes.

    Raises UserError for an operator that became no PrimFunc.
    """
    constants = _Constants()
    planned = {
        var.name_hint: _Draft(function, constants).finish()
        for var, function in module.functions.items()
        if isinstance(function, relax.Function)
    }
    return Frame(
        {name: entry for name, (entry, _) in planned.items()},
        constants.data(),
        max(used for _, used in planned.values()),
    )


class _Draft:
    """The calls of one entry, before its maps have their places: their offsets are numbers."""

    def __init__(self, function: relax.Function, constants: "_Constants") -> None:
        (given,) = function.params
        self._constants = constants
        self._input = Tensor(Space.INPUT, 0, *_type(given.ty))
        self._values: dict[relax.Var, Any] = {given: self._input}  # a tensor or a tuple of some
        self._calls: list[Call] = []
        self._sizes: list[int] = []
        for block in function.body.blocks:
            for binding in block.bindings:
                self._values[binding.var] = self._value(binding.value, binding.var.ty)
        self._result = self._values[function.body.body]
        if not isinstance(self._result, Tensor) or self._result.space is not Space.MAP:
            raise UserError("the network gives back what it was given; there is nothing to compile")

    def _value(self, value: relax.Expr, ty: Any) -> Any:  # noqa: ANN401
        if isinstance(value, relax.Var):
            return self._values[value]
        if isinstance(value, tvm.ir.GenericConst):
            return self._constants.place(value.value.numpy())
        if isinstance(value, relax.Tuple):
            return tuple(self._value(field, None) for field in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self._value(value.tuple_value, None)[value.index]
        name = value.op.name if isinstance(value, relax.Call) else type(value).__name__
        if name == "relax.reshape":
            return replace(self._value(value.args[0], None), shape=_type(ty)[0])
        if name != "relax.call_tir":
            name = name.removeprefix("relax.")
            raise UserError(
                f"TVM imports the operator {name} but cannot lower it; replace it in the network, "
                "or cut the graph before it with onnx.utils.extract_model"
            )
        function, fields = value.args[0], value.args[1].fields
        outputs = self._maps(ty)
        inputs = tuple(self._value(field, None) for field in fields)
        written = outputs if isinstance(outputs, tuple) else (outputs,)
        self._calls.append(Call(function.name_hint, (*inputs, *written)))
        return outputs

    def _maps(self, ty: Any) -> Any:  # noqa: ANN401
        if isinstance(ty, relax.TupleType):
            return tuple(map(self._maps, ty.fields))
        self._sizes.append(Tensor(Space.MAP, 0, *_type(ty)).bytes)
        return Tensor(Space.MAP, len(self._sizes) - 1, *_type(ty))

    def finish(self) -> tuple[Entry, int]:
        """The entry with its maps in an arena of their own, and how many bytes that has."""
        uses: list[list[int]] = [[] for _ in self._sizes]
        for number, call in enumerate(self._calls):
            for tensor in call.arguments:
                if tensor.space is Space.MAP:
                    uses[tensor.offset].append(number)
        uses[self._result.offset].append(len(self._calls))  # read back when all is done
        lives = [
            Life(size, min(used), max(used)) for size, used in zip(self._sizes, uses, strict=True)
        ]
        offsets, total = place(lives)

        def placed(tensor: Tensor) -> Tensor:
            if tensor.space is not Space.MAP:
                return tensor
            is_result = tensor.offset == self._result.offset
            space = Space.OUTPUT if is_result else Space.MAP
            return replace(tensor, space=space, offset=offsets[tensor.offset])

        calls = tuple(Call(call.kernel, tuple(map(placed, call.arguments))) for call in self._calls)
        return Entry(calls, self._input, placed(self._result)), total


class _Constants:
    def __init__(self) -> None:
        self._placed: dict[bytes, int] = {}
        self._size = 0

    def place(self, value: NDArray[Any]) -> Tensor:
        """Where a constant lies; equal ones share their bytes."""
        raw = np.ascontiguousarray(value).tobytes()
        if raw not in self._placed:
            self._placed[raw] = self._size
            self._size += aligned(len(raw))
        return Tensor(Space.CONSTANT, self._placed[raw], value.shape, value.dtype.name)

    def data(self) -> bytes:
        return b"".join(raw.ljust(aligned(len(raw)), b"\0") for raw in self._placed)


def _type(ty: Any) -> tuple[tuple[int, ...], str]:  # noqa: ANN401
    return tuple(int(size) for size in ty.shape), str(ty.dtype)
