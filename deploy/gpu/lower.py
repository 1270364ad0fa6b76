"""From a module of scheduled kernels to their source and the plan of a frame."""

from dataclasses import dataclass
from typing import Any

import tvm
import tvm_ffi

from deploy.arena import Region, aligned
from deploy.gpu.plan import Entry, Extents, Launch, Plan
from deploy.graph.frame import Space, Tensor, plan_frame
from lut.errors import UserError

_AXES = {f"{index}.{axis}" for index in ("blockIdx", "threadIdx") for axis in "xyz"}


@dataclass(frozen=True)
class KernelCode:
    """A PrimFunc as the device sees it: the kernel's name, the PrimFunc's parameters that its
    pointers are, by number, and its launch."""

    kernel: str
    arguments: tuple[int, ...]
    grid: Extents
    block: Extents


@dataclass(frozen=True)
class Lowered:
    """Source for the device, the plan, and the bytes of the constants."""

    source: str
    plan: Plan
    constants: bytes


def lower_module(module: tvm.IRModule, target: tvm.target.Target) -> Lowered:
    """Lower every function of a module whose ``main`` (and other entries) call PrimFuncs only.

    Raises UserError for an operator that became no PrimFunc.
    """
    frame = plan_frame(module)
    functions = {name: module[name] for name in frame.kernels}
    source, codes = lower_kernels(functions, target)
    head = len(frame.constants)
    given = next(iter(frame.entries.values())).input
    maps = head + aligned(given.bytes)
    bases = {Space.CONSTANT: 0, Space.INPUT: head, Space.MAP: maps, Space.OUTPUT: maps}

    def region(tensor: Tensor) -> Region:
        return Region(bases[tensor.space] + tensor.offset, tensor.bytes)

    entries = {
        name: Entry(
            tuple(
                Launch(
                    code.kernel,
                    code.grid,
                    code.block,
                    tuple(region(call.arguments[number]) for number in code.arguments),
                )
                for call in entry.calls
                for code in codes[call.kernel]
            ),
            region(entry.output),
        )
        for name, entry in frame.entries.items()
    }
    end = maps + frame.map_bytes
    return Lowered(source, Plan(end, head, region(given), entries), frame.constants)


def lower_kernels(
    functions: dict[str, Any], target: tvm.target.Target
) -> tuple[str, dict[str, list[KernelCode]]]:
    """Source of all the kernels, and what each PrimFunc launches, in order."""
    split: dict[str, tvm.IRModule] = {}

    @tvm.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
            # Here kernels and the host's functions, which only launch them, are apart.
            if info.name.endswith("MakePackedAPI"):
                split["module"] = module

    named = {name: f.with_attr("global_symbol", name) for name, f in functions.items()}
    context = tvm.transform.PassContext.current()
    with tvm.transform.PassContext(opt_level=context.opt_level, instruments=[Watch()]):
        built = tvm.tirx.build(tvm.IRModule(named), target=target)
    codes = {
        var.name_hint: _launches(function)
        for var, function in split["module"].functions.items()
        if var.name_hint in functions
    }
    return str(built.imports[0].inspect_source()), codes


def _launches(function: tvm.tirx.PrimFunc) -> list[KernelCode]:
    numbers = {parameter: number for number, parameter in enumerate(function.params)}
    found: list[KernelCode] = []
    missing: list[str] = []  # raised behind the walk, which would make another error of it

    def declare(node: tvm.tirx.DeclBuffer) -> None:
        if not missing:  # else it may be a view of what is refused
            numbers[node.buffer] = numbers[node.data.args[0]]  # a view of a parameter

    def refuse(_node: tvm.tirx.AllocBuffer) -> None:
        missing.append("memory between two kernels")

    def read(call: tvm.ir.Call) -> None:
        if call.op.name != "tirx.call_ffi_kernel":
            return
        axes = [str(axis) for axis in call.attrs["launch_params"]]
        missing.extend(axis for axis in axes if axis not in _AXES)
        if missing:
            return
        name, *pointers = call.args[: len(call.args) - len(axes)]
        sizes = dict(zip(axes, map(int, call.args[len(call.args) - len(axes) :]), strict=True))
        found.append(
            KernelCode(
                str(name.value),
                tuple(numbers[pointer.args[0]] for pointer in pointers),
                _extents(sizes, "blockIdx"),
                _extents(sizes, "threadIdx"),
            )
        )

    tvm_ffi.structural_walk(
        function.body,
        [(tvm.tirx.DeclBuffer, declare), (tvm.tirx.AllocBuffer, refuse), (tvm.ir.Call, read)],
    )
    if missing:
        raise UserError(
            f"the operator {function.attrs['global_symbol']} needs {missing[0]}, which GPU targets "
            "do not plan; replace it in the network"
        )
    return found


def _extents(sizes: dict[str, int], prefix: str) -> Extents:
    x, y, z = (sizes.get(f"{prefix}.{axis}", 1) for axis in "xyz")
    return x, y, z
