"""What tuning may choose: every alternative computes what the rule's kernel computes, which
test_kernels.py holds to float64."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from deploy.schedules import schedule_fields
from deploy.gpu.kernels import (
    MODULES,
    GpuKernels,
    depthwise,
    global_mean,
    label_end,
    pointwise,
    resize,
    stem,
)
from deploy.gpu.kernels.depthwise import DepthwiseSpec
from deploy.gpu.kernels.global_mean import GlobalMeanSpec
from deploy.gpu.kernels.label_end import LabelEndSpec
from deploy.gpu.kernels.pointwise import PointwiseSpec
from deploy.gpu.kernels.resize import ResizeSpec
from deploy.gpu.kernels.stem import StemSpec
from deploy.gpu.pipeline import compile_source
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.deploy.gpu.run_kernels import Kernels, rule

SPECS = {
    "wide": PointwiseSpec(6, 40, 5, 8, "relu6"),
    "odd": PointwiseSpec(5, 11, 3, 7, "relu", add="map"),
    "gated": PointwiseSpec(4, 19, 4, 8, "none", gate=True, add="low", low=(2, 4)),
    "depthwise": DepthwiseSpec(2, 13, 10, 5, 2, 1, "relu6"),
    "stem": StemSpec(20, 9, 12), "planes": StemSpec(6, 8, 11, "float32_nchw", "none"),
    "resize": ResizeSpec(2, 5, 7, 11, 9), "mean": GlobalMeanSpec(2, 9, 17),
    "labels": LabelEndSpec(5, 4, 6, 12, 20),
}  # fmt: skip


def offered(spec: Any) -> list[Any]:
    """What there is beside the rule's own."""
    return [s for s in MODULES[type(spec)].alternatives(spec, rule(spec)) if s != rule(spec)]


HALF = ("odd", "depthwise", "stem", "resize", "mean")  # each kernel; a compilation costs 0.1 s
ALL = {f"{name}_{i}": s for name, spec in SPECS.items() for i, s in enumerate(offered(spec))}


def base_of(name: str) -> str:
    return name.partition("_")[0]


def numbers(name: str, *shape: int) -> np.ndarray:
    """Numbers that half holds exactly."""
    seed = hashlib.sha256(f"{name}{shape}".encode()).digest()[0]
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(np.float16).astype(np.float32)


def arguments(name: str, schedule: Any) -> list[np.ndarray]:
    """Maps and constants of a kernel, the same for every schedule but for the constants' layout."""
    spec = SPECS[name]
    if isinstance(spec, PointwiseSpec):
        maps = [numbers("x", 1, spec.cin, spec.height, spec.width)]
        maps += [numbers("gate", 1, spec.cout, 1, 1)] * spec.gate
        if spec.add != "none":
            plane = spec.low if spec.add == "low" else (spec.height, spec.width)
            maps.append(numbers("added", 1, spec.cout, *plane))
        weight, bias = numbers("w", spec.cout, spec.cin), numbers("b", spec.cout)
        return [*maps, *pointwise.pack(spec, schedule, weight, bias)]
    if isinstance(spec, DepthwiseSpec):
        weight = numbers("w", spec.channels, 1, spec.kernel, spec.kernel)
        constants = depthwise.pack(spec, weight, numbers("b", spec.channels))
        return [numbers("x", 1, spec.channels, spec.height, spec.width), *constants]
    if isinstance(spec, StemSpec):
        image = np.abs(numbers("x", 1, spec.height, spec.width, 3) * 60).astype(np.uint8)
        if spec.source == "float32_nchw":
            image = numbers("x", 1, 3, spec.height, spec.width)
        weight, bias = numbers("w", spec.cout, 3, 3, 3), numbers("b", spec.cout)
        factor, shift = np.float32([0.01, 0.02, 0.03]), np.float32([-1, 0.5, 0.25])
        return [image, *stem.pack(spec, schedule, weight, bias, factor, shift)]
    pack: dict[type, Callable[[Any], list[Any]]] = {
        ResizeSpec: resize.pack, GlobalMeanSpec: global_mean.pack, LabelEndSpec: label_end.pack
    }  # fmt: skip
    channels = spec.classes if isinstance(spec, LabelEndSpec) else spec.channels
    return [numbers("x", 1, channels, spec.height, spec.width), *pack[type(spec)](spec)]


def output(name: str) -> np.ndarray:
    spec = SPECS[name]
    if isinstance(spec, LabelEndSpec):
        return np.empty((1, spec.out_height, spec.out_width), np.uint8)
    channels = spec.cout if isinstance(spec, PointwiseSpec | StemSpec) else spec.channels
    if isinstance(spec, GlobalMeanSpec):
        return np.empty((1, channels, 1, 1), np.float32)
    if isinstance(spec, ResizeSpec):
        return np.empty((1, channels, spec.out_height, spec.out_width), np.float32)
    plane = (spec.height, spec.width) if isinstance(spec, PointwiseSpec) else spec.out
    return np.empty((1, channels, *plane), np.float32)


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def kernels(request) -> Kernels:
    specs = {**SPECS, **{name: SPECS[base_of(name)] for name in ALL}}
    if request.param == "fp16":
        specs = {name: spec for name, spec in specs.items() if base_of(name) in HALF}
    return Kernels(specs, request.param, ALL)


@pytest.mark.parametrize("name", SPECS)
def test_they_compute_the_same(kernels, name):
    """To the bit, as every sum keeps its order; only the tree of the mean is another."""
    if name not in kernels.codes:
        pytest.skip("at fp32 only")
    want = kernels.run(name, arguments(name, rule(SPECS[name])), output(name))
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
    spec = PointwiseSpec(16, 64, 8, 16)
    best = pointwise.PointwiseSchedule(2, 8, 32, 8)
    found = list(pointwise.alternatives(spec, best))
    blocks = [s for s in found if (s.pixels, s.outputs) == (2, 8)]
    assert found[-len(blocks) + 1 :] == blocks[1:]
    tiles = {(s.pixels, s.outputs) for s in found}
    assert tiles == {(p, o) for p in (1, 2, 4) for o in (1, 2, 4, 8, 16)}
    assert all(64 <= s.lanes * s.rows <= 256 for s in found)


class TestChooser:
    def test_a_record_of_the_rule_changes_nothing(self, gpu_graph):
        """Byte for byte: source, plan and constants."""
        target = resolve_target("cuda", "sm_61")
        kernels = GpuKernels()
        plain = compile_source(gpu_graph, target, kernels=kernels)
        measured = {text: schedule_fields(rule(s)) for text, s in kernels.emitted.items()}
        again = compile_source(gpu_graph, target, kernels=GpuKernels(measured))
        assert again.lowered == plain.lowered
        assert not any(kernel.tuned for kernel in plain.kernels)
        assert all(kernel.tuned for kernel in again.kernels)

    def test_fields_that_do_not_fit(self):
        spec = SPECS["resize"]
        with pytest.raises(UserError, match="tune again"):
            GpuKernels({repr(spec): {"lanes": 3}}).schedule(spec)
