"""Placing kernels: the largest operation that a backend has, else its parts, and no value twice."""

import random
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax

from deploy.cpu import kernels as cpu
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import CpuKernels
from deploy.gpu import kernels as gpu
from deploy.gpu.kernels import GpuKernels
from deploy.graph.ends import with_logits_output
from deploy.graph.importer import import_graph
from deploy.graph.place import KERNEL, MACS, OPERATION, Place, called_kernel, find_operations
from deploy.graph.view import Graph, shape_of
from lut import ops
from lut.ops import Operation, expand
from tests.deploy.graph.nets import (
    Net,
    cpu_kernels,
    max_error,
    noise,
    operations_of,
    placed,
    placed_on_a_gpu,
    reference,
)
from tests.deploy.graph.random_nets import random_net
from tests.deploy.graph.whole_nets import network_of, operations

# Of the table: each is found as its parts.
ENTRIES = {ops.Context, ops.Classifier}
COMPOSED = (
    ops.GlobalPool, ops.InvertedResidual, ops.StemBlock, ops.StemPair, ops.LocalGlobal, ops.Logits
)  # fmt: skip
KERNELS = {"cpu": cpu_kernels(), "gpu": GpuKernels()}


@dataclass(frozen=True)
class Without:
    """A backend with a kernel for every operation but those of some kinds."""

    missing: frozenset[type[Operation]] = frozenset()
    exact = False

    def exactly(self, op: Operation) -> Operation:
        return op

    def has(self, op: Operation) -> bool:
        return type(op) not in {*self.missing, *ENTRIES}


missing_kinds = st.frozensets(st.sampled_from(COMPOSED))
# Placed beside a kernel alone: tests/deploy/graph/match/test_beside.py.
BESIDE = {ops.AcrossChannels, ops.ChannelSlice, ops.Concat, ops.Elementwise}
# Written as many operators, or with tables: their own tests place them.
WRITTEN_OUT = {ops.Attention, ops.ChannelNorm, ops.Masks, ops.Product, ops.Resample, ops.Unpool}
# Conversions are no part of a graph: placing adds them.
FOUND = [
    kind for kind in Operation.__subclasses__() if kind not in {ops.Convert, *BESIDE, *WRITTEN_OUT}
]


@pytest.mark.parametrize("kind", FOUND)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(data=st.data(), missing=missing_kinds)
def test_the_largest_operation_that_there_is_else_its_parts(kind, data, missing):
    op, kernels = data.draw(operations(kind)), Without(missing)
    assert type(op) is kind
    assert placed(network_of(op), kernels) == expand(op, kernels.has)


def test_context_of_one_pixel():
    """Its channels are a map, and both its convolutions see one pixel."""
    op, kernels = ops.Context(8, 12, 1, 1), Without(frozenset({ops.GlobalPool}))
    assert placed(network_of(op), kernels) == expand(op, kernels.has)


def test_every_kind_that_a_backend_has_is_found():
    assert {*cpu.MODULES, *gpu.MODULES} - {ops.Convert} <= {*FOUND, *BESIDE, *WRITTEN_OUT} - ENTRIES


def test_what_a_backend_lacks_is_left_as_it_is():
    block = ops.InvertedResidual(16, 48, 16, 12, 20, residual=True)
    kernels = Without(frozenset({ops.InvertedResidual, ops.Depthwise, ops.Conv}))
    expansion, depthwise, project = block.parts()
    assert placed(network_of(block), kernels) == [expansion, project]
    window = ops.Conv(
        (48,), 48, 12, 20, (3, 3), pad=(1, 1, 1, 1), groups=48, then=(depthwise.act,)
    )  # fmt: skip
    kernels = Without(frozenset({ops.InvertedResidual, ops.Depthwise}))
    assert placed(network_of(block), kernels) == [expansion, window, project]
    assert placed(network_of(block), Without(frozenset(Operation.__subclasses__()))) == []


def test_a_backend_may_lack_some_operations_of_a_kind():
    """The kernel of a CPU has no room at a stride of three; a gate has none there at all."""
    pair = ops.StemPair(
        ops.StemBlock(16, 8, 32, 48, stride=3, source="float32_nchw"),
        ops.InvertedResidual(8, 48, 16, 6, 8),
    )
    assert placed(network_of(pair)) == [pair.first.stem, pair.first.block, pair.second]
    gated = ops.Pointwise(16, 24, 9, 11, "relu6", "map", gate=True)
    steps = ops.Elementwise(24, 9, 11, ("mul_channel", "add", "relu6"))
    assert placed(network_of(gated)) == [ops.Pointwise(16, 24, 9, 11), steps]
    assert placed_on_a_gpu(network_of(gated)) == [gated]


def test_what_a_larger_operation_has_taken_is_nobody_elses():
    """The fuse layer could expand for what follows it: without it the block has no expansion."""
    head = ops.LocalGlobal(8, 40, 16, 10, 14, 5, 7)
    block = ops.InvertedResidual(16, 16, 24, 10, 14, expand=False)
    model = network_of(head, block)
    assert placed(model) == [head, block]
    wide, fuse = head.parts()
    expanded = ops.InvertedResidual(40, 16, 24, 10, 14)
    assert fuse == expanded.parts()[0]
    assert placed(model, Without(frozenset({ops.LocalGlobal}))) == [wide, expanded]


def readers(graph: Graph) -> dict[relax.Var, list[relax.Var]]:
    found: dict[relax.Var, list[relax.Var]] = {}
    for var in graph.vars:
        for read in relax.analysis.free_vars(graph.definition(var)):
            found.setdefault(read, []).append(var)
    return found


def whole(graph, reads, found):
    """All that an operation computes: `inner`, its output, and between them the steps of an
    activation that has several."""
    leads = {found.output}
    for var in reversed(graph.vars):
        if leads & {*reads.get(var, ())}:
            leads.add(var)
    values = {*found.inner, found.output}
    for var in graph.vars:
        if var in leads and values & set(relax.analysis.free_vars(graph.definition(var))):
            values.add(var)
    return values


@pytest.mark.parametrize("which", ["cpu", "gpu", "some"])
@pytest.mark.parametrize("seeds", [range(60), range(60, 120)], ids=str)
def test_of_any_graph(seeds, which):
    for seed in seeds:
        check(random_net(seed), KERNELS.get(which) or some_kernels(seed))


def some_kernels(seed):
    chance = random.Random(seed)
    return Without(frozenset(kind for kind in COMPOSED if chance.random() < 0.5))


def check(model, kernels):
    graph = Graph(import_graph(model)["main"])
    found = find_operations(graph, kernels)
    reads, order = readers(graph), {var: place for place, var in enumerate(graph.vars)}
    parts = [var for one in found.values() for var in (one.output, *one.inner)]
    assert len(parts) == len(set(parts))  # no two overlap
    for var, one in found.items():
        own = whole(graph, reads, one)
        assert one.output.same_as(var)
        assert kernels.has(one.operation)
        # What it swallows is read in it alone, and is no result.
        for inner in own - {var}:
            assert not graph.is_result(inner)
            assert set(reads[inner]) <= own
        # A bias belongs to its convolution; nothing else adds a constant of many numbers here.
        sums = [graph.call(read, "relax.add") for read in reads.get(var, ())]
        added = [graph.constant(add.args[1]) for add in sums if add is not None]
        assert all(constant is None or constant.size == 1 for constant in added)
        # Its inputs come before it, and something reads what it computes.
        assert all(order.get(value, -1) < order[var] for value in one.inputs)
        left = set(reads.get(var, ())) - {*parts}
        taken_up = any(value.same_as(var) for other in found.values() for value in other.inputs)
        assert left or taken_up or graph.is_result(var)
        shape = shape_of(var)
        assert (shape if len(shape) == 3 else shape[1:]) == one.operation.output


@pytest.mark.parametrize("seed", range(6))
def test_numbers_of_any_graph(seed):
    model = random_net(seed, outputs=2)
    x = noise(model)
    largest = max(float(np.abs(value).max()) for value in reference(model, x))
    assert max_error(model, "x86-64-v3", x) < 2e-5 * max(1, largest)


@pytest.mark.parametrize("model", ["zoo", "residual"])
def test_cpu_and_gpu_find_the_same(model, graph):
    """A GPU, the parts of what a CPU runs whole."""
    if model == "residual":
        net = Net(16, 12, 20)
        y = "x"
        for _ in range(2):
            y = net.add(net.conv(net.depthwise(net.conv(y, 48, act="relu6"), act="relu6"), 16), y)
        network = net.model(net.conv(y, 8, act="sigmoid"))
    else:
        network = with_logits_output(graph)
    parts = [part for op in placed(network) for part in expand(op, GpuKernels().has)]
    assert Counter(parts) == Counter(placed_on_a_gpu(network))


class Recording(CpuKernels):
    """Remembers what it emitted."""

    def __init__(self):
        super().__init__(AVX2, 2)
        object.__setattr__(self, "emitted", [])

    def emit(self, op):
        self.emitted.append(op)
        return super().emit(op)


class TestPlace:
    def module(self, model):
        return Place(cpu_kernels())(import_graph(model))

    def two_blocks(self):
        block = ops.InvertedResidual(16, 48, 16, 12, 20, residual=True)
        return block, network_of(block, block)

    def test_equal_operations_share_a_function_that_says_what_it_is(self):
        block, model = self.two_blocks()
        module = self.module(model)
        graph = Graph(module["main"])
        calls = [
            value for value in map(graph.definition, graph.vars) if called_kernel(module, value)
        ]
        names = [called_kernel(module, value) for value in calls]
        assert names == ["pack", "inverted_residual", "unpack"] * 2
        functions = {call.args[0] for call in calls}
        assert len(functions) == 3
        attrs = module["inverted_residual"].attrs
        assert attrs[KERNEL] == "inverted_residual"
        assert attrs[OPERATION] == str(block)
        assert attrs[MACS] == block.macs

    @pytest.mark.parametrize("outputs", ["labels", "both"])
    def test_nothing_is_emitted_that_is_not_called(self, outputs):
        """As planes that only the arg max reads would be."""
        net = Net(16, 8, 12)
        planes = net.resize(net.conv("x", 19), 64, 96)
        labels = net.argmax(planes)
        kernels = Recording()
        model = net.model(labels, *[planes] * (outputs == "both"))
        module = Place(kernels)(import_graph(model))
        functions = [function for function in module.functions.values() if function.attrs]
        called = {str(f.attrs[OPERATION]) for f in functions if OPERATION in f.attrs}
        emitted = {str(op) for op in kernels.emitted if not isinstance(op, ops.Convert)}
        assert emitted == {text for text in called if not text.startswith("convert")}
        assert len(emitted) == (3 if outputs == "both" else 2)

    def test_a_graph_without_any_of_them_is_left_alone(self):
        net = Net(16, 8, 12)
        module = import_graph(net.model(net.node("Softmax", ["x"], axis=1)))
        assert Place(cpu_kernels())(module).same_as(module)

    def test_inputs_and_outputs_in_the_layout_of_the_kernel(self):
        """The image's side is planar, the rest blocked."""
        pair = ops.StemPair(
            ops.StemBlock(16, 8, 32, 48, source="float32_nchw"),
            ops.InvertedResidual(8, 48, 16, 16, 24),
        )
        logits = ops.Logits(16, 16, 24, 32, 48)
        module = self.module(network_of(pair, logits))
        graph = Graph(module["main"])
        names = [called_kernel(module, graph.definition(var)) for var in graph.vars]
        assert [n for n in names if n] == ["stem_pair", "unpack", "pack", "logits_end"]
        shapes = [
            shape_of(var) for var in graph.vars if called_kernel(module, graph.definition(var))
        ]
        assert shapes == [(1, 2, 16, 24, 8), (1, 16, 16, 24), (1, 2, 16, 24, 8), (1, 16, 32, 48)]


def test_nothing_of_ours_below_avx2():
    model = network_of(ops.InvertedResidual(16, 48, 16, 13, 21, residual=True))
    names = operations_of(model, "x86-64-v2")
    assert all(name.startswith("relax.") for name in names)
    assert max_error(model, "x86-64-v2") < 1e-4
