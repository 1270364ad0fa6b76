"""Some channels of a map: computed alone, where nothing else wants the others."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.view import Graph, shape_of

Places = NDArray[np.int64]  # of channels
Emit = Callable[[relax.Expr], relax.Var]


class Picked:
    """Picks channels of maps of a function that is being written, each choice once.

    `origins` are the variables of the graph before whose values the maps are; `elementwise` the
    operators each of whose channels depends on the same channel of its operands.
    """

    def __init__(
        self, graph: Graph, builder: relax.BlockBuilder, emit: Emit, elementwise: frozenset[str]
    ) -> None:
        self.graph, self.builder, self.emit = graph, builder, emit
        self.elementwise = elementwise
        self.origins: dict[relax.Var, relax.Var] = {}
        self._picked: dict[tuple[relax.Var, bytes], relax.Var] = {}

    def channels(self, value: relax.Var, channels: Places) -> relax.Var:
        """These channels, in ascending order."""
        if len(channels) == shape_of(value)[1]:
            return value
        key = value, channels.tobytes()
        if key not in self._picked:
            self._picked[key] = self._pick(value, channels)
        return self._picked[key]

    def _pick(self, value: relax.Var, channels: Places) -> relax.Var:
        call: Any = self.builder.lookup_binding(value) if self._cut_alone(value) else None
        name = ""
        if isinstance(call, relax.Call) and isinstance(call.op, tvm.ir.Op):
            name = str(call.op.name)
        if name == "relax.nn.conv2d":
            found = self._convolution(call, channels)
            if found is not None:
                return self.emit(found)
        if name == "relax.concat" and int(call.attrs.axis) in (1, -3):
            return self._concatenation(call, channels)
        if name in self.elementwise:
            args = [self._part(arg, channels) for arg in call.args]
            return self.emit(relax.Call(call.op, args, call.attrs))
        first, last = int(channels[0]), int(channels[-1])
        if last - first + 1 == len(channels):
            return self.emit(relax.op.strided_slice(value, [1], [first], [last + 1]))
        return self.emit(relax.op.take(value, relax.const(channels.astype("int64")), axis=1))

    def _convolution(self, call: relax.Call, channels: Places) -> relax.Call | None:
        """Its outputs' part alone; of groups those that have any, as many in each."""
        if not isinstance(call.args[1], tvm.ir.GenericConst):
            return None
        weight, groups = call.args[1].value.numpy(), int(call.attrs.groups)
        each, inputs = weight.shape[0] // groups, weight.shape[1]
        chosen, counts = np.unique(channels // each, return_counts=True)
        if (counts != counts[0]).any():
            return None
        data = call.args[0]
        if len(chosen) < groups:
            data = self.channels(
                data, (chosen[:, None] * inputs + np.arange(inputs)).ravel().astype(np.int64)
            )
        attrs = call.attrs
        return relax.op.nn.conv2d(
            data, relax.const(np.ascontiguousarray(weight[channels])),
            strides=list(attrs.strides), padding=list(attrs.padding),
            dilation=list(attrs.dilation), groups=len(chosen),
        )  # fmt: skip

    def _concatenation(self, call: relax.Call, channels: Places) -> relax.Var:
        parts, begin = [], 0
        for part in call.args[0].fields:
            end = begin + shape_of(part)[1]
            within = channels[(channels >= begin) & (channels < end)] - begin
            if len(within):
                parts.append(self.channels(part, within))
            begin = end
        return parts[0] if len(parts) == 1 else self.emit(relax.op.concat(parts, axis=1))

    def _cut_alone(self, value: relax.Var) -> bool:
        """Whether a map has one reader, or slices alone, at once or behind operators that work on
        each channel or group of channels: who computes its parts apart does nothing twice."""
        if value not in self.origins:
            return False
        todo = [self.origins[value]]
        cuts: list[bool] = []
        seen: set[relax.Var] = set()
        while todo:
            for reader in self.graph.readers(todo.pop()):
                if reader in seen:
                    continue
                seen.add(reader)
                if self._hands_on(reader):
                    todo.append(reader)
                else:
                    cuts.append(self.graph.call(reader, "relax.strided_slice") is not None)
        return len(cuts) <= 1 or all(cuts)

    def _hands_on(self, reader: relax.Var) -> bool:
        if self.graph.call(reader, "relax.permute_dims", "relax.reshape") is not None:
            return True
        joined = self.graph.call(reader, "relax.concat")
        if joined is not None:
            return len(shape_of(reader)) == 4 and int(joined.attrs.axis) in (1, -3)
        windows = self.graph.call(reader, "relax.nn.conv2d")
        return windows is not None and int(windows.attrs.groups) > 1

    def _part(self, arg: relax.Expr, channels: Places) -> relax.Expr:
        if isinstance(arg, tvm.ir.GenericConst):
            value = arg.value.numpy()
            whole = value.ndim < 4 or value.shape[1] == 1
            return arg if whole else relax.const(value[:, channels])
        if isinstance(arg, relax.Var) and shape_of(arg)[1] > 1:
            return self.channels(arg, channels)
        return arg
