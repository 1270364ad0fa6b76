"""What a matcher says of a place in a graph."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tvm import relax

from deploy.graph.view import Graph
from lut.ops import Operation


@dataclass(frozen=True)
class Found:
    """The values behind `output` are one operation, which reads `inputs`.

    `inner` are the values between, which nothing else reads. `weights` are what its kernels pack,
    by the names that they give their parts: pairs of weight and bias in torch's shapes, and of an
    image's normalisation `mean` and `std`. `layers` are, by the names of the pairs (``weight`` of a
    single one), the maps that they are applied to, in order; those that are not among the inputs
    are never written. `parts` are what it is put together from, each found by itself.
    """

    operation: Operation
    inputs: Sequence[relax.Var]
    output: relax.Var
    inner: tuple[relax.Var, ...]
    weights: Mapping[str, Any]
    layers: Mapping[str, relax.Var] = field(default_factory=dict)
    parts: "tuple[Found, ...]" = ()


# The operations that end at a variable, largest first; none where there is none.
Matcher: TypeAlias = Callable[[Graph, relax.Var], Iterator[Found]]
