"""From a deployable graph to a checked artifact for a GPU."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact
from deploy.cpu.pipeline import OnPass
from deploy.gpu.driver import NoGpuError
from deploy.gpu.emulator import EmulatedNetwork, NoCompilerError
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.network import GpuNetwork
from deploy.gpu.nvrtc import compile_cubin, compile_ptx, toolkit_version
from deploy.gpu.pipeline import compile_source
from deploy.gpu.program import GpuProgram, number_of
from deploy.graph.first_difference import first_difference
from deploy.metadata import Metadata
from deploy.runtime import check_input
from deploy.targets import Target
from deploy.verify import Comparison, Runnable, probe_images, require, verify_network
from lut.errors import UserError, WorkError

# Above this many pixels emulation takes minutes for five images; then it takes one.
MOST_EMULATED_PIXELS = 512 * 1024


class EmulatedRunnable:
    """A network for CUDA on this machine's CPU: what `deploy.runtime.Network` is on a GPU."""

    def __init__(self, artifact: Artifact, source: str) -> None:
        assert artifact.gpu is not None
        self.artifact, self.metadata = artifact, artifact.metadata
        self._network = EmulatedNetwork(source, artifact.gpu.plan, artifact.gpu.constants)

    def __call__(self, given: NDArray[Any]) -> NDArray[Any]:
        """As `deploy.runtime.Network.__call__`."""
        raw = self._run("main", given)
        if self.metadata.output == "labels":
            return raw.reshape(*self.metadata.resolution)
        return self._planes(raw)

    def logits(self, given: NDArray[Any]) -> NDArray[np.float32]:
        """As `deploy.runtime.Network.logits`."""
        entry = "main" if self.metadata.output == "logits" else "logits"
        return self._planes(self._run(entry, given))

    def _run(self, entry: str, given: NDArray[Any]) -> NDArray[np.uint8]:
        check_input(given, self.metadata)
        return self._network.run(given, entry)

    def _planes(self, raw: NDArray[np.uint8]) -> NDArray[np.float32]:
        return raw.view(np.float32).reshape(-1, *self.metadata.resolution)


def compile_program(
    model: onnx.ModelProto,
    target: Target,
    draft: Artifact,
    kernels: GpuKernels,
    on_step: OnPass = lambda _: None,
    *,
    with_ptx: bool = True,
) -> tuple[Artifact, str]:
    """The draft of an artifact with its program and kernels, and the source that it was made
    from; with PTX for architectures after those of the target, unless told otherwise."""
    compiled = compile_source(model, target, kernels=kernels, on_pass=on_step)
    lowered = compiled.lowered
    cubins, ptx, opencl = {}, {}, ""
    versions = dict(draft.versions)
    if target.architecture == "cuda":
        for name in target.features:
            on_step(f"machine code for {name}")
            cubins[name] = compile_cubin(lowered.source, name)
        if with_ptx:
            last = max(target.features, key=number_of)
            ptx[last.replace("sm_", "compute_")] = compile_ptx(lowered.source, last)
        versions["cuda-nvrtc"] = toolkit_version()
    else:
        opencl = lowered.source
    program = GpuProgram(lowered.plan, lowered.constants, cubins, ptx, opencl)
    artifact = replace(draft, gpu=program, kernels=compiled.kernels, versions=versions)
    return artifact, lowered.source


def check_program(
    artifact: Artifact,
    source: str,
    model: onnx.ModelProto,
    target: Target,
    kernels: GpuKernels,
    on_step: OnPass,
) -> tuple[Artifact, list[Comparison]]:
    """The artifact with its parity report: on the GPU of this machine, or where there is none that
    runs it by emulation of its source. Raises WorkError, naming the first layer that differs."""
    if target.architecture != "cuda":
        reason = "no OpenCL GPU runs artifacts in this version"
        return replace(artifact, parity={"checked": False, "reason": reason}), []
    images = probe_images(artifact.metadata.resolution, artifact.golden.image)
    network: Runnable
    where: dict[str, Any]
    try:
        network = on_gpu = GpuNetwork(artifact)
        where = on_gpu.device
        on_step("parity gate on the GPU")
    # The artifact may be for another machine: whatever keeps it from this one's GPU (there is none,
    # another architecture, an old driver, full memory) is no mistake of the user's.
    except UserError as unfit:
        try:
            network = EmulatedRunnable(artifact, source)
        except NoCompilerError as error:
            reason = f"{unfit}; {error}"
            return replace(artifact, parity={"checked": False, "reason": reason}), []
        how = "the CUDA source, emulated on the CPU"
        if not isinstance(unfit, NoGpuError):  # a GPU that is there is not passed over in silence
            how += f" ({unfit})"
        where = {"machine": host.cpu_model(), "how": how}
        on_step("parity gate, emulated")
        if _pixels(artifact.metadata) > MOST_EMULATED_PIXELS:
            images = {"golden": images["golden"]}
    comparisons = verify_network(network, model, images)
    try:
        require(comparisons)
    except WorkError as error:
        on_step("finding the first layer that differs")
        found = locate_difference(model, target, kernels, artifact.golden_input)
        advice = "" if target.precision == "fp32" else "; compile it with --precision fp32"
        raise WorkError(f"{error}; {found}; no artifact was written{advice}") from error
    report = {"checked": True, **where, "comparisons": [c.to_json() for c in comparisons]}
    return replace(artifact, parity=report), comparisons


def locate_difference(
    model: onnx.ModelProto, target: Target, kernels: GpuKernels, given: NDArray[Any]
) -> str:
    """Name the first layer at which the emulated graph leaves onnxruntime, in words."""

    def run_prefix(prefix: onnx.ModelProto, probe: NDArray[Any]) -> NDArray[np.float32]:
        lowered = compile_source(prefix, target, kernels=kernels).lowered
        network = EmulatedNetwork(lowered.source, lowered.plan, lowered.constants)
        shape = _output_shape(prefix)
        return network.run(probe).view(np.float32).reshape(shape)

    found = first_difference(model, given, run_prefix, target.precision)
    return str(found) if found else "no single layer differs on the golden image"


def _output_shape(model: onnx.ModelProto) -> Sequence[int]:
    return [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]


def _pixels(metadata: Metadata) -> int:
    height, width = metadata.resolution
    return height * width
