"""From the deployable ONNX graph to a library: one list of passes, read from top to bottom."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import onnx
import tvm
from tvm import relax

from deploy.ends import with_logits_output
from deploy.importer import import_graph
from deploy.passes.split_outputs import SplitOutputs
from deploy.targets import Target
from lut.errors import UserError

Pass: TypeAlias = tvm.transform.Pass
OnPass = Callable[[str], None]


def network_passes() -> list[Pass]:
    """Every pass between the imported graph and the virtual machine's code, in order."""
    return [
        SplitOutputs(),
        # TVM's own lowering: each operator becomes a loop nest, neighbours are fused.
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        # To the virtual machine: memory is planned once, kernels are called directly.
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]


@dataclass(frozen=True)
class Compiled:
    """A built library, still in memory, and how it came about."""

    executable: relax.VMExecutable
    target: Target
    kernels: tuple[str, ...]
    seconds: float

    def save(self, path: Path) -> None:
        """Link the shared library; raises UserError where no C compiler is found."""
        try:
            self.executable.export_library(str(path))
        except (RuntimeError, ValueError, OSError) as error:
            line = str(error).strip().splitlines()[-1][:200]
            raise UserError(
                f"linking failed ({line}); install a C compiler such as gcc, or name it in CXX"
            ) from error


def compile_graph(
    model: onnx.ModelProto,
    target: Target,
    *,
    passes: Sequence[Pass] | None = None,
    on_pass: OnPass | None = None,
) -> Compiled:
    """Compile a graph with both ends for `target`.

    The library's entries: ``main(image)`` gives the graph's output; where that is the label map,
    ``logits(image)`` gives the class scores behind it, from the same kernels. `on_pass` is told
    each pass's name before it runs. Raises UserError for an operator that TVM does not know.
    """
    start = time.perf_counter()
    module = import_graph(with_logits_output(model))
    instruments = [_Watch(on_pass)] if on_pass else []
    with tvm.target.Target(target.config), tvm.transform.PassContext(instruments=instruments):
        for step in network_passes() if passes is None else passes:
            module = step(module)
    if on_pass:
        on_pass("machine code")
    kernels = tuple(
        var.name_hint
        for var, function in module.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    )
    executable = relax.build(module, tvm.target.Target(target.config), relax_pipeline=None)
    return Compiled(executable, target, kernels, time.perf_counter() - start)


@tvm.instrument.pass_instrument
class _Watch:
    """Reports the names of the passes as they start."""

    def __init__(self, on_pass: OnPass) -> None:
        self.on_pass = on_pass

    def run_before_pass(self, _module: tvm.IRModule, info: tvm.transform.PassInfo) -> None:
        self.on_pass(info.name)
