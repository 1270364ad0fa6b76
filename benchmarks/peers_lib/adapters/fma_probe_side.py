"""No peer: multiply-adds in registers, whose rate tells a slow phase of the machine."""

from benchmarks.peers_lib.adapters import Call
from benchmarks.peers_lib.job import LabelEnd, Work

PACKAGES = ("apache-tvm",)
PER_THREADS = True
SETTINGS = "deploy.kernels.probe"
IMAGE_END = "none"
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)
_STEPS = 200_000  # 1 to 2 ms


def prepare(work: Work) -> None:
    """Nothing: it is compiled in a moment."""


def load_runtime(threads: int) -> None:
    import tvm

    from deploy.kernels import probe

    assert probe
    tvm.get_global_func("runtime.config_threadpool")(1, threads)


def open_network(work: Work) -> Call:
    import numpy as np
    import tvm

    from deploy import host
    from deploy.kernels.ir import compile_kernels
    from deploy.kernels.isa import AVX2, AVX512
    from deploy.kernels.probe import FmaProbeSpec, emit_fma
    from deploy.targets import resolve_target

    isa = AVX512 if "avx512f" in host.cpu_flags() else AVX2
    spec = FmaProbeSpec(tasks=work.config.threads, steps=_STEPS)
    target = tvm.target.Target(resolve_target("cpu").config)
    function = compile_kernels({"fma": emit_fma(spec, isa)}, target)["fma"]
    seed = tvm.runtime.tensor(np.array([0.999, 0.001], np.float32))
    out = tvm.runtime.tensor(np.zeros((spec.tasks, isa.lanes), np.float32))

    def call():  # noqa: ANN202
        function(seed, out)
        return out.numpy()

    call.gflop = 2e-9 * spec.macs(isa)
    return call
