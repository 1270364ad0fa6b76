"""Networks of the search space for a GPU are the sum of the table's entries."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from deploy.gpu.factory import GpuNetworkFactory, compile_network
from deploy.gpu.keys import entries_of, kernels_of
from deploy.graph.kernel_call import SPEC

from deploy.gpu.kernels import GpuKernels
from deploy.gpu.pipeline import gpu_passes
from deploy.graph.ends import with_logits_output
from deploy.graph.importer import import_graph
from deploy.tables.networks import export_genotype
from deploy.targets import resolve_target
from hmseg.genotype import Op, random_genotype
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from tests.deploy.tables.test_networks import SHALLOW

SMALL = Space((64, 64), 0.5)


@pytest.fixture(scope="module")
def target():
    return resolve_target("cuda", "sm_61")


def launched(genotype, space, target):
    """The specs of a frame's kernels, in order."""
    module = import_graph(with_logits_output(export_genotype(genotype, space)))
    with tvm.target.Target(target.config, host={"kind": "llvm"}):
        for step in gpu_passes(GpuKernels()):
            module = step(module)
    (block,) = module["main"].body.blocks
    calls = (binding.value for binding in block.bindings)
    return [str(module[call.args[0]].attrs[SPEC]) for call in calls if hasattr(call, "op")]


@pytest.mark.parametrize(("size", "width"), [((128, 192), 0.5), ((64, 64), 0.5), ((72, 100), 1.0)])
def test_a_frame_launches_the_kernels_of_its_entries(target, size, width):
    """All of them, in the order of the launches, and no others."""
    genotype = random_genotype(random.Random(size[0]))
    if size == (64, 64):  # C5 of 1x1
        genotype = replace(genotype, medium_tenths=4, low_tenths=4)
    if size == (72, 100):  # the stem and two blocks are one entry
        ops = ((Op(1, 5),), (Op(3, 7), *genotype.ops[1][1:]), *genotype.ops[2:])
        genotype = replace(genotype, ops=ops)
    space = Space(size, width)
    specs, keys = launched(genotype, space, target), space.keys(genotype)
    entries = entries_of(specs, keys)
    assert sorted(entries) == sorted(keys)
    assert [repr(s) for key in entries for s in kernels_of(key)] == specs


def test_every_entry_of_the_space_has_its_kernels():
    for key in Space((256, 512), 0.5).all_keys():
        assert 1 <= len(kernels_of(key)) <= 6


def test_launches_that_are_not_the_entries(target):
    keys = SMALL.keys(SHALLOW)
    specs = [repr(spec) for key in keys for spec in kernels_of(key)]
    with pytest.raises(WorkError, match=r"no entry for the kernel LabelEndSpec"):
        entries_of(specs, keys[:-1])
    with pytest.raises(WorkError, match=r"nothing for its entry 'labels 19"):
        entries_of(specs[:-1], keys)


def test_half_has_the_same_entries(target):
    half = compile_network(SHALLOW, SMALL, resolve_target("cuda", "sm_61", "fp16"), {})
    assert sorted(half.calls) == sorted(SMALL.keys(SHALLOW))
    assert half.artifact.target.precision == "fp16"


def test_one_architecture_at_a_time():
    with pytest.raises(UserError, match="name one architecture, not sm_61, sm_90"):
        GpuNetworkFactory(SMALL, resolve_target("cuda", "sm_61,sm_90"), {})


def test_no_process_outlives_a_builder_that_is_killed():
    code = (
        "import multiprocessing, time\n"
        "from tests.deploy.gpu.test_factory import *\n"
        "factory = GpuNetworkFactory(SMALL, resolve_target('cuda', 'sm_61'), {})\n"
        "factory.build_ahead([SHALLOW])\n"
        "print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as main:
        children = [int(word) for word in main.stdout.readline().split()]
        os.kill(main.pid, signal.SIGKILL)
    assert children
    for _ in range(300):
        left = [pid for pid in children if _runs(pid)]
        if not left:
            break
        time.sleep(0.1)
    assert not left


def _runs(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # one that nobody has waited for
