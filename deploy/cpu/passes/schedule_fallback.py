"""ScheduleFallback: loops for what no kernel of ours covers."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import s_tir

from deploy.graph.place import KERNEL, OPERATION
from deploy.schedules import TRACE, Fields
from lut.errors import UserError

# Below, a fork and join (1.5 us) costs more than it saves: operations of the whole loop nest.
_PARALLEL_WORK = 1 << 15
_MANY_TASKS = 16  # enough for threads to share evenly
_REGISTERS = 12  # sums that are held at once; half of them hide an FMA's latency


@tvm.transform.module_pass(opt_level=0, name="ScheduleFallback")
class ScheduleFallback:
    """Give every PrimFunc that TVM's lowering made a schedule: a measured one, or the rule's.

    Before: plain loop nests. After: the trace of the tuning record where there is one for exactly
    this loop nest; else each nest parallel over its outer loops and vectorised over its innermost
    one, sums of some rows held in registers. `lanes` is the vector's length in floats. Runs after
    FuseTIR. Raises UserError where a record does not fit.
    """

    def __init__(self, lanes: int, measured: Mapping[str, Fields]) -> None:
        self.lanes, self.measured = lanes, measured

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        updated = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
        for var, function in left_to_tvm(module).items():
            key = workload_key(function)
            values = self.measured.get(key)
            if values is None:
                scheduled = rule_schedule(function, self.lanes)
            else:
                scheduled = apply_trace(function, values)
            scheduled = scheduled.without_attr("global_symbol").with_attr(OPERATION, key)
            updated.update_func(var, scheduled)
        return updated


def left_to_tvm(module: tvm.IRModule) -> dict[tvm.ir.GlobalVar, tvm.tirx.PrimFunc]:
    """The PrimFuncs of a module that are not kernels of ours."""
    return {
        var: function
        for var, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc) and KERNEL not in (function.attrs or {})
    }


def workload_key(function: tvm.tirx.PrimFunc) -> str:
    """Equal for equal unscheduled loop nests, whatever they are called: a hash of their text.

    TVM's structural hash is not promised to be the same in another process; the text is, for one
    version of TVM, and a version that prints another text finds no record.
    """
    text = function.without_attr("global_symbol").script()
    return f"tvm:{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def apply_trace(function: tvm.tirx.PrimFunc, values: Fields) -> tvm.tirx.PrimFunc:
    """The function as a tuning record's trace schedules it; raises UserError if it does not fit."""
    schedule = _open(function)
    try:
        s_tir.schedule.Trace.apply_json_to_schedule(values[TRACE], schedule)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[-1][:150]
        raise UserError(
            f"the tuning record for {workload_key(function)} does not fit its loops ({line}); "
            "delete it and tune again"
        ) from error
    return schedule.mod["main"]


def rule_schedule(function: tvm.tirx.PrimFunc, lanes: int) -> tvm.tirx.PrimFunc:
    """The function with the rule's schedule; as it is, where TVM's primitives do not take it
    (loops that are neither spatial nor a reduction, such as those of a sort)."""
    schedule = _open(function)
    try:
        root = schedule.get_sblock("root")
        for block in schedule.get_child_blocks(root):
            if _can_inline(schedule, block):
                schedule.compute_inline(block)
        for block in schedule.get_child_blocks(root):
            _schedule_nest(schedule, block, lanes)
    except s_tir.schedule.ScheduleError:
        return function
    return schedule.mod["main"]


def _open(function: tvm.tirx.PrimFunc) -> Any:  # noqa: ANN401 - a Schedule
    # Anew, since a schedule also changes functions that share their loops with its own.
    named = s_tir.renew_defs(function).with_attr("global_symbol", "main")
    return s_tir.Schedule(tvm.IRModule({"main": named}), error_render_level="none")


def _kinds(schedule: Any, block: Any) -> list[str]:  # noqa: ANN401
    """For each loop variable of a block: spatial, reduction or other."""
    types = tvm.tirx.IterVar
    names = {types.DataPar: "spatial", types.CommReduce: "reduction"}
    return [names.get(var.iter_type, "other") for var in schedule.get(block).iter_vars]


def _can_inline(schedule: Any, block: Any) -> bool:  # noqa: ANN401
    """Whether each of its values is read by one nest, once."""
    consumers = schedule.get_consumers(block)
    if len(consumers) != 1 or set(_kinds(schedule, block)) - {"spatial"}:
        return False
    reader, written = schedule.get(consumers[0]), schedule.get(block).writes[0].source
    if set(_kinds(schedule, consumers[0])) - {"spatial"}:
        return False
    # A value per channel that is spread over a map would be computed anew for every pixel.
    places = [
        var
        for region in reader.reads
        if region.source.same_as(written)
        for axis in region.region
        for var in tvm.tirx.analysis.undefined_vars(axis.min)
    ]
    return all(
        int(axis.dom.extent) == 1 or any(axis.var.same_as(var) for var in places)
        for axis in reader.iter_vars
    )


def _schedule_nest(schedule: Any, block: Any, lanes: int) -> None:  # noqa: ANN401
    loops, kinds = schedule.get_loops(block), _kinds(schedule, block)
    if not loops or len(loops) != len(kinds) or "other" in kinds:
        return
    spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "spatial"]
    sums = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == "reduction"]
    if not spatial:
        return
    extents = [int(schedule.get(loop).extent) for loop in loops]
    schedule.reorder(*spatial, *sums)
    *outer, last = spatial
    width = _vector(int(schedule.get(last).extent), lanes)
    column, lane = schedule.split(last, [None, width])
    rows, rows_inside = 1, []
    if sums and outer and len(schedule.get(block).writes) == 1:
        most = _REGISTERS * lanes // max(width, lanes)
        rows = _divisor(int(schedule.get(outer[-1]).extent), most)
        outer[-1], row = schedule.split(outer[-1], [None, rows])
        rows_inside = [row]
    if math.prod(extents) >= _PARALLEL_WORK:
        # Rows, not single columns, unless a row is all there is.
        before = math.prod(int(schedule.get(loop).extent) for loop in outer[:-1])
        shared = outer[:-1] if before >= _MANY_TASKS else outer
        schedule.parallel(schedule.fuse(*shared) if shared else column)
    vectorize = schedule.vectorize if width > 1 else lambda _: None
    if not sums:
        vectorize(lane)
    elif len(schedule.get(block).writes) == 1:
        schedule.reorder(column, *sums, *rows_inside, lane)
        written = schedule.cache_write(block, 0, "global")  # as small as it becomes: registers
        schedule.reverse_compute_at(written, column)

        def in_registers(nest: Any) -> None:  # noqa: ANN401
            inner = schedule.get_loops(nest)
            vectorize(inner[-1])
            if rows > 1:
                schedule.unroll(inner[-2])

        in_registers(block)
        in_registers(written)
        # Last: TVM binds no loop around a sum whose start is a block of its own.
        in_registers(schedule.decompose_reduction(block, sums[0]))


def _divisor(extent: int, most: int) -> int:
    return next(n for n in range(most, 0, -1) if extent % n == 0)


def _vector(extent: int, lanes: int) -> int:
    """Two vectors, one, or a part of one: what divides the extent, so that nothing is left over."""
    width = 2 * lanes
    while extent % width:
        width //= 2
    return width
