"""NVIDIA's GPUs: source compiled by NVRTC, run by the driver alone, or emulated on this CPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact
from deploy.backends.base import Backend, Built, CannotRunError, Job, Kernels, OnStep
from deploy.devices.network import Remote
from deploy.gpu.driver import Driver, NoGpuError
from deploy.gpu.emulator import EmulatedNetwork, EmulatedProgram, NoCompilerError
from deploy.gpu.kernels import GPU_KERNELS_VERSION, GpuKernels
from deploy.gpu.network import GpuNetwork
from deploy.gpu.nvrtc import compile_cubin, compile_ptx, toolkit_version
from deploy.gpu.pipeline import CompiledSource, compile_source
from deploy.gpu.program import GpuProgram, number_of
from deploy.measure.device import Devices
from deploy.measure.gpu import GpuDevice
from deploy.measure.gpu_peers import makers
from deploy.measure.peer import Peer
from deploy.measure.rounds import VisitProtocol
from deploy.runtime import Network
from deploy.schedules import Fields
from deploy.target import Target
from deploy.targets import resolve_target
from deploy.trials.bench import TuningBench
from deploy.trials.whole import WholeNetworksBench
from lut.errors import UserError
from lut.ops import Operation

if TYPE_CHECKING:
    from deploy.graph.source import Source

T = TypeVar("T")

# Above this many pixels emulation takes minutes for five images; then it takes one.
MOST_EMULATED_PIXELS = 512 * 1024


class CudaBackend(Backend):
    """As `deploy.backends.base.Backend`."""

    kernels_version = GPU_KERNELS_VERSION
    # A frame takes a millisecond: it needs some to leave its idle clock, and has time for more.
    protocol = VisitProtocol(frames=20, warmup=20)
    trials = 1000  # one network carries a candidate of every kernel
    measures_memory = tunes_nests = False
    shares_kernels = False  # the code is a whole network's, and none comes again
    compiles_ahead = True  # frames are timed by events, which a busy processor does not disturb

    def record_threads(self, threads: int) -> int:
        """There are none."""
        return 0

    def tunes(self, target: Target) -> bool:
        """One source serves all architectures: where there are several it is the rule's."""
        return len(target.features) == 1

    def has(self, operation: Operation) -> bool:
        """As `Kernels.has`."""
        return GpuKernels().has(operation)

    def kernels(
        self, target: Target, threads: int, measured: Mapping[str, Fields], *, exact: bool = False
    ) -> GpuKernels:
        """For all of them; all are exact."""
        return GpuKernels(measured)

    def compile(self, job: Job, draft: Artifact, on_step: OnStep) -> Built:
        """As `Backend.compile`, with PTX for architectures after those of the target."""
        compiled = compile_source(job, on_step)
        program = self._program(compiled, job, on_step)
        versions = draft.versions | self.versions()
        artifact = replace(draft, code=program, kernels=compiled.kernels, versions=versions)
        operations = {f"{kernel.name}_kernel": kernel.spec for kernel in compiled.kernels}
        launches = compiled.lowered.plan.entries["main"].launches
        calls = tuple(operations.get(launch.kernel) or launch.kernel for launch in launches)
        return Built(artifact, calls, compiled.lowered.source)

    def _program(self, compiled: CompiledSource, job: Job, on_step: OnStep) -> GpuProgram:
        lowered, cubins, ptx = compiled.lowered, {}, {}
        architectures = job.target.features
        for name in architectures:
            on_step(f"machine code for {name}")
            cubins[name] = compile_cubin(lowered.source, name, job.cache)
        if job.portable:
            last = max(architectures, key=number_of)
            ptx[last.replace("sm_", "compute_")] = compile_ptx(lowered.source, last, job.cache)
        return GpuProgram(lowered.plan, lowered.constants, cubins, ptx)

    def run_prefix(self, job: Job, given: NDArray[Any], remote: Remote | None) -> NDArray[Any]:
        """As `Backend.run_prefix`, emulated."""
        lowered = compile_source(job).lowered
        raw = EmulatedNetwork(lowered.source, lowered.plan, lowered.constants).run(given)
        _, *shape = (d.dim_value for d in job.graph.graph.output[0].type.tensor_type.shape.dim)
        whole: NDArray[Any] = raw.view(np.float32).reshape(shape)
        return whole

    def try_out(
        self, built: Built, work: Callable[[Network, bool], T], remote: Remote | None,
        on_step: OnStep,
    ) -> tuple[T, dict[str, Any]]:  # fmt: skip
        """On the GPU of this machine, or where there is none that runs it by emulation of its
        source, which is slow."""
        artifact, program = built.artifact, built.artifact.code
        assert isinstance(program, GpuProgram)
        try:
            loaded = GpuNetwork(program, artifact.metadata)
        # The artifact may be for another machine: whatever keeps it from this one's GPU (there is
        # none, another architecture, an old driver, full memory) is no mistake of the user's.
        except UserError as unfit:
            return self._emulated(built, program, work, unfit, on_step)
        on_step("parity gate on the GPU")
        where = loaded.device | {"precision": artifact.target.precision.name}
        return work(Network(artifact, loaded), False), where

    def _emulated(
        self, built: Built, program: GpuProgram, work: Callable[[Network, bool], T],
        unfit: UserError, on_step: OnStep,
    ) -> tuple[T, dict[str, Any]]:  # fmt: skip
        artifact = built.artifact
        on_step("compiling the CUDA source for this CPU")
        try:
            emulated = EmulatedProgram(built.source, program, artifact.metadata, on_step)
        except NoCompilerError as error:
            raise CannotRunError(f"{unfit}; {error}") from error
        how = "the CUDA source, emulated on the CPU"
        if not isinstance(unfit, NoGpuError):  # a GPU that is there is not passed over in silence
            how += f" ({unfit})"
        on_step("parity gate, emulated")
        height, width = artifact.metadata.resolution
        slow = height * width > MOST_EMULATED_PIXELS
        where = {"machine": host.cpu_model(), "how": how}
        return work(Network(artifact, emulated), slow), where

    def timed(
        self, built: Built, entries: Sequence[tuple[Operation, int]]
    ) -> tuple[Artifact, tuple[Operation, ...]]:
        """Every entry, of some launches each: an event between two launches costs time."""
        found = tuple(entry for entry, _ in entries)
        return replace(built.artifact, calls=tuple(map(str, found))), found

    def measured_target(self, target: Target, text: str) -> Target:
        """This machine's own GPU alone; raises UserError where there is none, or another than
        `text` names."""
        present = resolve_target("cuda", Driver().architecture, target.precision.name)
        if text != "cuda" and target.features != present.features:
            raise UserError(
                f"target {text} is for {target.machine}, this machine's GPU is {present.machine}; "
                "measure it with --target cuda"
            )
        return present

    def devices(self, threads: int, remote: Remote | None) -> Devices:
        """This machine's GPU; raises UserError for a device."""
        self.check_place(None, remote)
        return GpuDevice()

    def architecture(self, target: Target) -> str:
        """Such as ``sm_61``."""
        return target.machine

    def versions(self) -> dict[str, str]:
        """NVRTC's."""
        return {"cuda-nvrtc": toolkit_version()}

    def peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """torch, torch.compile, onnxruntime and TensorRT on the same GPU, as far as they are
        there. Raises UserError but for a network from image to labels."""
        if (artifact.metadata.input, artifact.metadata.output) != ("image", "labels"):
            raise UserError("a GPU is timed from image to labels: leave --input and --output out")
        return makers(source.network, source.graph, given)

    def tuning_bench(
        self, job: Job, rule: Artifact, threads: int, remote: Remote | None, *, emulated: bool
    ) -> TuningBench:
        """Whole networks, in each of which every kernel has another schedule. Raises UserError
        for a device."""
        self.check_place(None, remote)

        def build(kernels: Kernels) -> Artifact:
            # No network comes again: keeping them would drive out what does.
            other = replace(job, kernels=kernels, portable=False, cache=None)
            return self.compile(other, rule, lambda _: None).artifact

        kernels = job.kernels
        assert isinstance(kernels, GpuKernels)
        return WholeNetworksBench(kernels, rule, build)

    def check_place(self, threads: int | None, remote: Remote | None) -> None:
        """Its own machine, which has no threads; raises UserError for those of another."""
        if remote is not None:
            raise UserError(
                "GPU code runs on this machine alone: leave --rpc-key, its variable and "
                "--device out"
            )
        if threads is not None:
            raise UserError("--threads is of a CPU; leave it out for a GPU")

    def where(self, target: Target) -> str:
        """On the machine that has the GPU."""
        return "on its machine: hmseg-deploy verify {}"
