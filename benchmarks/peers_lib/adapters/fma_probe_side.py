"""No peer: multiply-adds in registers, whose rate tells a slow phase of the machine."""

from benchmarks.peers_lib.adapters import Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("apache-tvm",)
PER_THREADS = True
SETTINGS = "deploy.measure.probes.fma_gflops"
IMAGE_END = "none"
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)


def prepare(work: Work) -> None:
    """Nothing: it is compiled in a moment."""


def load_runtime(threads: int) -> None:
    """TVM_NUM_THREADS is set for every side."""
    import tvm

    assert tvm


def open_network(work: Work) -> Call:
    import numpy as np

    from deploy.cpu.pipeline import isa_of
    from deploy.cpu.probe import FmaProbeSpec, emit_fma
    from deploy.measure.probes import fma_gflops, load_here
    from deploy.targets import resolve_target

    target = resolve_target("cpu")
    isa = isa_of(target)
    if isa is None:
        raise RuntimeError("there is no FMA kernel for this CPU")
    spec = FmaProbeSpec(tasks=work.config.threads)
    kernels = load_here(target, work.config.threads)({"fma": emit_fma(spec, isa)})
    return lambda: np.array(fma_gflops(kernels, spec, isa, repeat=5))
