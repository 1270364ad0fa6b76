"""From a deployable graph to a checked artifact: compile, verify, then and only then write."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact, ArtifactTarget, Golden
from deploy.cpu.kernels import CpuKernels
from deploy.cpu.pipeline import Compiled, OnPass, Pass, compile_graph, make_kernels
from deploy.devices.network import Remote
from deploy.graph.export import read_metadata
from deploy.graph.first_difference import first_difference
from deploy.graph.reference import Reference
from deploy.runtime import check_machine, open_artifact
from deploy.schedules import Fields
from deploy.street import draw_street
from deploy.targets import Target
from deploy.tuning.records import NO_THREADS, tuned_schedules
from deploy.verify import Comparison, probe_images, require, verify_network
from lut.errors import UserError, WorkError

_LINKING_BYTES = 16 * 2**20  # objects and library without the weights, generously

TOOLS = ("hmseg", "torch", "onnx", "onnxruntime", "apache-tvm", "apache-tvm-ffi", "numpy")


def build_artifact(
    model: onnx.ModelProto,
    target: Target,
    *,
    threads: int,
    measured: Mapping[str, Fields] | None = None,
    passes: Sequence[Pass] | None = None,
    remote: Remote | None = None,
    on_step: OnPass = lambda _: None,
) -> tuple[Artifact, list[Comparison]]:
    """Compile a graph with both ends and check the result: on this machine, or on a device where
    `remote` is given.

    `measured` are schedules by kernel spec; by default those that tuning found for this target and
    number of threads, shipped or the user's own (none for GPUs of several architectures). Raises
    WorkError, naming the first layer that differs, where the binary does not match onnxruntime;
    then there is no artifact. Where this machine cannot run the target and there is no `remote`,
    the comparisons are empty and the artifact's parity report says that it was not checked; a
    device that cannot run it is an error.
    """
    metadata = read_metadata(model)
    golden_image = draw_street(metadata.resolution)
    golden_input = metadata.network_input(golden_image)
    if target.gpu:
        if remote is not None:
            raise UserError(f"target {target.name}: GPU code does not run over RPC; drop --rpc-key")
        draft = _draft(model, target, golden_image, threads)
        return _build_gpu(draft, model, target, measured, on_step)
    if measured is None:
        measured = tuned_schedules(target, threads)
    kernels = make_kernels(target, threads, measured)
    compiled = compile_graph(model, target, kernels=kernels, passes=passes, on_pass=on_step)
    on_step("linking")
    artifact = replace(
        _draft(model, target, golden_image, threads),
        library=link_library(compiled, model.ByteSize()),
        kernels=compiled.kernels,
        calls=compiled.calls,
    )
    images = probe_images(metadata.resolution, golden_image)
    if remote is None:
        try:
            check_machine(artifact.target, "the artifact")
        except UserError as error:
            return replace(artifact, parity={"checked": False, "reason": str(error)}), []
        on_step("parity gate")
        network = open_artifact(artifact, "the artifact", threads=threads)
        comparisons = verify_network(network, model, images)
        where_checked: dict[str, Any] = {"machine": host.cpu_model()}
    else:
        on_step("parity gate on the device")
        comparisons, where_checked = remote.use(
            artifact,
            lambda network: (verify_network(network, model, images), network.report()),
        )
    try:
        require(comparisons)
    except WorkError as error:
        on_step("finding the first layer that differs")
        where = locate_difference(
            model, target, golden_input, kernels=kernels, passes=passes, remote=remote
        )
        raise WorkError(f"{error}; {where}; no artifact was written") from error
    report = {
        "checked": True,
        **where_checked,
        "comparisons": [comparison.to_json() for comparison in comparisons],
    }
    return replace(artifact, parity=report), comparisons


def _draft(
    model: onnx.ModelProto, target: Target, golden_image: NDArray[np.uint8], threads: int
) -> Artifact:
    """An artifact with all but its code and its parity report."""
    metadata = read_metadata(model)
    labels, logits = Reference(model)(metadata.network_input(golden_image))
    return Artifact(
        library=b"",
        target=ArtifactTarget(
            target.name, target.config, target.architecture, target.features, target.precision
        ),
        metadata=metadata,
        golden=Golden.sampled(golden_image, labels, logits),
        parity={},
        versions={tool: version(tool) for tool in TOOLS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=(),
        threads=threads,
    )


def _build_gpu(
    draft: Artifact, model: onnx.ModelProto, target: Target, measured: Mapping[str, Fields] | None,
    on_step: OnPass,
) -> tuple[Artifact, list[Comparison]]:  # fmt: skip
    from deploy.gpu.build import check_program, compile_program
    from deploy.gpu.kernels import GpuKernels

    if measured is None:
        # One source serves all architectures: where there are several it is the rule's.
        measured = tuned_schedules(target, NO_THREADS) if len(target.features) == 1 else {}
    kernels = GpuKernels(measured)
    artifact, source = compile_program(model, target, draft, kernels, on_step)
    return check_program(artifact, source, model, target, kernels, on_step)


def locate_difference(
    model: onnx.ModelProto,
    target: Target,
    image: NDArray[Any],
    *,
    kernels: CpuKernels | None,
    passes: Sequence[Pass] | None = None,
    remote: Remote | None = None,
) -> str:
    """Name the first layer at which the compiled graph leaves onnxruntime, in words."""

    def run_prefix(prefix: onnx.ModelProto, probe: NDArray[Any]) -> NDArray[np.float32]:
        compiled = compile_graph(prefix, target, kernels=kernels, passes=passes)
        if remote is None:
            return run_in_process(compiled, probe)
        return remote.run_library(link_library(compiled, prefix.ByteSize()), probe)

    found = first_difference(model, image, run_prefix)
    return str(found) if found else "no single layer differs on the golden image"


def run_in_process(compiled: Compiled, image: NDArray[Any]) -> NDArray[np.float32]:
    """Run a compiled graph's ``main`` without linking it; the output with its batch axis."""
    import tvm

    output: NDArray[np.float32] = compiled.load()["main"](tvm.runtime.tensor(image[None])).numpy()
    return output


def link_library(compiled: Compiled, model_bytes: int) -> bytes:
    """Link in a temporary folder and read the library back."""
    needed = 4 * model_bytes + _LINKING_BYTES
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        # On a full disk LLVM ends the whole process, with no word about where.
        raise UserError(
            f"linking needs {needed / 1e6:.0f} MB in {tempfile.gettempdir()}, {free / 1e6:.0f} MB "
            "are free; free the disk or name another folder in TMPDIR"
        )
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        path = Path(folder) / "lib.so"
        compiled.save(path)
        return path.read_bytes()
