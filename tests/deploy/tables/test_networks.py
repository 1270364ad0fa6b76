"""Networks of the search space are the sum of the table's entries, whatever compiles them; how they
are built ahead. test_for_real.py compiles two for this machine."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import tvm

from deploy.artifact import NoCode
from deploy.backends import backend_of
from deploy.cpu.pipeline import lower_graph, make_kernels
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.pipeline import gpu_passes
from deploy.graph.ends import with_logits_output
from deploy.graph.frame import plan_frame
from deploy.graph.importer import import_graph
from deploy.graph.job import Job
from deploy.graph.place import OPERATION
from deploy.quantise.request import is_quantised
from deploy.quantise.synthetic import with_synthetic_scales
from deploy.tables.entries import entries_of
from deploy.tables.networks import (
    AheadFactory,
    OwnFactory,
    Recipe,
    TimedNetwork,
    export_genotype,
    factory_of,
    unchecked_artifact,
)
from deploy.targets import resolve_target
from hmseg.genotype import Op, parse_genotype, random_genotype
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.ops import expand
from tests.deploy.tables.fakes import SHALLOW, SPACE

CPU, GPU = resolve_target("x86-64-v3"), resolve_target("cuda", "sm_61")
BYTES = resolve_target("x86-64-v3", precision="int8")
HALF = resolve_target("cuda", "sm_61", "fp16")
OTHER = parse_genotype(str(SHALLOW).replace("s5b e1k3", "s5b e1k5"))
FATAL = parse_genotype(str(SHALLOW).replace("s5b e1k3", "s5b e1k7"))


@cache
def network(size, width):
    """A random genotype, changed to show what sizes are worth a look for; and its graph."""
    genotype, space = random_genotype(random.Random(size[0])), Space(size, width)
    if size == (64, 64):  # C5 of 1x1
        genotype = replace(genotype, medium_tenths=4, low_tenths=4)
    if size == (72, 100):  # the stem and two blocks are one entry
        ops = ((Op(1, 5),), (Op(3, 7), *genotype.ops[1][1:]), *genotype.ops[2:])
        genotype = replace(genotype, ops=ops)
    return genotype, space, export_genotype(genotype, space)


def calls_of(target, graph):
    """The operations of a frame's kernels, in order, before anything is machine code."""
    if target in (CPU, BYTES):
        module = lower_graph(Job(graph, target, make_kernels(target, 2, {})))
        calls = plan_frame(module).entries["main"].calls
        return [str(module[call.kernel].attrs[OPERATION]) for call in calls]
    module = import_graph(with_logits_output(graph))
    with tvm.target.Target(target.config, host={"kind": "llvm"}):
        for step in gpu_passes(GpuKernels(), target.precision):
            module = step(module)
    (block,) = module["main"].body.blocks
    calls = (binding.value for binding in block.bindings)
    return [str(module[call.args[0]].attrs[OPERATION]) for call in calls if hasattr(call, "op")]


@pytest.mark.parametrize(("size", "width"), [((128, 192), 0.5), ((64, 64), 0.5), ((72, 100), 1.0)])
@pytest.mark.parametrize("target", [CPU, GPU, HALF], ids=["cpu", "gpu", "gpu fp16"])
def test_a_frame_calls_the_kernels_of_its_entries(target, size, width):
    """All of them, in the order of the calls, and no others."""
    genotype, space, graph = network(size, width)
    has, found = backend_of(target).has, calls_of(target, graph)
    entries = entries_of(found, space.keys(genotype), has)
    assert Counter(entry for entry, _ in entries) == Counter(space.keys(genotype))
    assert [str(part) for entry, _ in entries for part in expand(entry, has)] == found
    assert sum(count for _, count in entries) == len(found)


@pytest.mark.parametrize(("size", "width"), [((96, 128), 0.5), ((72, 100), 1.0)])
def test_in_8_bits_it_is_the_same_entries(size, width):
    """Of kernels whose bytes saturate, and those in float32 that have no such form."""
    genotype, space, graph = network(size, width)
    found = calls_of(BYTES, with_synthetic_scales(graph))
    entries = entries_of(found, space.keys(genotype), backend_of(BYTES).has)
    assert Counter(entry for entry, _ in entries) == Counter(space.keys(genotype))
    assert sum(count for _, count in entries) == len(found)
    wide = [call for call in found if "dtype=int8" not in call]
    assert {call.split()[0] for call in wide} <= {"global_pool", "labels_end"}


def test_a_recipe_makes_up_scales(monkeypatch):
    genotype, space, graph = network((64, 64), 0.5)
    given = []

    class Backend:
        def __getattr__(self, name):
            return getattr(backend_of(BYTES), name)

        def compile(self, job, draft, on_step):
            given.append(job.graph)
            raise WorkError("no further")

    monkeypatch.setattr("deploy.tables.networks.export_genotype", lambda *_: graph)
    monkeypatch.setattr("deploy.tables.networks.backend_of", lambda _: Backend())
    for target, quantised in ((BYTES, True), (CPU, False)):
        with pytest.raises(WorkError, match="no further"):
            Recipe(space, target, 2, {}).compile(genotype)
        assert is_quantised(given[-1]) is quantised


def test_a_network_that_is_not_its_entries_is_refused(monkeypatch):
    """Nothing is compiled to machine code."""

    class Wrong(Space):
        def keys(self, genotype):
            return super().keys(genotype)[1:]

    genotype, _, graph = network((64, 64), 0.5)
    first = str(SPACE.keys(genotype)[0])

    class Backend:
        def __getattr__(self, name):
            return getattr(backend_of(CPU), name)

        def compile(self, job, draft, on_step):
            assert isinstance(draft.code, NoCode)
            assert not job.portable
            return TimedCalls(calls_of(CPU, job.graph))

    class TimedCalls:
        def __init__(self, calls):
            self.calls = calls

    monkeypatch.setattr("deploy.tables.networks.export_genotype", lambda *_: graph)
    monkeypatch.setattr("deploy.tables.networks.backend_of", lambda _: Backend())
    with pytest.raises(WorkError, match=f"is not compiled to its entries: .* kernel '{first}'"):
        Recipe(Wrong((64, 64), 0.5), CPU, 2, {}).compile(genotype)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (resolve_target("x86-64-v2"), "no kernels for x86-64-v2: no latency table"),
        (
            resolve_target("cuda", "sm_61,sm_90"),
            "no table is of sm_61, sm_90; name one arch",
        ),
    ],
)
def test_targets_of_no_table(target, message):
    with pytest.raises(UserError, match=message):
        Recipe(SPACE, target, 2, {})


def test_a_draft_says_what_it_is():
    _, _, graph = network((64, 64), 0.5)
    draft = unchecked_artifact(graph, CPU, 2)
    assert (draft.target, draft.threads, draft.kernels) == (CPU, 2, ())
    assert draft.golden.image.shape == (64, 64, 3)
    assert draft.parity == {"checked": False, "reason": "built for measuring latency only"}


class Quick(Recipe):
    """Compiles nothing, and says where; its process ends at one of the networks."""

    def compile(self, genotype):
        if genotype == FATAL:
            os.kill(os.getpid(), signal.SIGKILL)
        return TimedNetwork(genotype, os.getpid(), (), ())


class TestFactories:
    def test_a_gpu_s_networks_are_built_ahead_and_a_cpu_s_are_not(self):
        with (
            factory_of(Recipe(SPACE, GPU, 0, {})) as ahead,
            factory_of(Recipe(SPACE, CPU, 2, {})) as own,
        ):
            assert (type(ahead), type(own)) == (AheadFactory, OwnFactory)

    def test_in_this_process(self):
        with OwnFactory(Quick(SPACE, CPU, 2, {})) as factory:
            factory.build_ahead([SHALLOW])
            found = factory.build(SHALLOW)
        assert (found.genotype, found.artifact) == (SHALLOW, os.getpid())

    def test_in_other_processes(self, one_core):
        """Asked for again, it is the same one; a process that is ended from outside is named."""
        with AheadFactory(Quick(SPACE, GPU, 0, {})) as factory:
            factory.build_ahead([SHALLOW, OTHER])
            found = [factory.build(genotype) for genotype in (OTHER, SHALLOW)]
            assert factory.build(SHALLOW) is found[1]
            assert [network.genotype for network in found] == [OTHER, SHALLOW]
            (process,) = {network.artifact for network in found}
            assert process != os.getpid()
            with pytest.raises(WorkError, match="perhaps for want of memory") as caught:
                factory.build(FATAL)
            assert "\n" not in str(caught.value)
        assert not runs(process)

    def test_no_process_outlives_a_builder_that_is_killed(self, one_core):
        code = (
            "import multiprocessing, time\n"
            "from tests.deploy.tables.test_networks import *\n"
            "factory = AheadFactory(Quick(SPACE, GPU, 0, {}))\n"
            "print(factory.build(SHALLOW).artifact, flush=True)\n"
            "time.sleep(60)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        ) as main:  # fmt: skip
            child = int(main.stdout.readline())
            assert runs(child)
            os.kill(main.pid, signal.SIGKILL)
        end = time.monotonic() + 30
        while runs(child):
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def one_core():
    """A pool of one process: each imports torch and TVM."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # one that nobody has waited for
