"""From the deployable ONNX graph to a library: one list of passes, read from top to bottom."""

from collections.abc import Mapping
from dataclasses import dataclass

import tvm
from tvm import relax

from deploy.artifact import KernelInfo
from deploy.cpu.isa import AVX2, AVX512, NEON, Isa, elements_of
from deploy.cpu.kernels import CpuKernels
from deploy.cpu.loaded import LoadedLibrary
from deploy.cpu.machine_code import object_files
from deploy.cpu.network_library import frame_ends, link_network
from deploy.cpu.passes.cancel_layouts import CancelLayouts
from deploy.cpu.passes.legalize_functions import FUNCTIONS
from deploy.cpu.passes.legalize_sums import SUMS
from deploy.cpu.passes.name_kernels import NameKernels
from deploy.cpu.passes.propagate_layouts import PropagateLayouts
from deploy.cpu.passes.schedule_fallback import ScheduleFallback
from deploy.graph.channels_first import ChannelsFirst
from deploy.graph.describe import describe_kernels
from deploy.graph.ends import with_logits_output
from deploy.graph.frame import Frame, plan_frame
from deploy.graph.importer import import_graph
from deploy.graph.job import Job
from deploy.graph.merge_linear import MergeLinear
from deploy.graph.passes import OnPass, Pass, run_passes
from deploy.graph.place import Place
from deploy.graph.split_outputs import SplitOutputs
from deploy.graph.stored import mark_stored
from deploy.object_cache import ObjectCache
from deploy.schedules import Fields
from deploy.target import Target

_SSE_LANES = 4  # floats in a register of the instruction sets without kernels


def network_passes(kernels: CpuKernels | None = None) -> list[Pass]:
    """Every pass between the imported graph and machine code, in order. Without kernels (x86-64
    below AVX2) all is left to TVM."""
    lanes, measured = (kernels.isa.lanes, kernels.measured) if kernels else (_SSE_LANES, {})
    return [
        # Our kernels, and the fewest conversions between their layout and the graph's.
        *(
            [
                ChannelsFirst(),
                MergeLinear(),
                Place(kernels),
                PropagateLayouts(kernels),
                CancelLayouts(kernels),
            ]
            if kernels
            else []
        ),
        SplitOutputs(),
        # What no kernel of ours covers: each operator becomes a loop nest, neighbours are fused.
        relax.transform.LegalizeOps(FUNCTIONS | SUMS),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        ScheduleFallback(lanes, measured),
        # A frame is planned from calls of kernels alone: a reshape is the same bytes.
        relax.transform.RewriteDataflowReshape(),
        NameKernels(),
    ]


def make_kernels(
    target: Target, threads: int, measured: Mapping[str, Fields], *, exact: bool = False
) -> CpuKernels | None:
    """The kernels for a target; None for an instruction set without kernels."""
    isa = isa_of(target)
    if isa is None:
        return None
    elements = elements_of(isa, target.features)
    return CpuKernels(isa, threads, measured, exact, target.precision.maps, elements)


def isa_of(target: Target) -> Isa | None:
    """The widest instruction set with kernels that the target's features allow."""
    features = set(target.features)
    if "neon" in features:
        return NEON
    if "avx512f" in features:
        return AVX512
    return AVX2 if {"avx2", "fma"} <= features else None


@dataclass(frozen=True)
class Compiled:
    """A network in machine code, not linked yet, and how it came about."""

    frame: Frame
    objects: Mapping[str, bytes]  # the kernels' object files, by name
    target: Target
    kernels: tuple[KernelInfo, ...]
    cache: ObjectCache | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        """The kernels that a frame calls, by name, in order."""
        return tuple(call.kernel for call in self.frame.entries["main"].calls)

    def load(self) -> LoadedLibrary:
        """It, in this process; raises UserError as `link` does."""
        return LoadedLibrary(self.link(), frame_ends(self.frame))

    def link(self) -> bytes:
        """The shared library; raises UserError where nothing is found that can link."""
        return link_network(self.frame, self.objects, self.target, self.cache)


def compile_graph(job: Job, on_pass: OnPass | None = None) -> Compiled:
    """Compile a graph.

    The library's entries: ``main`` gives the graph's output; where that is the label map,
    ``logits`` gives the class scores behind it, from the same kernels. `on_pass` is `run_passes`'s.
    Raises UserError for an operator that TVM does not know.
    """
    module = lower_graph(job, on_pass)
    if on_pass:
        on_pass("machine code")
    kernels = _kernels_of(job)
    frame = plan_frame(module)
    functions = {name: module[name] for name in sorted(frame.kernels)}
    infos = describe_kernels(module, kernels.measured if kernels else {})
    objects = object_files(functions, job.target, job.cache)
    called = tuple(info for info in infos if info.name in functions)
    return Compiled(frame, objects, job.target, called, job.cache)


def lower_graph(job: Job, on_pass: OnPass | None = None) -> tvm.IRModule:
    """`compile_graph` up to machine code: the module of kernels and the entries that call them."""
    graph, kernels = with_logits_output(job.graph), _kernels_of(job)
    module = import_graph(mark_stored(graph) if kernels and kernels.maps == "int8" else graph)
    with tvm.target.Target(job.target.config):
        passes = network_passes(kernels) if job.passes is None else job.passes
        return run_passes(module, passes, on_pass, job.dump)


def _kernels_of(job: Job) -> CpuKernels | None:
    assert job.kernels is None or isinstance(job.kernels, CpuKernels)
    return job.kernels
