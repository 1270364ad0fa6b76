"""From the deployable ONNX graph to a GPU's source and the plan of a frame: one list of passes."""

from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.s_tir import dlight

from deploy.artifact import KernelInfo
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.lower import Lowered, lower_module
from deploy.gpu.store_half import StoreHalf
from deploy.graph.describe import describe_kernels
from deploy.graph.ends import with_logits_output
from deploy.graph.importer import import_graph
from deploy.graph.job import Job
from deploy.graph.passes import OnPass, Pass, run_passes
from deploy.graph.place import KERNEL, Place
from deploy.graph.split_outputs import SplitOutputs
from deploy.precision import FP16, FP32, Precision


def gpu_passes(kernels: GpuKernels, precision: Precision = FP32) -> list[Pass]:
    """Every pass between the imported graph and kernels that can be launched, in order."""
    return [
        Place(kernels),
        SplitOutputs(),
        # What no kernel of ours covers: each operator becomes a loop nest, neighbours are fused,
        # and TVM's own rules give the nests their threads.
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        _MarkScheduled(),
        dlight.ApplyDefaultSchedule(
            dlight.gpu.Matmul(),
            dlight.gpu.Reduction(),
            dlight.gpu.GeneralReduction(),
            dlight.gpu.Fallback(),
        ),
        *([StoreHalf()] if precision is FP16 else []),
    ]


@tvm.transform.module_pass(opt_level=0, name="MarkScheduled")
class _MarkScheduled:
    """Tell TVM's schedule rules which functions are kernels of ours."""

    def transform_module(self, module: tvm.IRModule, _context: object) -> tvm.IRModule:
        """Apply the pass."""
        marked = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
        for var, function in module.functions.items():
            if isinstance(function, tvm.tirx.PrimFunc) and KERNEL in (function.attrs or {}):
                marked[var] = function.with_attr("tirx.is_scheduled", True)
        return marked


@dataclass(frozen=True)
class CompiledSource:
    """A network as the device's compiler gets it."""

    lowered: Lowered
    kernels: tuple[KernelInfo, ...]


def compile_source(job: Job, on_pass: OnPass | None = None) -> CompiledSource:
    """Source, plan and constants of a graph. Schedules are the rule's unless the job's kernels have
    others; `on_pass` is `run_passes`'s. Raises UserError for an operator that cannot be lowered."""
    kernels = job.kernels or GpuKernels()
    assert isinstance(kernels, GpuKernels)
    target = tvm.target.Target(job.target.config, host={"kind": "llvm"})
    module = import_graph(with_logits_output(job.graph))
    with target:
        precision = job.target.precision
        passes = gpu_passes(kernels, precision) if job.passes is None else job.passes
        module = run_passes(module, passes, on_pass, job.dump)
    return CompiledSource(lower_module(module, target), describe_kernels(module, kernels.measured))
