"""What follows an operation and works on each value of its output by itself."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from tvm import relax

from deploy.graph.view import (
    Array,
    Graph,
    activation,
    bounds_of,
    elu_of,
    function_of,
    map_of,
    per_channel,
    prelu_of,
    product_of,
    shape_of,
    sum_of,
)
from lut.ops import Shape, Step

_DEEPEST = 6  # steps behind one operation


@dataclass(frozen=True)
class Steps:
    """`then` of an operation that ends at `source`: the other maps and the vectors (C,) that it
    reads, in order, and the values between, `source` among them, which nothing else reads."""

    source: relax.Var
    then: tuple[Step, ...] = ()
    operands: tuple[relax.Var, ...] = ()
    vectors: tuple[Array, ...] = field(default=())
    inner: tuple[relax.Var, ...] = ()

    def before(self, source: relax.Var) -> "Steps":
        """The same, of a source one step earlier that does nothing itself."""
        return Steps(source, self.then, self.operands, self.vectors, (source, *self.inner))

    def after(
        self, source: relax.Var, step: Step, operands: tuple[relax.Var, ...] = (),
        vectors: tuple[Array, ...] = (),
    ) -> "Steps":  # fmt: skip
        """One step more, in front of the others."""
        then, more = self.then, self.vectors
        if step == "scale" and then and then[0] == "scale":  # two of them are one
            (factor, shift), (second, last) = (
                [v.astype(np.float64) for v in pair] for pair in (vectors, more[:2])
            )
            vectors = tuple(v.astype(np.float32) for v in (factor * second, shift * second + last))
            then, more = then[1:], more[2:]
        return Steps(
            source, (step, *then), (*operands, *self.operands), (*vectors, *more),
            (source, *self.inner),
        )  # fmt: skip


def steps_to(graph: Graph, var: relax.Var) -> Iterator[Steps]:
    """Every way to take `var` as steps behind an earlier value: the longest first, at last none."""
    if _is_map(var):
        yield from _longer(graph, Steps(var), map_of(var), _DEEPEST)


def steps_behind(graph: Graph, var: relax.Var) -> Iterator[Steps]:
    """As `steps_to`, but `source` may be read elsewhere, and is not among the values between: steps
    on a map that is there. None without a step."""
    for steps in steps_to(graph, var):
        for more in _earlier(graph, steps, map_of(var), alone=False):
            if _is_map(more.source) and map_of(more.source) == map_of(var):
                yield replace(more, inner=more.inner[1:])
        if steps.then:
            yield replace(steps, inner=steps.inner[1:])


def _is_map(var: relax.Var) -> bool:
    shape = getattr(var.ty, "shape", None)
    if shape is None or len(shape) != 4 or str(var.ty.dtype) != "float32":
        return False
    return shape_of(var)[0] == 1


def _longer(graph: Graph, steps: Steps, shape: Shape, left: int) -> Iterator[Steps]:
    if left:
        for earlier in _earlier(graph, steps, shape):
            if _is_map(earlier.source) and map_of(earlier.source) == shape:
                yield from _longer(graph, earlier, shape, left - 1)
    yield steps


def _earlier(graph: Graph, steps: Steps, shape: Shape, *, alone: bool = True) -> Iterator[Steps]:
    """One step more; where it is not `alone`, what that is applied to may be read elsewhere."""
    var = steps.source
    act, value = activation(graph, var, alone=alone)
    if act != "none":
        yield steps.after(value, act)
        return
    step, value = function_of(graph, var, alone=alone)
    if step is not None:
        yield steps.after(value, step)
        return
    ways: tuple[tuple[Step, tuple[Any, ...] | None], ...] = (
        ("prelu", prelu_of(graph, var)), ("elu", elu_of(graph, var)),
        ("clip", bounds_of(graph, var)),
    )  # fmt: skip
    for step, found in ways:
        if found is not None:
            vectors = [per_channel(constant, shape[0]) for constant in found[1:]]
            known = tuple(vector for vector in vectors if vector is not None)
            if len(known) == len(vectors) and (not alone or graph.used_once(found[0])):
                yield steps.after(found[0], step, (), known)
            return
    apart = graph.call(var, "relax.subtract")
    difference = [tuple(apart.args)] if apart is not None else []
    pairs_of = (("add", sum_of(graph, var)), ("sub", difference), ("mul", product_of(graph, var)))
    for name, pairs in pairs_of:
        for value, other in pairs:
            if graph.constant(other) is not None or graph.constant(value) is not None:
                continue
            kind = _operand(other, shape)
            if kind is not None and (not alone or graph.used_once(value)):
                step = f"{name}{kind}"
                if step in get_args(Step):
                    yield steps.after(value, step, (other,))  # type: ignore[arg-type]
    for other, value in difference:  # other - value
        if graph.constant(other) is not None or graph.constant(value) is not None:
            continue
        kind = _operand(other, shape)
        if kind is not None and (not alone or graph.used_once(value)):
            minus = np.full(shape[0], -1, np.float32), np.zeros(shape[0], np.float32)
            added = steps.after(value, f"add{kind}", (other,))  # type: ignore[arg-type]
            yield replace(added, then=("scale", *added.then), vectors=(*minus, *added.vectors))
    yield from _with_constant(graph, steps, shape[0], alone=alone)


def _operand(other: relax.Var, shape: Shape) -> str | None:
    if not _is_map(other):
        return None
    sizes, (channels, height, width) = map_of(other), shape
    if sizes == shape:
        return ""
    if sizes == (channels, 1, 1):
        return "_channel"
    return "_pixel" if sizes == (1, height, width) else None


def _with_constant(graph: Graph, steps: Steps, channels: int, *, alone: bool) -> Iterator[Steps]:
    """A sum, difference, product or quotient with a constant: a factor and a shift per channel."""
    call = graph.call(
        steps.source, *(f"relax.{n}" for n in ("add", "subtract", "multiply", "divide"))
    )
    if call is None:
        return
    name = str(call.op.name).removeprefix("relax.")
    first, second = call.args
    for value, other, turned in ((first, second, False), (second, first, True)):
        constant = graph.constant(other)
        if constant is None or not isinstance(value, relax.Var):
            continue
        if alone and not graph.used_once(value):
            continue
        if graph.constant(value) is not None or (name == "divide" and turned):
            continue
        vector = per_channel(constant, channels)
        if vector is None or (name == "divide" and not vector.all()):
            continue
        one, zero = np.ones_like(vector), np.zeros_like(vector)
        pairs: dict[str, tuple[Array, Array]] = {
            "add": (one, vector),
            "subtract": (-one, vector) if turned else (one, -vector),
            "multiply": (vector, zero),
            "divide": (np.float32(1) / (vector if vector.all() else one), zero),
        }
        yield steps.after(value, "scale", (), pairs[name])
        return
