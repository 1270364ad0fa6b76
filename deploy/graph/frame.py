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
from deploy.graph.place import KERNEL, OPERATION
from lut.errors import UserError
from lut.ops import ChannelSlice, Concat, Operation, parse_operation

VIEW_ALIGNMENT = 64  # bytes; a vector of any CPU is read at it


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
    the same bytes, and so are the channels of a concatenation or a slice that are whole blocks.

    Raises UserError for an operator that became no PrimFunc.
    """
    constants = _Constants()
    planned = {
        var.name_hint: _Draft(function, constants, _operations(module)).finish()
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

    def __init__(
        self, function: relax.Function, constants: "_Constants", operations: dict[str, Operation]
    ) -> None:
        (given,) = function.params
        self._constants, self._operations = constants, operations
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
        views = _Views(self._result.offset)
        kept = [c for c in self._calls if not views.copies_nothing(self._operations, c)]
        uses: dict[int, list[int]] = {}  # of the maps that lie in no other
        for number, call in enumerate(kept):
            for tensor in call.arguments:
                if tensor.space is Space.MAP:
                    uses.setdefault(views.place(tensor.offset)[0], []).append(number)
        uses[self._result.offset].append(len(kept))  # read back when all is done
        lives = [Life(self._sizes[n], min(used), max(used)) for n, used in uses.items()]
        places, total = place(lives)
        first = dict(zip(uses, places, strict=True))

        def placed(tensor: Tensor) -> Tensor:
            if tensor.space is not Space.MAP:
                return tensor
            is_result = tensor.offset == self._result.offset
            space = Space.OUTPUT if is_result else Space.MAP
            owner, inside = views.place(tensor.offset)
            return replace(tensor, space=space, offset=first[owner] + inside)

        calls = tuple(Call(call.kernel, tuple(map(placed, call.arguments))) for call in kept)
        return Entry(calls, self._input, placed(self._result)), total


class _Views:
    """Maps that lie in others, so that nobody copies: in the blocked layout (1, C/c, H, W, c) whole
    blocks of channels are bytes behind one another."""

    def __init__(self, result: int) -> None:
        self._result = result  # a map of its own, which is given back
        self._inside: dict[int, tuple[int, int]] = {}  # the map that one lies in, and from where on

    def place(self, number: int) -> tuple[int, int]:
        """The map that lies in no other, and how many bytes behind its first one."""
        offset = 0
        while number in self._inside:
            number, further = self._inside[number]
            offset += further
        return number, offset

    def copies_nothing(self, operations: dict[str, Operation], call: Call) -> bool:
        """Whether a call only copies what can lie where it would be copied to; then it does."""
        operation, (*inputs, output) = operations.get(call.kernel), call.arguments
        if isinstance(operation, ChannelSlice):
            whole, part, begins = inputs[0], output, [operation.begin]
            parts, ends = [part], [operation.begin + operation.count]
            last = operation.channels
        elif isinstance(operation, Concat):
            whole, parts = output, inputs
            ends = [sum(operation.cin[: n + 1]) for n in range(len(parts))]
            begins, last = [0, *ends[:-1]], ends[-1]
        else:
            return False
        lanes = whole.shape[-1]
        block = whole.bytes // whole.shape[1]
        places = [begin // lanes * block for begin in begins]
        blocked = (
            len(whole.shape) == 5
            and all(begin % lanes == 0 for begin in begins)
            # Behind the last channel a map has zeros.
            and all(end % lanes == 0 or end == last for end in ends)
            and all(place % VIEW_ALIGNMENT == 0 for place in places)
        )
        numbers = [part.offset for part in parts]
        free = (
            all(tensor.space is Space.MAP for tensor in (whole, *parts))
            and len(set(numbers)) == len(numbers)
            and self._inside.keys().isdisjoint(numbers)
            and self._result not in numbers
            and self.place(whole.offset)[0] not in {*numbers, self._result}
        )
        if blocked and free:
            for number, offset in zip(numbers, places, strict=True):
                self._inside[number] = whole.offset, offset
        return blocked and free


def _operations(module: tvm.IRModule) -> dict[str, Operation]:
    """Those of the kernels that say what they compute, by the kernels' names."""
    return {
        var.name_hint: parse_operation(str(function.attrs[OPERATION]))
        for var, function in module.functions.items()
        if function.attrs and KERNEL in function.attrs
    }


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
