"""Scheduled tensor programs for CPUs: one file per kernel, all of one shape.

Every kernel module has a frozen ``...Schedule`` (what changes only the speed), and
``default_schedule(op, isa, threads)``, the rule, ``pack(op, isa, ...)``, which takes what the
operation's matcher found, and ``emit(op, schedule, isa)``. It may have ``alternatives(op, isa,
threads)``, other ways to share the work, and ``supports(op)``, where it does not cover every
operation of its kind. The PrimFunc takes the maps, the packed constants in the order in which
`pack` returns them, and the output; it is put together from the stages of `deploy.cpu.rows`. Here
an operation finds its module.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from deploy.cpu.elements import FLOAT32, Element
from deploy.cpu.isa import Isa
from deploy.cpu.kernels import (
    across_channels,
    arg_max,
    attention,
    channel_norm,
    channel_slice,
    concat,
    conv_depthwise,
    conv_dilated,
    conv_direct,
    conv_int8,
    conv_multiplied,
    conv_winograd,
    conv_winograd_int8,
    convert,
    depthwise,
    elementwise,
    global_mean,
    global_pool,
    inverted_residual,
    labels_end,
    local_global,
    logits_end,
    masks,
    pointwise,
    pool,
    product,
    resample,
    resize,
    stem,
    stem_block,
    stem_pair,
    unpool,
    upsample_add,
)
from deploy.cpu.layout import activation_shape
from deploy.cpu.neighbours import neighbours
from deploy.graph.place import Layout
from deploy.schedules import Fields, with_fields
from lut import ops
from lut.ops import DType, Operation, dtype_of, with_dtype

# Raised when a schedule's meaning or a kernel's speed changes: older tuning records are not used.
KERNELS_VERSION = 7

MODULES: dict[type[Operation], tuple[ModuleType, ...]] = {
    ops.AcrossChannels: (across_channels,),
    ops.ArgMax: (arg_max,),
    ops.ChannelSlice: (channel_slice,),
    ops.Concat: (concat,),
    ops.Conv: (
        conv_winograd_int8,
        conv_int8,
        conv_depthwise,
        conv_multiplied,
        conv_dilated,
        conv_winograd,
        conv_direct,
    ),
    ops.Attention: (attention,),
    ops.ChannelNorm: (channel_norm,),
    ops.Convert: (convert,),
    ops.Depthwise: (depthwise,),
    ops.Elementwise: (elementwise,),
    ops.GlobalMean: (global_mean,),
    ops.Labels: (labels_end,),
    ops.Logits: (logits_end,),
    ops.Masks: (masks,),
    ops.GlobalPool: (global_pool,),
    ops.InvertedResidual: (inverted_residual,),
    ops.LocalGlobal: (local_global,),
    ops.Pointwise: (pointwise, upsample_add),
    ops.Pool: (pool,),
    ops.Product: (product,),
    ops.Resample: (resample,),
    ops.Resize: (resize,),
    ops.Stem: (stem,),
    ops.StemBlock: (stem_block,),
    ops.StemPair: (stem_pair,),
    ops.Unpool: (unpool,),
}
_IN_BYTES = (
    channel_slice, concat, conv_depthwise, conv_int8, conv_winograd_int8, convert, depthwise,
    elementwise, global_mean, global_pool, inverted_residual, labels_end, local_global, pointwise,
    pool, resample, resize, stem, stem_block, stem_pair, upsample_add,
)  # fmt: skip
_WIDE = (inverted_residual, pointwise, upsample_add)  # write float32 where asked to
_FROM_IMAGE = (ops.Stem, ops.StemBlock, ops.StemPair)
_TO_IMAGE = (ops.ArgMax, ops.Labels, ops.Logits, ops.Masks)


def module_of(op: Operation) -> ModuleType:
    """The kernel module of an operation; KeyError where there is none."""
    for module in MODULES[type(op)]:
        if not hasattr(module, "supports") or module.supports(op):
            return module
    raise KeyError(op)


def emit(op: Operation, isa: Isa, *, schedule: Any = None, threads: int = 2) -> Any:  # noqa: ANN401
    """The PrimFunc of an operation, by the rule unless a schedule is given."""
    module = module_of(op)
    if schedule is None:
        schedule = module.default_schedule(op, isa, threads)
    return module.emit(op, schedule, isa)


def has_kernel(op: Operation) -> bool:
    """Whether there is a kernel for an operation."""
    try:
        module_of(op)
    except KeyError:
        return False
    return True


@dataclass(frozen=True)
class CpuKernels:
    """`deploy.graph.place.Kernels` of one instruction set and number of threads.

    A kernel's schedule is the measured winner where there is one, else its module's rule:
    `measured` holds the fields of schedules by operation, as text; deploy.tuning fills it. `exact`
    asks for plain sums everywhere. `maps` is the type that maps lie in memory as, `elements` what
    they can be made of, by type.
    """

    isa: Isa
    threads: int
    measured: Mapping[str, Fields] = field(default_factory=dict)
    exact: bool = False
    maps: DType = "float32"
    elements: Mapping[DType, Element] = field(default_factory=lambda: {"float32": FLOAT32})

    def isa_for(self, op: Operation) -> Isa:
        """The instruction set, with the element that this operation's maps are made of."""
        return replace(self.isa, element=self.elements[dtype_of(op)])

    def stored(self, op: Operation, *, scores: bool = False) -> Operation:
        """As `Kernels.stored`: what is multiplied for scores may be bfloat16 where the kernel
        writes float32."""
        if self.maps != "bfloat16":  # of int8 `deploy.graph.in_bytes` decides
            return op
        narrow = with_dtype(op, self.maps)
        if not scores:
            return narrow
        if op.macs and hasattr(narrow, "wide") and module_of(narrow) in _WIDE:
            return replace(narrow, wide=True)  # type: ignore[call-arg]
        return op

    def storage(self, dtype: DType) -> str:
        """As `Kernels.storage`."""
        return self.elements[dtype].stored

    def has(self, op: Operation) -> bool:
        """As `Kernels.has`."""
        return has_kernel(op) and (dtype_of(op) != "int8" or module_of(op) in _IN_BYTES)

    def exactly(self, op: Operation) -> Operation:
        """As `Kernels.exactly`: only what rounds otherwise changes its name."""
        if isinstance(op, ops.Conv) and module_of(op) is conv_winograd:
            return replace(op, exact=True)
        return op

    def rule(self, op: Operation) -> Any:  # noqa: ANN401 - a Schedule
        """What the kernel's module chooses without measuring."""
        return module_of(op).default_schedule(op, self.isa_for(op), self.threads)

    def schedule(self, op: Operation) -> Any:  # noqa: ANN401 - a Schedule
        """The schedule to emit an operation with."""
        rule, values = self.rule(op), self.measured.get(str(op))
        return rule if values is None else with_fields(rule, values)

    def alternatives(self, op: Operation, best: Any) -> Iterator[Any]:  # noqa: ANN401 - a Schedule
        """What to measure while `best` is the fastest schedule known.

        First the ways to share the work that the kernel's module offers, each with its own tiles
        and chunks: fields that depend on one another, such as mode, phases and tasks, are not
        reached one at a time. Then the neighbours of `best`.
        """
        module = module_of(op)
        if hasattr(module, "alternatives"):
            yield from module.alternatives(op, self.isa_for(op), self.threads)
        yield from neighbours(best, self.isa)

    def emit(self, op: Operation, schedule: Any = None) -> Any:  # noqa: ANN401 - a PrimFunc
        """As `Kernels.emit`, or with another schedule."""
        chosen = self.schedule(op) if schedule is None else schedule
        return module_of(op).emit(op, chosen, self.isa_for(op))

    def constants(self, op: Operation, weights: Mapping[str, Any]) -> list[NDArray[Any]]:
        """As `Kernels.constants`."""
        packed: list[NDArray[Any]] = module_of(op).pack(op, self.isa_for(op), **weights)
        return packed

    def layout(self, op: Operation) -> Layout:
        """Blocked (1, C/c, H, W, c), but for the image and what has its size."""
        from_image = isinstance(op, _FROM_IMAGE) or (
            isinstance(op, ops.Conv) and op.source != "maps"
        )
        return Layout(True, not isinstance(op, _TO_IMAGE), from_image)

    def own_shape(self, channels: int, height: int, width: int) -> tuple[int, ...]:
        """(1, C/c, H, W, c)."""
        return activation_shape(self.isa, channels, height, width)
