"""Networks of the search space for a GPU, built for measuring in processes of their own.

A network takes some seconds of one core, and the GPU measures it in less. While it does, the next
ones are compiled: frames are timed by the GPU's events, which a busy processor does not disturb.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import TracebackType
from typing import Self

import torch

from deploy.gpu.kernels import GpuKernels
from deploy.gpu.nvrtc import compile_cubin
from deploy.gpu.pipeline import compile_source
from deploy.gpu.program import GpuProgram
from deploy.measure.entries import entries_of
from deploy.measure.networks import TimedNetwork, export_genotype, unchecked_artifact
from deploy.schedules import Fields
from deploy.targets import Target
from hmseg.genotype import Genotype
from hmseg.operators import Space
from lut.errors import UserError, WorkError

MOST_PROCESSES = 8  # each holds torch and TVM, 0.7 GB


class GpuNetworkFactory:
    """`deploy.measure.networks.Factory` for one architecture of CUDA; `measured` are schedules by
    the kernel's spec."""

    def __init__(self, space: Space, target: Target, measured: Mapping[str, Fields]) -> None:
        if len(target.features) != 1:
            raise UserError(f"lut: name one architecture, not {target.machine}")
        self._what = space, target, measured
        processes = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        context = multiprocessing.get_context("spawn")  # TVM's and CUDA's threads do not fork
        self._pool = ProcessPoolExecutor(processes, context, _begin)
        self._building: dict[Genotype, Future[TimedNetwork]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._pool.shutdown(cancel_futures=True)

    def build_ahead(self, genotypes: Sequence[Genotype]) -> None:
        """Begin with these, in this order."""
        for genotype in genotypes:
            if genotype not in self._building:
                future = self._pool.submit(compile_network, genotype, *self._what)
                self._building[genotype] = future

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


def compile_network(
    genotype: Genotype, space: Space, target: Target, measured: Mapping[str, Fields]
) -> TimedNetwork:
    """A network with machine code for the target's one architecture, not checked.

    The artifact's `calls` are the entries in the order of their launches. Raises WorkError where
    the launches are not those of the entries.
    """
    graph = export_genotype(genotype, space)
    kernels = GpuKernels(measured)
    compiled = compile_source(graph, target, kernels=kernels)
    lowered = compiled.lowered
    specs = {f"{kernel.name}_kernel": kernel.spec for kernel in compiled.kernels}
    names = [launch.kernel for launch in lowered.plan.entries["main"].launches]
    keys = space.keys(genotype)
    try:
        found = entries_of([specs.get(name, name) for name in names], keys, kernels.has)
    except WorkError as error:
        raise WorkError(f"'{genotype}' is not compiled to its entries: {error}") from error
    entries = tuple(entry for entry, _ in found)
    (architecture,) = target.features
    cubin = compile_cubin(lowered.source, architecture)
    artifact = replace(
        unchecked_artifact(graph, target, threads=0),
        kernels=compiled.kernels,
        calls=tuple(map(str, entries)),
        gpu=GpuProgram(lowered.plan, lowered.constants, {architecture: cubin}),
    )
    return TimedNetwork(genotype, artifact, tuple(keys), entries)


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
