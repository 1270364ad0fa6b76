"""CPUs: compiled by LLVM, linked, run here or on a device behind TVM's RPC."""

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import onnx
from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact
from deploy.backends.base import Backend, Built, CannotRunError, Job, Kernels, OnStep
from deploy.cpu.kernels import KERNELS_VERSION, CpuKernels, has_kernel
from deploy.cpu.library import Library, check_machine
from deploy.cpu.network_library import frame_ends
from deploy.cpu.package import package_name, write_package
from deploy.cpu.pipeline import Compiled, compile_graph, make_kernels
from deploy.devices.measuring import RemoteDevices
from deploy.devices.network import Remote
from deploy.graph.reference import OnnxSession
from deploy.measure.device import Devices
from deploy.measure.local import LocalDevice
from deploy.measure.openvino_peer import start_openvino
from deploy.measure.peer import Peer
from deploy.measure.rounds import VisitProtocol
from deploy.object_cache import ObjectCache
from deploy.precision import BF16, FP32, INT8, Precision
from deploy.quantise.request import is_quantised
from deploy.runtime import Network, open_artifact
from deploy.schedules import Fields
from deploy.target import Target
from deploy.trials.bench import TuningBench
from deploy.trials.remote import RemoteBench
from deploy.trials.swapped import SwappedBench
from lut.errors import UserError
from lut.ops import Operation

if TYPE_CHECKING:
    from deploy.graph.source import Source

T = TypeVar("T")

_LINKING_BYTES = 16 * 2**20  # objects and library without the weights, generously


class CpuBackend(Backend):
    """As `deploy.backends.base.Backend`."""

    kernels_version = KERNELS_VERSION
    protocol = VisitProtocol()
    trials = 200
    measures_memory = tunes_nests = shares_kernels = True
    compiles_ahead = False  # it would keep the cores busy that are measured

    def has(self, operation: Operation) -> bool:
        """As `Kernels.has`, on every instruction set."""
        return has_kernel(operation)

    def kernels(
        self, target: Target, threads: int, measured: Mapping[str, Fields], *, exact: bool = False
    ) -> CpuKernels | None:
        """None on x86-64 below AVX2."""
        return make_kernels(target, threads, measured, exact=exact)

    def compile(self, job: Job, draft: Artifact, on_step: OnStep) -> Built:
        """As `Backend.compile`."""
        compiled = compile_graph(job, on_step)
        on_step("linking")
        library = Library(link_library(compiled, job.graph.ByteSize()))
        artifact = replace(draft, code=library, kernels=compiled.kernels, calls=compiled.calls)
        operations = {info.name: info.spec for info in compiled.kernels}
        return Built(artifact, tuple(operations[name] or name for name in compiled.calls))

    def package(self, job: Job, artifact: Artifact, folder: Path) -> list[Path]:
        """As `Backend.package`."""
        return write_package(job, artifact, folder, version("hmseg"))

    def check_package(self, target: Target, folder: Path) -> None:
        """As `Backend.check_package`."""
        package_name(folder)

    def run_prefix(self, job: Job, given: NDArray[Any], remote: Remote | None) -> NDArray[Any]:
        """As `Backend.run_prefix`."""
        compiled = compile_graph(job)
        if remote is not None:
            library = link_library(compiled, job.graph.ByteSize())
            return remote.run_library(library, frame_ends(compiled.frame), given)
        with compiled.load() as loaded:
            return loaded.run("main", given)

    def try_out(
        self, built: Built, work: Callable[[Network, bool], T], remote: Remote | None,
        on_step: OnStep,
    ) -> tuple[T, dict[str, Any]]:  # fmt: skip
        """As `Backend.try_out`."""
        artifact = built.artifact
        if remote is not None:
            on_step("parity gate on the device")
            return RemoteDevices(remote).use(
                artifact, lambda session: (work(session.network, False), session.machine)
            )
        try:
            check_machine(artifact.target, "the artifact")
        except UserError as error:
            raise CannotRunError(str(error)) from error
        on_step("parity gate")
        network = open_artifact(artifact, "the artifact", threads=artifact.threads)
        return work(network, False), {"machine": host.cpu_model()}

    def timed(
        self, built: Built, entries: Sequence[tuple[Operation, int]]
    ) -> tuple[Artifact, tuple[Operation, ...]]:
        """Every kernel call, by the clock in the library."""
        return built.artifact, tuple(entry for entry, calls in entries for _ in range(calls))

    def devices(self, threads: int, remote: Remote | None) -> Devices:
        """As `Backend.devices`."""
        return RemoteDevices(remote) if remote else LocalDevice(threads)

    def peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """onnxruntime with as many threads, on the graph that the artifact was compiled from; of a
        network in 8 bits by scales that were found for it, on that in float32."""
        return {"onnxruntime": partial(_start_onnxruntime, source.graph, given, threads)}

    def optional_peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """OpenVINO, on the same graph."""
        precision = _precision_of(source.graph)
        return {"OpenVINO": partial(start_openvino, source.graph, given, threads, precision)}

    def low_precision_peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """OpenVINO in bfloat16, as it is where nobody asks for float32; and both on the pairs of a
        network in 8 bits by scales that were found for it."""
        found: dict[str, Callable[[], Peer]] = {
            "OpenVINO bf16": partial(start_openvino, source.graph, given, threads, BF16)
        }
        if (graph := source.quantised) is not None:
            found["onnxruntime int8"] = partial(_start_onnxruntime, graph, given, threads)
            found["OpenVINO int8"] = partial(start_openvino, graph, given, threads, INT8)
        return found

    def tuning_bench(
        self, job: Job, rule: Artifact, threads: int, remote: Remote | None, *, emulated: bool
    ) -> TuningBench:
        """Kernels swapped in the running network, or on a device networks that differ in one.
        Raises UserError for a target without kernels of ours."""
        kernels = job.kernels
        if not isinstance(kernels, CpuKernels):
            raise UserError(f"tune: there are no kernels for {job.target.machine}; it needs AVX2")
        if remote is None:
            return SwappedBench(job.graph, job.target, kernels, rule)

        # Networks differ in one kernel.
        job = replace(job, cache=job.cache or ObjectCache(None))

        def build(kernels: Kernels) -> Artifact:
            return self.compile(replace(job, kernels=kernels), rule, lambda _: None).artifact

        return RemoteBench(kernels, rule, build, remote, emulated=emulated)

    def where(self, target: Target) -> str:
        """On a device."""
        return "on the device: hmseg-deploy verify {} --device ssh:HOST, adb, or with --rpc-key KEY"


def _start_onnxruntime(graph: onnx.ModelProto, given: NDArray[Any], threads: int) -> Peer:
    session = OnnxSession(graph, threads=threads)
    return Peer(lambda: session.run(given)[0], precision=_precision_of(graph).name)


def _precision_of(graph: onnx.ModelProto) -> Precision:
    """What a peer computes in that follows the graph."""
    return INT8 if is_quantised(graph) else FP32


def link_library(compiled: Compiled, model_bytes: int) -> bytes:
    """Link in a temporary folder and read the library back; raises UserError where that has no
    room."""
    needed = 4 * model_bytes + _LINKING_BYTES
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        # On a full disk LLVM ends the whole process, with no word about where.
        raise UserError(
            f"linking needs {needed / 1e6:.0f} MB in {tempfile.gettempdir()}, {free / 1e6:.0f} MB "
            "are free; free the disk or name another folder in TMPDIR"
        )
    return compiled.link()
