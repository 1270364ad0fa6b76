"""From a deployable graph to a checked artifact: compile, verify, then and only then write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from numpy.typing import NDArray

from deploy.artifact import Artifact, Golden, NoCode
from deploy.backends import backend_of
from deploy.backends.base import CannotRunError, Job, OnStep
from deploy.devices.network import Remote
from deploy.graph.ends import with_logits_output
from deploy.graph.expected import Expectations, Expected, is_heavy
from deploy.graph.export import read_metadata
from deploy.graph.first_difference import first_difference
from deploy.graph.source import Source
from deploy.graph.stored import has_pairs
from deploy.images import to_channels
from deploy.metadata import Metadata
from deploy.object_cache import ObjectCache
from deploy.own_file import OwnFile, check_reading, first_misread, own_file
from deploy.precision import INT8
from deploy.quantise.request import check_scales
from deploy.reading.text import one_line
from deploy.runtime import Network
from deploy.schedules import Fields
from deploy.street import draw_street
from deploy.target import Target
from deploy.tuning.records import tuned_schedules
from deploy.verify import Comparison, probe_images, require, verify_network
from lut.errors import HmsegError, UserError, WorkError

# Images: a file that is misread is so on any.
_READ_ON, _READ_HEAVY_ON = 2, 1
TOOLS = ("hmseg", "torch", "onnx", "onnxruntime", "apache-tvm", "apache-tvm-ffi", "numpy")


def build_source(
    source: Source,
    target: Target,
    **options: Any,  # noqa: ANN401 - `build_artifact`'s
) -> tuple[Artifact, list[Comparison]]:
    """`build_artifact` of what ``--model`` names: a user's own file is compared with. Raises
    UserError for int8 of a network without scales, which would be computed in float32."""
    if target.precision is INT8:
        check_scales(given_graph(source), source.metadata.model)
    if target.precision is INT8 and not has_pairs(source.compiled):
        raise UserError(
            f"--precision int8: no map of {source.metadata.model} is in 8 bits with one scale; "
            "quantise maps so (not to 16 bits, not each channel by itself), or leave --precision "
            "out"
        )
    return build_artifact(
        source.graph, target, own=own_file(source), quantised=source.quantised, **options
    )


def given_graph(source: Source) -> onnx.ModelProto:
    """The graph that says whether a source has scales: what was calibrated, a user's own file, or
    what was exported."""
    own = source.imported
    return source.compiled if source.quantised or own is None else own.file.model


def build_artifact(
    model: onnx.ModelProto,
    target: Target,
    *,
    threads: int,
    own: OwnFile | None = None,
    quantised: onnx.ModelProto | None = None,
    measured: Mapping[str, Fields] | None = None,
    exact: bool = False,
    on_refusal: Callable[[WorkError], None] | None = None,
    passes: Sequence[tvm.transform.Pass] | None = None,
    remote: Remote | None = None,
    dump: Path | None = None,
    cache: ObjectCache | None = None,
    on_step: OnStep = lambda _: None,
) -> tuple[Artifact, list[Comparison]]:
    """Compile a graph with both ends and check the result: on this machine, or on a device where
    `remote` is given.

    `own` is the user's own file: before anything is compiled, the graph is compared with it.
    `quantised` is the same network in 8 bits (`deploy.quantise`): it is compiled then, and what the
    binary is held to.
    `measured` are schedules by operation; by default those that tuning found for this target and
    number of threads, shipped or the user's own, where the target takes any. `exact` leaves out
    kernels that round more than the plain sum (Winograd's convolutions). `on_refusal` is told where
    the binary does not match, which is built all the same then: to time it. `dump` is a folder for
    the module after each pass, `cache` gives and takes machine code. Raises WorkError, naming the
    first node that differs, where the graph does not match the file or the binary the graph; then
    there is no artifact. Where nothing at hand runs the target, the artifact's parity report says
    that it was not checked, and there are no comparisons of it; a device that cannot run it is an
    error. Raises UserError where TVM fails on a user's file.
    """
    backend = backend_of(target)
    if remote is not None:
        backend.check_place(None, remote)
    if measured is None:
        measured = tuned_for(target, threads)
    metadata = read_metadata(model)
    golden_image = to_channels(draw_street(metadata.resolution), metadata.channels)
    images = probe_images(metadata.resolution, golden_image)
    complete = with_logits_output(model)
    readings = [] if own is None else _check_reading(own, complete, metadata, images, on_step)
    if quantised is not None:
        model, complete = quantised, with_logits_output(quantised)
    inputs = {name: metadata.network_input(image) for name, image in images.items()}
    expectations = Expectations(complete, inputs, maps=target.precision.maps)
    golden = expectations["golden"]
    kernels = backend.kernels(target, threads, measured, exact=exact)
    job = Job(model, target, kernels, passes, dump, cache)
    drafted = draft(model, target, golden_image, golden, threads)
    noise = {"noise": asdict(golden.noise)}
    try:
        built = backend.compile(job, drafted, on_step)
    except HmsegError:
        raise
    except Exception as error:
        if own is None:
            raise  # of a network of ours, it is a mistake of ours
        raise UserError(
            f"this network cannot be compiled ({one_line(error, 300)}); export it anew, with "
            "another opset or without its newest operators"
        ) from error

    def check(network: Network, slow: bool) -> list[Comparison]:
        return verify_network(
            network, expectations, {"golden": images["golden"]} if slow else images
        )

    try:
        comparisons, where = backend.try_out(built, check, remote, on_step)
    except CannotRunError as error:
        return replace(built.artifact, parity={"checked": False, "reason": str(error), **noise}), []
    try:
        require(comparisons)
    except WorkError as error:
        if on_refusal is not None:
            on_refusal(error)
            refused = {"checked": False, "reason": str(error), **noise}
            return replace(built.artifact, parity=refused), comparisons
        on_step("finding the first layer that differs")
        found = locate_difference(job, metadata.network_input(golden_image), remote)
        raise WorkError(
            f"{error}; {found}; no artifact was written{target.precision.advice}"
        ) from error
    comparisons = readings + comparisons
    reports = [comparison.to_json() for comparison in comparisons]
    report = {"checked": True, **where, **noise, "comparisons": reports}
    return replace(built.artifact, parity=report), comparisons


def package_source(
    source: Source, artifact: Artifact, folder: Path, *, exact: bool = False,
    cache: ObjectCache | None = None,
) -> list[Path]:  # fmt: skip
    """Write what a C program is built with, of a source that was built into `artifact`; the files.
    Raises UserError where that cannot be, WorkError where its labels are not the artifact's."""
    target, threads = artifact.target, artifact.threads
    backend = backend_of(target)
    measured = tuned_for(target, threads)
    kernels = backend.kernels(target, threads, measured, exact=exact)
    job = Job(source.compiled, target, kernels, None, None, cache)
    return backend.package(job, artifact, folder)


def tuned_for(target: Target, threads: int) -> Mapping[str, Fields]:
    """The schedules that tuning found, where the target takes any."""
    backend = backend_of(target)
    key = target.key, backend.record_threads(threads), backend.kernels_version
    return tuned_schedules(*key) if backend.tunes(target) else {}


def _check_reading(
    own: OwnFile, graph: onnx.ModelProto, metadata: Metadata,
    images: Mapping[str, NDArray[np.uint8]], on_step: OnStep,
) -> list[Comparison]:  # fmt: skip
    """Raises WorkError where the graph is not what the file says."""
    on_step("comparing with the file")
    few = dict(islice(images.items(), _READ_HEAVY_ON if is_heavy(graph) else _READ_ON))
    comparisons = check_reading(own, graph, metadata, few)
    try:
        require(comparisons)
    except WorkError as error:
        try:
            found = first_misread(own, graph, metadata, images["golden"])
        except Exception as other:  # the file is refused already: this only says more
            found = f"the node was not found ({' '.join(str(other).split())[:200]})"
        raise WorkError(
            f"the ONNX file was misread: {error}; {found}; nothing was compiled"
        ) from error
    return comparisons


def draft(
    model: onnx.ModelProto,
    target: Target,
    golden_image: NDArray[np.uint8],
    golden: Expected,
    threads: int,
) -> Artifact:
    """An artifact with all but its code and its parity report."""
    metadata = read_metadata(model)
    found = metadata.found_in(golden.scores)
    return Artifact(
        code=NoCode(),
        target=target,
        metadata=metadata,
        golden=Golden.sampled(
            golden_image,
            found,
            golden.scores.astype(np.float32),
            rough=bool(target.precision.most_unexplained),
        ),
        parity={},
        versions={tool: version(tool) for tool in TOOLS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=(),
        threads=threads,
    )


def locate_difference(job: Job, given: NDArray[Any], remote: Remote | None = None) -> str:
    """Name the first layer at which the compiled graph leaves onnxruntime, in words.

    Raises nothing: the network is refused already.
    """
    backend = backend_of(job.target)
    # Prefixes share most of their kernels.
    job = replace(job, dump=None, cache=job.cache or ObjectCache(None))

    def run_prefix(prefix: onnx.ModelProto, probe: NDArray[Any]) -> NDArray[np.float32]:
        return backend.run_prefix(replace(job, graph=prefix), probe, remote)

    try:
        found = first_difference(job.graph, given, run_prefix, job.target.precision)
    except Exception as error:
        return f"the layer was not found ({' '.join(str(error).split())[:200]})"
    return str(found) if found else "no single layer differs on the golden image"
