"""From a deployable graph to a checked artifact: compile, verify, then and only then write."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
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
from deploy.graph.export import read_metadata
from deploy.graph.first_difference import first_difference
from deploy.graph.reference import Reference
from deploy.object_cache import ObjectCache
from deploy.runtime import Network
from deploy.schedules import Fields
from deploy.street import draw_street
from deploy.target import Target
from deploy.tuning.records import tuned_schedules
from deploy.verify import Comparison, probe_images, require, verify_network
from lut.errors import WorkError

TOOLS = ("hmseg", "torch", "onnx", "onnxruntime", "apache-tvm", "apache-tvm-ffi", "numpy")


def build_artifact(
    model: onnx.ModelProto,
    target: Target,
    *,
    threads: int,
    measured: Mapping[str, Fields] | None = None,
    passes: Sequence[tvm.transform.Pass] | None = None,
    remote: Remote | None = None,
    dump: Path | None = None,
    cache: ObjectCache | None = None,
    on_step: OnStep = lambda _: None,
) -> tuple[Artifact, list[Comparison]]:
    """Compile a graph with both ends and check the result: on this machine, or on a device where
    `remote` is given.

    `measured` are schedules by operation; by default those that tuning found for this target and
    number of threads, shipped or the user's own, where the target takes any. `dump` is a folder for
    the module after each pass, `cache` gives and takes machine code. Raises WorkError, naming the
    first layer that differs, where the binary does not match onnxruntime; then there is no
    artifact. Where nothing at hand runs the target, the comparisons are empty and the artifact's
    parity report says that it was not checked; a device that cannot run it is an error.
    """
    backend = backend_of(target)
    if remote is not None:
        backend.check_place(None, remote)
    if measured is None:
        key = target.key, backend.record_threads(threads), backend.kernels_version
        measured = tuned_schedules(*key) if backend.tunes(target) else {}
    metadata = read_metadata(model)
    golden_image = draw_street(metadata.resolution, metadata.channels)
    kernels = backend.kernels(target, threads, measured)
    job = Job(model, target, kernels, passes, dump, cache)
    built = backend.compile(job, draft(model, target, golden_image, threads), on_step)
    images = probe_images(metadata.resolution, golden_image)

    def check(network: Network, slow: bool) -> list[Comparison]:
        return verify_network(network, model, {"golden": images["golden"]} if slow else images)

    try:
        comparisons, where = backend.try_out(built, check, remote, on_step)
    except CannotRunError as error:
        return replace(built.artifact, parity={"checked": False, "reason": str(error)}), []
    try:
        require(comparisons)
    except WorkError as error:
        on_step("finding the first layer that differs")
        found = locate_difference(job, metadata.network_input(golden_image), remote)
        raise WorkError(
            f"{error}; {found}; no artifact was written{target.precision.advice}"
        ) from error
    reports = [comparison.to_json() for comparison in comparisons]
    report = {"checked": True, **where, "comparisons": reports}
    return replace(built.artifact, parity=report), comparisons


def draft(
    model: onnx.ModelProto, target: Target, golden_image: NDArray[np.uint8], threads: int
) -> Artifact:
    """An artifact with all but its code and its parity report."""
    labels, logits = Reference(model)(read_metadata(model).network_input(golden_image))
    return Artifact(
        code=NoCode(),
        target=target,
        metadata=read_metadata(model),
        golden=Golden.sampled(golden_image, labels, logits),
        parity={},
        versions={tool: version(tool) for tool in TOOLS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=(),
        threads=threads,
    )


def locate_difference(job: Job, given: NDArray[Any], remote: Remote | None = None) -> str:
    """Name the first layer at which the compiled graph leaves onnxruntime, in words."""
    backend = backend_of(job.target)
    # Prefixes share most of their kernels.
    job = replace(job, dump=None, cache=job.cache or ObjectCache(None))

    def run_prefix(prefix: onnx.ModelProto, probe: NDArray[Any]) -> NDArray[np.float32]:
        return backend.run_prefix(replace(job, graph=prefix), probe, remote)

    found = first_difference(job.graph, given, run_prefix, job.target.precision)
    return str(found) if found else "no single layer differs on the golden image"
