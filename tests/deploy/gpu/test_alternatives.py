"""What tuning may choose: every alternative computes what the rule's kernel computes, which
test_kernels.py holds to float64."""

import hashlib
from typing import Any

import numpy as np
import pytest

from deploy.gpu.kernels import MODULES, GpuKernels, depthwise, pointwise, stem
from deploy.gpu.pipeline import compile_source
from deploy.graph.job import Job
from deploy.schedules import schedule_fields
from deploy.targets import resolve_target
from lut.errors import UserError
from lut.ops import (
    ArgMax,
    Depthwise,
    GlobalMean,
    Labels,
    Operation,
    Pointwise,
    Resize,
    Stem,
    parse_operation,
)
from tests.deploy.gpu.run_kernels import Kernels, rule

OPERATIONS = {
    "wide": Pointwise(6, 40, 5, 8, "relu6"),
    "odd": Pointwise(5, 11, 3, 7, "relu", add="map"),
    "gated": Pointwise(4, 19, 4, 8, "none", gate=True, add="low", low_height=2, low_width=4),
    "depthwise": Depthwise(2, 13, 10, 5, 2, 1, "relu6"),
    "stem": Stem(20, 9, 12), "planes": Stem(6, 8, 11, "float32_nchw", "none"),
    "resize": Resize(2, 5, 7, 11, 9), "mean": GlobalMean(2, 9, 17),
    "labels": Labels(5, 4, 6, 12, 20), "argmax": ArgMax(5, 6, 10, 6, 10),
}  # fmt: skip


def offered(op: Operation) -> list[Any]:
    """What there is beside the rule's own."""
    return [s for s in MODULES[type(op)].alternatives(op, rule(op)) if s != rule(op)]


HALF = ("odd", "depthwise", "stem", "resize", "mean")  # each kernel; a compilation costs 0.1 s
ALL = {f"{name}_{i}": s for name, op in OPERATIONS.items() for i, s in enumerate(offered(op))}


def base_of(name: str) -> str:
    return name.partition("_")[0]


def numbers(name: str, *shape: int) -> np.ndarray:
    """Numbers that half holds exactly."""
    seed = hashlib.sha256(f"{name}{shape}".encode()).digest()[0]
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(np.float16).astype(np.float32)


def arguments(name: str, schedule: Any) -> list[np.ndarray]:
    """Maps and constants of a kernel, the same for every schedule but for the constants' layout."""
    op = OPERATIONS[name]
    if isinstance(op, Pointwise):
        maps = [numbers("x", 1, op.cin, op.height, op.width)]
        maps += [numbers("gate", 1, op.cout, 1, 1)] * op.gate
        if op.add != "none":
            low = op.low_height, op.low_width
            plane = low if op.add == "low" else (op.height, op.width)
            maps.append(numbers("added", 1, op.cout, *plane))
        weight, bias = numbers("w", op.cout, op.cin), numbers("b", op.cout)
        return [*maps, *pointwise.pack(op, schedule, weight, bias)]
    if isinstance(op, Depthwise):
        weight = numbers("w", op.channels, 1, op.kernel, op.kernel)
        constants = depthwise.pack(op, schedule, weight, numbers("b", op.channels))
        return [numbers("x", 1, op.channels, op.height, op.width), *constants]
    if isinstance(op, Stem):
        image = np.abs(numbers("x", 1, op.height, op.width, 3) * 60).astype(np.uint8)
        if op.source == "float32_nchw":
            image = numbers("x", 1, 3, op.height, op.width)
        weight, bias = numbers("w", op.cout, 3, 3, 3), numbers("b", op.cout)
        mean, std = np.array([100.0, 120.0, 90.0]), np.array([50.0, 60.0, 75.0])
        return [image, *stem.pack(op, schedule, weight, bias, mean=mean, std=std)]
    channels = op.classes if isinstance(op, (ArgMax, Labels)) else op.channels
    constants = MODULES[type(op)].pack(op, schedule)
    return [numbers("x", 1, channels, op.height, op.width), *constants]


def output(name: str) -> np.ndarray:
    op = OPERATIONS[name]
    if isinstance(op, (ArgMax, Labels)):
        return np.empty(op.output, np.uint8)
    return np.empty((1, *op.output), np.float32)


PRECISIONS = {"fp32": tuple(OPERATIONS), "fp16": HALF}


@pytest.fixture(scope="module", params=PRECISIONS)
def kernels(request) -> Kernels:
    operations = {**OPERATIONS, **{name: OPERATIONS[base_of(name)] for name in ALL}}
    if request.param == "fp16":
        operations = {name: op for name, op in operations.items() if base_of(name) in HALF}
    return Kernels(operations, request.param, ALL)


def test_they_compute_the_same(kernels):
    """To the bit, as every sum keeps its order; only the tree of the mean is another."""
    names = [name for name in OPERATIONS if name in kernels.codes]
    assert len(names) == len(PRECISIONS[kernels.precision])
    for name in names:
        want = kernels.run(name, arguments(name, rule(OPERATIONS[name])), output(name))
        mine = [other for other in ALL if base_of(other) == name]
        assert len(set(map(ALL.get, mine))) >= 3
        for other in mine:
            got = kernels.run(other, arguments(name, ALL[other]), output(name))
            if name == "mean":
                np.testing.assert_allclose(got.astype(float), want, rtol=1e-3, atol=1e-5)
            else:
                np.testing.assert_array_equal(got, want, str(ALL[other]))


def test_no_block_is_larger_than_a_gpu_allows(kernels):
    for codes in kernels.codes.values():
        for code in codes:
            assert np.prod(code.block) <= 1024
            assert max(code.grid[1:]) <= 65535


def test_tiles_first_then_the_blocks_of_the_best():
    op = Pointwise(16, 64, 8, 16)
    best = pointwise.PointwiseSchedule(2, 8, 32, 8)
    found = list(pointwise.alternatives(op, best))
    blocks = [s for s in found if (s.pixels, s.outputs) == (2, 8)]
    assert found[-len(blocks) + 1 :] == blocks[1:]
    tiles = {(s.pixels, s.outputs) for s in found}
    assert tiles == {(p, o) for p in (1, 2, 4) for o in (1, 2, 4, 8, 16)}
    assert all(64 <= s.lanes * s.rows <= 256 for s in found)


class TestMeasuredSchedules:
    def test_a_record_of_the_rule_changes_nothing(self, gpu_graph):
        """Byte for byte: source, plan and constants."""
        target = resolve_target("cuda", "sm_61")
        plain = compile_source(Job(gpu_graph, target))
        texts = [kernel.spec for kernel in plain.kernels]
        measured = {text: schedule_fields(rule(parse_operation(text))) for text in texts}
        again = compile_source(Job(gpu_graph, target, GpuKernels(measured=measured)))
        assert again.lowered == plain.lowered
        assert not any(kernel.tuned for kernel in plain.kernels)
        assert all(kernel.tuned for kernel in again.kernels)

    def test_fields_that_do_not_fit(self):
        op = OPERATIONS["resize"]
        with pytest.raises(UserError, match="tune again"):
            GpuKernels(measured={str(op): {"lanes": 3}}).schedule(op)
