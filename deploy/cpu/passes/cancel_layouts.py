"""CancelLayouts: no conversion between two kernels."""

from dataclasses import replace

import tvm
from tvm import relax

from deploy.cpu.kernels import CpuKernels
from deploy.graph.place import KernelEmitter, called_conversion
from deploy.graph.view import Graph
from lut.ops import Convert, DType


@tvm.transform.module_pass(opt_level=0, name="CancelLayouts")
class CancelLayouts:
    """Let a kernel read what another wrote in the blocked layout.

    Before: ``kernel -> unpack -> pack -> kernel``, or several packs of one planar value. After:
    ``kernel -> kernel``, and one pack for each value; where the two kernels' maps are of different
    types, one conversion between these. Conversions stay where an operator of TVM's own reads or
    writes. Runs after every pass that places kernels.
    """

    def __init__(self, kernels: CpuKernels) -> None:
        self.kernels = kernels

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        graph = Graph(module["main"])
        replaced: dict[relax.Var, relax.Var] = {}
        retyped: dict[relax.Var, tuple[Convert, list[relax.Expr]]] = {}
        packed: dict[tuple[relax.Var, DType], relax.Var] = {}
        for var in graph.vars:
            pack = called_conversion(module, graph.definition(var), "pack")
            if pack is None:
                continue
            planar = graph.definition(var).args[1].fields[0]
            producer = graph.definition(planar)
            unpack = called_conversion(module, producer, "unpack")
            if unpack is not None and unpack.dtype == pack.dtype:
                replaced[var] = producer.args[1].fields[0]
            elif (planar, pack.dtype) in packed:
                replaced[var] = packed[planar, pack.dtype]
            else:
                packed[planar, pack.dtype] = var
                if unpack is not None:
                    source, *ours = producer.args[1].fields
                    _, *theirs = graph.definition(var).args[1].fields
                    retyped[var] = _between(unpack, pack), [source, *ours, *theirs]
        if not replaced and not retyped:
            return module
        mutator = _Replace(module, self.kernels, replaced, retyped)
        function = mutator.visit_expr(module["main"])
        mutator.builder_.update_func(module.get_global_var("main"), function)
        return relax.transform.DeadCodeElimination(["main"])(mutator.builder_.get())


@relax.expr_functor.mutator
class _Replace(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(
        self,
        module: tvm.IRModule,
        kernels: CpuKernels,
        replaced: dict[relax.Var, relax.Var],
        retyped: dict[relax.Var, tuple[Convert, list[relax.Expr]]],
    ) -> None:
        super().__init__(module)
        self.replaced, self.retyped = replaced, retyped
        self.emitter = KernelEmitter(self.builder_, kernels)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        if binding.var in self.replaced:
            self.set_var_remap(binding.var, self.visit_expr(self.replaced[binding.var]))
        elif binding.var in self.retyped:
            operation, given = self.retyped[binding.var]
            arguments = [self.visit_expr(argument) for argument in given]
            self.set_var_remap(binding.var, self.emitter.converted(operation, arguments))
        else:
            super().visit_var_binding_(binding)


def _between(unpack: Convert, pack: Convert) -> Convert:
    """From the maps that one unpacks to those that the other makes."""
    if pack.dtype == "float32":
        return replace(unpack, direction="widen")
    assert unpack.dtype == "float32", "between two types that are not float32"
    return replace(pack, direction="narrow")
