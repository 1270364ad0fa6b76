"""InsertClock: an entry that tells how long each kernel took."""

from typing import Any

import tvm
from tvm import relax

from deploy import ir
from deploy.measure.clock import BUFFER_WORDS, HEADER, WORDS

ENTRY = "timed"
TICK = "hmseg_tick"
_MONOTONIC = 1  # Linux's CLOCK_MONOTONIC


@tvm.transform.module_pass(opt_level=0, name="InsertClock")
class InsertClock:
    """Add the entry ``timed(image, ticks)``: ``main`` with the clock read around every kernel.

    Before: ``main(image)``. After: the same and, for measuring only, ``timed``, which appends a
    reading to `ticks` (`deploy.measure.clock`) before its first kernel and after each. The kernels
    (`called_functions` of ``main``) are the same functions, called in the same order on buffers
    that are planned alike. When: last, after memory is planned and kernels are called directly.
    """

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        result = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
        tick = tvm.ir.GlobalVar(TICK)
        result[tick] = _tick().with_attr("global_symbol", TICK)
        result[ENTRY] = _timed(module["main"], tick)
        return result


def called_functions(function: relax.Function) -> list[str]:
    """The names of the kernels that a lowered function calls, in order."""
    return [
        binding.value.op.name_hint
        for block in function.body.blocks
        for binding in block.bindings
        if calls_kernel(binding.value)
    ]


def calls_kernel(value: Any) -> bool:  # noqa: ANN401 - any Relax expression
    """Whether a bound value of a lowered function is the call of a kernel."""
    return isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.GlobalVar)


def _tick() -> Any:  # noqa: ANN401 - a PrimFunc
    """PrimFunc(ticks): ticks[0] counts the words written after it; a full buffer is left alone."""

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        ticks = f.param("ticks", (BUFFER_WORDS,), "int64")

        def body() -> None:
            used = ir.bind(ticks[0])
            with ir.when(used + HEADER + WORDS <= BUFFER_WORDS), ir.then():
                ir.call_c("clock_gettime", _MONOTONIC, ir.address(ticks, used + HEADER))
                ir.store_scalar(ticks, used + WORDS, 0)

        return body

    return ir.prim_func(TICK, signature)


def _timed(main: relax.Function, tick: tvm.ir.GlobalVar) -> relax.Function:
    copy = relax.utils.copy_with_new_vars(main)
    ticks = relax.Var("ticks", relax.TensorType((BUFFER_WORDS,), "int64"))

    def read_clock() -> relax.Binding:
        nothing = relax.TupleType([])
        return relax.VarBinding(relax.Var("_", nothing), relax.Call(tick, [ticks]))

    bindings: list[Any] = []
    started = False
    blocks = copy.body.blocks
    for binding in (binding for block in blocks for binding in block.bindings):
        kernel = calls_kernel(binding.value)
        if kernel and not started:
            bindings.append(read_clock())
            started = True
        bindings.append(binding)
        if kernel:
            bindings.append(read_clock())
    body = relax.SeqExpr([relax.BindingBlock(bindings)], copy.body.body)
    attrs = {**main.attrs, "global_symbol": ENTRY, "num_input": 2}
    return relax.Function([*copy.params, ticks], body, copy.ret_ty, is_pure=False).with_attrs(attrs)
