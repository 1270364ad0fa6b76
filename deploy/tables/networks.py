"""Networks of the search space, built for measuring.

The graph takes the real pipeline (export, import, every pass), so kernels, schedules, layouts and
the memory plan are those of `deploy.build.build_artifact`. They are not checked: only their time
counts. For the same reason those in 8 bits have scales that are made up
(`deploy.quantise.synthetic`).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Protocol

import numpy as np
import onnx
import torch

from deploy.artifact import Artifact, Golden, NoCode
from deploy.backends import backend_of
from deploy.backends.base import Job
from deploy.build import TOOLS
from deploy.graph.export import export_network, read_metadata
from deploy.object_cache import ObjectCache
from deploy.precision import INT8
from deploy.quantise.synthetic import with_synthetic_scales
from deploy.resolution import Resolution
from deploy.schedules import Fields
from deploy.street import draw_street
from deploy.tables.entries import entries_of
from deploy.target import Target
from hmseg.genotype import Genotype
from hmseg.mrms import MRMS
from hmseg.mrms_config import MRMSConfig
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.ops import Operation

MOST_PROCESSES = 8  # each holds torch and TVM, 0.7 GB


@dataclass(frozen=True)
class TimedNetwork:
    """An artifact whose parts are timed one by one.

    `keys` are the table's entries that the network is the sum of, one for each of their calls;
    `calls` the entry of each part that is timed, in order: an entry may have two kernels.
    """

    genotype: Genotype
    artifact: Artifact
    keys: tuple[Operation, ...]
    calls: tuple[Operation, ...]


@dataclass(frozen=True)
class Recipe:
    """What every network of a table is compiled with. Raises UserError for a target without kernels
    of ours, and for one whose code is not measured, such as that of several architectures."""

    space: Space
    target: Target
    threads: int
    measured: Mapping[str, Fields]
    cache: ObjectCache | None = None

    def __post_init__(self) -> None:
        backend = backend_of(self.target)
        if not backend.tunes(self.target):
            raise UserError(
                f"lut: no table is of {self.target.machine}; name one architecture that is measured"
            )
        if backend.kernels(self.target, self.threads, self.measured) is None:
            raise UserError(
                f"lut: there are no kernels for {self.target.machine}: no latency table"
            )

    def compile(self, genotype: Genotype) -> TimedNetwork:
        """A network with random weights; raises WorkError where it calls other kernels than
        `Space.keys` says."""
        backend = backend_of(self.target)
        graph = export_genotype(genotype, self.space)
        if self.target.precision is INT8:
            graph = with_synthetic_scales(graph)
        kernels = backend.kernels(self.target, self.threads, self.measured)
        job = Job(graph, self.target, kernels, portable=False, cache=self.cache)
        draft = unchecked_artifact(graph, self.target, self.threads)
        built = backend.compile(job, draft, lambda _: None)
        entries = self.space.keys(genotype)
        try:
            found = entries_of(built.calls, entries, backend.has)
        except WorkError as error:
            raise WorkError(f"'{genotype}' is not compiled to its entries: {error}") from error
        artifact, calls = backend.timed(built, found)
        return TimedNetwork(genotype, artifact, tuple(entries), calls)


class Factory(AbstractContextManager["Factory"], Protocol):
    """What builds networks for measuring; a context, whose end frees what it holds."""

    def __exit__(self, *_: object) -> None:
        return

    def build_ahead(self, genotypes: Sequence[Genotype]) -> None:
        """Say which networks will be asked for, in which order; some build them then."""
        return

    def build(self, genotype: Genotype) -> TimedNetwork:
        """As `Recipe.compile`; several threads may call."""


def factory_of(recipe: Recipe) -> Factory:
    """Ahead of the measuring where that is not disturbed by it."""
    return AheadFactory(recipe) if backend_of(recipe.target).compiles_ahead else OwnFactory(recipe)


class OwnFactory(Factory):
    """Builds in this process, between the measurements: compiling would disturb what is measured
    on the same cores. Each kernel is compiled once, for all networks that call it."""

    def __init__(self, recipe: Recipe) -> None:
        cache = shared_kernels(recipe.target, recipe.cache)
        self._recipe, self._lock = replace(recipe, cache=cache), threading.Lock()

    def build(self, genotype: Genotype) -> TimedNetwork:
        """As `Factory.build`; calls from several threads wait for each other."""
        with self._lock:
            return self._recipe.compile(genotype)


class AheadFactory(Factory):
    """Builds in processes of its own, while other networks are measured.

    A network takes some seconds of one core, and is measured in less.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = replace(recipe, cache=None)  # each process would have its own
        processes = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        context = multiprocessing.get_context("spawn")  # TVM's and CUDA's threads do not fork
        self._pool = ProcessPoolExecutor(processes, context, _begin)
        self._building: dict[Genotype, Future[TimedNetwork]] = {}

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def build_ahead(self, genotypes: Sequence[Genotype]) -> None:
        """Begin with these, in this order."""
        for genotype in genotypes:
            if genotype not in self._building:
                self._building[genotype] = self._pool.submit(self._recipe.compile, genotype)

    def build(self, genotype: Genotype) -> TimedNetwork:
        """As `Factory.build`, from the one thread that measures."""
        self.build_ahead([genotype])
        try:
            return self._building[genotype].result()
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that compiled for the table was ended from outside, perhaps for want of "
                "memory; the same command goes on where it was"
            ) from error


def _begin() -> None:
    """A process of the pool: it ends with the one that measures, also where that is killed, and
    leaves the keyboard's interrupt to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # the other cores have processes of their own
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def shared_kernels(target: Target, cache: ObjectCache | None) -> ObjectCache | None:
    """Where the kernels are kept that networks of a table have in common: in memory where there is
    no cache, and nowhere where they have none."""
    if not backend_of(target).shares_kernels:
        return None
    return ObjectCache(None) if cache is None else cache


def export_genotype(genotype: Genotype, space: Space) -> onnx.ModelProto:
    """The graph of a network with random weights, with both ends."""
    model = MRMS(MRMSConfig(genotype, space.width, space.num_classes))
    size = Resolution(*space.resolution)
    return export_network(model, "search-space", size, num_classes=space.num_classes)


def unchecked_artifact(graph: onnx.ModelProto, target: Target, threads: int) -> Artifact:
    """An artifact without its code, and without what the reference makes of the golden image."""
    metadata = read_metadata(graph)
    height, width = metadata.resolution
    return Artifact(
        code=NoCode(),
        target=target,
        metadata=metadata,
        golden=Golden.sampled(
            draw_street(metadata.resolution),
            np.zeros((height, width), np.uint8),
            np.zeros((len(metadata.classes), height, width), np.float32),
        ),
        parity={"checked": False, "reason": "built for measuring latency only"},
        versions={tool: version(tool) for tool in TOOLS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kernels=(),
        threads=threads,
    )
