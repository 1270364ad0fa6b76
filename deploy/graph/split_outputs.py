"""SplitOutputs: one entry per output."""

import tvm
from tvm import relax

from deploy.graph.ends import LOGITS


@tvm.transform.module_pass(opt_level=0, name="SplitOutputs")
class SplitOutputs:
    """Give the second output, the logits, an entry of its own.

    Before: ``main(image) -> (labels, logits)``. After: ``main(image) -> labels`` and
    ``logits(image) -> logits``; equal kernels are shared, so the library grows by the last one
    only. A module whose ``main`` has one output is left as it is. Runs once our kernels are
    placed, and before the operators left to TVM become loop nests.
    """

    def transform_module(self, mod: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        main = mod["main"]
        if not isinstance(main.ret_ty, relax.TupleType):
            return mod
        mod = tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)
        mod["main"] = _returning(main, 0, "main")
        mod[LOGITS] = _returning(main, 1, LOGITS)
        return relax.transform.DeadCodeElimination(["main", LOGITS])(mod)


def _returning(function: relax.Function, index: int, name: str) -> relax.Function:
    """A copy, with variables of its own, that returns one field of the result tuple."""
    copy = relax.utils.copy_with_new_vars(function)
    bindings = [binding for block in copy.body.blocks for binding in block.bindings]
    *body, result = bindings
    assert isinstance(result.value, relax.Tuple), "the importer binds the outputs last, as a tuple"
    builder = relax.BlockBuilder()
    with builder.function(name, params=list(copy.params)):
        with builder.dataflow():
            for binding in body:
                builder.emit_normalized(binding)
            output = builder.emit_output(result.value.fields[index])
        builder.emit_func_output(output)
    return builder.get()[name].with_attrs({**function.attrs, "global_symbol": name})
