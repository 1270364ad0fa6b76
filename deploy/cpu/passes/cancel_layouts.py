"""CancelLayouts: no conversion between two kernels."""

import tvm
from tvm import relax

from deploy.graph.place import called_kernel
from deploy.graph.view import Graph


@tvm.transform.module_pass(opt_level=0, name="CancelLayouts")
class CancelLayouts:
    """Let a kernel read what another wrote in the blocked layout.

    Before: ``kernel -> unpack -> pack -> kernel``, or several packs of one planar value. After:
    ``kernel -> kernel``, and one pack for each value. Conversions stay where an operator of TVM's
    own reads or writes. Runs after every pass that places kernels.
    """

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        graph = Graph(module["main"])
        replaced: dict[relax.Var, relax.Var] = {}
        packed: dict[relax.Var, relax.Var] = {}
        for var in graph.vars:
            value = graph.definition(var)
            if called_kernel(module, value) != "pack":
                continue
            planar = value.args[1].fields[0]
            producer = graph.definition(planar)
            if called_kernel(module, producer) == "unpack":
                replaced[var] = producer.args[1].fields[0]
            elif planar in packed:
                replaced[var] = packed[planar]
            else:
                packed[planar] = var
        if not replaced:
            return module
        mutator = _Replace(module, replaced)
        function = mutator.visit_expr(module["main"])
        mutator.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(mutator.builder_.get())


@relax.expr_functor.mutator
class _Replace(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: tvm.IRModule, replaced: dict[relax.Var, relax.Var]) -> None:
        super().__init__(module)
        self.replaced = replaced

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var in self.replaced:
            self.set_var_remap(binding.var, self.visit_expr(self.replaced[binding.var]))
        else:
            super().visit_var_binding_(binding)
