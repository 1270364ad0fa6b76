"""StoreHalf: the maps between kernels lie in memory as half; arithmetic stays in fp32."""

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm_ffi.structural import structural_mutate

from deploy.graph.place import called_kernel
from deploy.graph.view import shape_of
from lut.ops import Resize

FLOAT, HALF = "float32", "float16"


@tvm.transform.module_pass(opt_level=0, name="StoreHalf")
class StoreHalf:
    """Halve the memory traffic of a module of scheduled kernels.

    Before: every map is float32. After: a map that one kernel writes and another reads is float16;
    a kernel converts what it loads and what it stores, and is otherwise as it was. Float32 remain
    the network's input, its result and the class scores that the result is made from, so that the
    arg max sees no rounded score, and constants: they are a hundredth of the traffic, and each
    would be converted once per use (docs/decisions/0022). Kernels of ours and TVM's alike; runs
    last.
    """

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        rewriter = _Rewriter(module)
        for var, function in module.functions.items():
            if isinstance(function, relax.Function):
                rewriter.add(var.name_hint, function)
        return rewriter.builder.get()


class _Rewriter:
    """A module under construction; entries share kernels whose maps have the same types."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.builder = relax.BlockBuilder()
        self._module = module
        self._halved: dict[tuple[str, tuple[bool, ...]], tvm.ir.GlobalVar] = {}

    def add(self, name: str, function: relax.Function) -> None:
        """Add an entry and the kernels that it calls."""
        values = {b.var: b.value for block in function.body.blocks for b in block.bindings}
        result = function.body.body
        whole = {*function.params, *_scores(self._module, values, result)}
        new: dict[relax.Var, relax.Var] = {parameter: parameter for parameter in function.params}

        def becomes_half(value: relax.Expr) -> bool:
            is_map = isinstance(value, relax.Var) and value not in whole
            return is_map and value.ty.dtype == FLOAT

        with self.builder.function(name, params=list(function.params)):
            with self.builder.dataflow():
                for var, value in values.items():
                    if not _calls_kernel(value):  # an alias, or what `lower_module` refuses
                        new[var] = new[value] if isinstance(value, relax.Var) else var
                        continue
                    kernel, arguments = value.args[0], value.args[1].fields
                    halved = tuple(becomes_half(operand) for operand in (*arguments, var))
                    given = [new[a] if isinstance(a, relax.Var) else a for a in arguments]
                    dtype = HALF if halved[-1] else var.ty.dtype
                    out_ty = relax.TensorType(shape_of(var), dtype)
                    call = relax.call_tir(self._kernel(kernel, halved), given, out_ty=out_ty)
                    new[var] = self.builder.emit(call)
                output = self.builder.emit_output(new[result])
            self.builder.emit_func_output(output)

    def _kernel(self, kernel: tvm.ir.GlobalVar, halved: tuple[bool, ...]) -> tvm.ir.GlobalVar:
        key = kernel.name_hint, halved
        if key not in self._halved:
            function = halve(self._module[kernel], halved)
            self._halved[key] = self.builder.add_func(function, kernel.name_hint)
        return self._halved[key]


def _calls_kernel(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and value.op.name == "relax.call_tir"


def _scores(
    module: tvm.IRModule, values: Mapping[relax.Var, relax.Expr], result: relax.Var
) -> set[relax.Var]:
    """The result, the floats that labels are decided from, and what those are resized from: the
    same maps in every entry of a network."""
    found = {result}
    value = values.get(result)
    decides = result.ty.dtype != FLOAT or called_kernel(module, value) == Resize.kind
    read: Sequence[relax.Expr] = ()
    if isinstance(value, relax.Var):
        read = [value]
    elif value is not None and decides and _calls_kernel(value):
        read = value.args[1].fields
    for operand in read:
        if isinstance(operand, relax.Var):
            found |= _scores(module, values, operand)
    return found


def halve(function: tvm.tirx.PrimFunc, halved: Sequence[bool]) -> tvm.tirx.PrimFunc:
    """A kernel some of whose float32 parameters are float16, as `halved` says of each: it converts
    as it loads and stores, to nearest, ties to even."""
    new = {p: p.with_dtype(HALF) for p, half in zip(function.params, halved, strict=True) if half}

    def find_view(node: tvm.tirx.DeclBuffer) -> None:
        if node.data.args[0] in new:
            new[node.buffer] = node.buffer.with_dtype(HALF)

    def load(node: tvm.ir.TensorLoad, mutator: Any) -> Any:  # noqa: ANN401
        if node.source not in new:
            return mutator.default_mutate(node)
        indices = [mutator.mutate(index) for index in node.indices]
        return tvm.tirx.Cast(node.ty.dtype, tvm.tirx.BufferLoad(new[node.source], indices))

    def store(node: tvm.tirx.BufferStore, mutator: Any) -> Any:  # noqa: ANN401
        if node.buffer not in new:
            return mutator.default_mutate(node)
        indices = [mutator.mutate(index) for index in node.indices]
        lanes = str(node.value.ty.dtype).removeprefix(FLOAT)
        value = tvm.tirx.Cast(HALF + lanes, mutator.mutate(node.value))
        return tvm.tirx.BufferStore(new[node.buffer], value, indices)

    def view(node: tvm.tirx.DeclBuffer, mutator: Any) -> Any:  # noqa: ANN401
        if node.buffer not in new:
            return mutator.default_mutate(node)
        return tvm.tirx.DeclBuffer(new[node.buffer], data=new[node.data.args[0]].data)

    tvm_ffi.structural_walk(function.body, [(tvm.tirx.DeclBuffer, find_view)])
    body = structural_mutate(
        function.body,
        [
            (tvm.ir.TensorLoad, load),
            (tvm.tirx.BufferStore, store),
            (tvm.tirx.DeclBuffer, view),
            # In what a block says that it reads and writes.
            (tvm.ir.Var, lambda node, _: new.get(node, node)),
        ],
    )
    parameters = [new.get(parameter, parameter) for parameter in function.params]
    return tvm.tirx.PrimFunc(parameters, body, function.ret_type, function.attrs)
