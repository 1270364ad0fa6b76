"""Ours: `deploy.build.build_artifact` for this CPU, run by `deploy.runtime`."""

import json
import time
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING

from benchmarks.peers_lib.adapters import IN_GRAPH, Call
from benchmarks.peers_lib.cache import FITTED
from benchmarks.peers_lib.job import LabelEnd, Work
from deploy.precision import FP32
from lut.files import write_atomic

if TYPE_CHECKING:
    import onnx

    from deploy.artifact import Artifact

PACKAGES = ("hmseg", "apache-tvm", "apache-tvm-ffi", "numpy")
PER_THREADS = True
SETTINGS = "target cpu, shipped tuning records"
IMAGE_END = IN_GRAPH
LABEL_ENDS: tuple[LabelEnd, ...] = ("graph",)
ARTIFACT, COMPILED = "network.hmseg", "compiled.json"


def prepare(work: Work) -> None:
    prepare_ours(work, exact=False, precision=work.config.precision)


def prepare_ours(
    work: Work, *, exact: bool, precision: str = FP32.name,
    quantised: "onnx.ModelProto | None" = None,
) -> None:  # fmt: skip
    """Do what `compile` does, with a cold cache: of a file from reading it on. What it came to is
    written beside the artifact. Of a network whose layers are random but for the last
    (`benchmarks.fit`) that is also what the gate refuses: it is timed all the same."""
    import onnx

    from deploy.artifact import TVM
    from deploy.artifact_file import save_artifact
    from deploy.backends import backend_of
    from deploy.build import build_artifact
    from deploy.graph.source import open_source
    from deploy.own_file import own_file
    from deploy.targets import resolve_target
    from deploy.tuning.records import SHIPPED, tuned_schedules

    # The shipped records, never this user's own: anyone can measure the same.
    target, config = resolve_target("cpu", precision=precision), work.config
    backend = backend_of(target)
    key = target.key, backend.record_threads(config.threads), backend.kernels_version
    measured = tuned_schedules(*key, [SHIPPED])
    start, graph, own = time.perf_counter(), None, None
    if work.file is not None:
        source = open_source(str(work.file), input_kind=config.input, output=config.output)
        graph, own = source.graph, own_file(source)
    times, refused = [("reading", start)], list[Exception]()
    artifact, _ = build_artifact(
        graph or onnx.load(work.onnx), target, threads=config.threads, own=own, measured=measured,
        on_step=lambda step: times.append((step, time.perf_counter())), exact=exact,
        quantised=quantised, on_refusal=refused.append if config.model.endswith(FITTED) else None,
    )  # fmt: skip
    end = time.perf_counter()
    save_artifact(artifact, work.folder / ARTIFACT)
    compiled = {
        "seconds": end - start,
        "steps": _seconds([*times, ("", end)]),
        "kernels": len(artifact.kernels),
        "left_to_tvm": sum(info.template == TVM for info in artifact.kernels),
        "macs_done": macs_done(artifact, graph or onnx.load(work.onnx)),
        **({"refused": str(refused[0])} if refused else {}),
    }
    write_atomic(work.folder / COMPILED, json.dumps(compiled))


def macs_done(artifact: "Artifact", graph: "onnx.ModelProto") -> int | None:
    """Multiply-adds that a frame really does: those of its kernels' operations, Winograd's counted
    by its products and without taps that are left out; where TVM computes a part, those of the
    graph less what is saved, None where the graph does not tell."""
    from collections import Counter

    from deploy.artifact import TVM
    from deploy.cpu.kernels import module_of
    from deploy.graph.float64 import multiply_adds
    from lut.ops import parse_operation

    done = saved = 0
    ours = {info.name: info.spec for info in artifact.kernels if info.template != TVM}
    for name, calls in Counter(artifact.calls).items():
        operation = parse_operation(ours[name]) if name in ours else None
        if operation is None:
            continue
        done += calls * operation.macs
        module = module_of(operation)
        if hasattr(module, "products"):
            saved += calls * (operation.macs - module.products(operation))
    if set(artifact.calls) <= set(ours):
        return done - saved
    total = multiply_adds(graph) - saved
    return round(total) if isfinite(total) else None


def _seconds(times: list[tuple[str, float]]) -> dict[str, float]:
    """Of each step until the next; steps of one name together."""
    found: dict[str, float] = {}
    for (step, start), (_, end) in pairwise(times):
        found[step] = found.get(step, 0.0) + end - start
    return found


def load_runtime(threads: int) -> None:
    """Nothing but numpy is needed."""


def open_network(work: Work) -> Call:
    from deploy import runtime

    network = runtime.load(work.folder / ARTIFACT, threads=work.config.threads)
    given = work.given()
    return lambda: network(given)
