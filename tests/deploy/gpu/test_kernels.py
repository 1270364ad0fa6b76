"""Every GPU kernel against float64, in emulation of the CUDA source; those that read and write maps
in both precisions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tvm.tirx.script import builder as T

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.emulator import EmulatedGpu
from deploy.gpu.kernels import depthwise, global_mean, label_end, pointwise, resize, stem
from deploy.gpu.kernels.depthwise import DepthwiseSpec
from deploy.gpu.kernels.global_mean import GlobalMeanSpec
from deploy.gpu.kernels.label_end import LabelEndSpec
from deploy.gpu.kernels.pointwise import PointwiseSpec
from deploy.gpu.kernels.resize import ResizeSpec
from deploy.gpu.kernels.stem import StemSpec
from deploy.gpu.lower import lower_kernels
from lut.errors import UserError
from tests.deploy.gpu.run_kernels import Kernels, cuda, rule

POINTWISE = {
    "wide": PointwiseSpec(16, 96, 8, 16, "relu6"),
    "odd": PointwiseSpec(13, 11, 5, 7, "relu"),
    "large": PointwiseSpec(8, 16, 64, 256, "none", add="map"),
    "residual": PointwiseSpec(24, 16, 8, 16, "none", add="map"),
    "context": PointwiseSpec(32, 12, 6, 8, "relu6", add="channel"),
    "pixel": PointwiseSpec(40, 24, 1, 1, "sigmoid"),
    "gated": PointwiseSpec(16, 32, 8, 16, "relu6", gate=True, add="low", low=(4, 8)),
    "gated_odd": PointwiseSpec(16, 19, 9, 7, "none", gate=True, add="low", low=(4, 3)),
    "gated_large": PointwiseSpec(16, 16, 64, 128, "relu6", gate=True, add="low", low=(16, 32)),
}  # fmt: skip
DEPTHWISE = {
    f"depthwise_{c}_{h}_{w}_{k}_{s}_{d}": DepthwiseSpec(c, h, w, k, s, d, act)
    for c, h, w, k, s, d, act in [
        (8, 9, 13, 3, 1, 1, "relu6"), (8, 16, 32, 3, 2, 1, "none"), (5, 15, 17, 3, 2, 1, "relu"),
        (4, 12, 20, 3, 1, 4, "relu6"), (4, 12, 20, 5, 1, 2, "relu6"), (3, 9, 11, 7, 2, 1, "relu6"),
        (16, 70, 130, 3, 1, 1, "relu6"), (32, 65, 130, 3, 2, 1, "none"),
    ]
}  # fmt: skip
STEMS = {
    "camera": StemSpec(16, 16, 24), "camera_odd": StemSpec(20, 17, 23, act="relu"),
    "planes": StemSpec(32, 16, 24, "float32_nchw", "none"),
}  # fmt: skip
RESIZES = {
    "up": ResizeSpec(4, 5, 7, 17, 23), "half": ResizeSpec(4, 16, 32, 8, 16),
    "odd_down": ResizeSpec(3, 30, 50, 12, 20),
}  # fmt: skip
MEANS = {"mean": GlobalMeanSpec(5, 9, 17), "mean_large": GlobalMeanSpec(3, 48, 96)}
LABELS = {
    "labels": LabelEndSpec(11, 6, 9, 48, 72), "labels_odd": LabelEndSpec(4, 5, 6, 37, 43),
}  # fmt: skip
SPECS = {**POINTWISE, **DEPTHWISE, **STEMS, **RESIZES, **MEANS, **LABELS}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels(SPECS)


@pytest.fixture(scope="module")
def half_kernels() -> Kernels:
    return Kernels({name: spec for name, spec in SPECS.items() if name not in LABELS}, "fp16")


@pytest.fixture(params=["fp32", "fp16"])
def any_kernels(request) -> Kernels:
    return request.getfixturevalue("kernels" if request.param == "fp32" else "half_kernels")


def noise(*shape: int) -> np.ndarray:
    """Numbers that half holds exactly."""
    generator = np.random.default_rng(hash(shape) % 2**32)
    return generator.standard_normal(shape).astype(np.float16).astype(np.float32)


def double(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array)).double()


def activate(value: torch.Tensor, act: str) -> torch.Tensor:
    functions = {"none": lambda v: v, "relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid}
    return functions[act](value)


def upsample(value: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(value, size=size, mode="bilinear", align_corners=False)


def check(
    kernels: Kernels, name: str, inputs: list[np.ndarray], want: torch.Tensor, *,
    backwards: bool = False,
) -> None:  # fmt: skip
    """Sums are float32 in both precisions; half adds one rounding to nearest, of what is stored."""
    got = kernels.run(name, inputs, np.empty(want.shape, np.float32), backwards=backwards)
    assert got.dtype == (np.float16 if kernels.precision == "fp16" else np.float32)
    assert np.isfinite(got).all()
    rounding = 2**-11 if kernels.precision == "fp16" else 0
    np.testing.assert_allclose(got, want.numpy(), rtol=2e-5 + rounding, atol=2e-5)


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise(any_kernels, name):
    spec = POINTWISE[name]
    x, w, b = (
        noise(1, spec.cin, spec.height, spec.width),
        noise(spec.cout, spec.cin),
        noise(spec.cout),
    )
    inputs, want = [x], F.conv2d(double(x), double(w)[:, :, None, None], double(b))
    if spec.gate:
        inputs.append(noise(1, spec.cout, 1, 1))
        want = want * double(inputs[-1])
    if spec.add != "none":
        plane = {"map": (spec.height, spec.width), "channel": (1, 1), "low": spec.low}[spec.add]
        inputs.append(noise(1, spec.cout, *plane))
        added = double(inputs[-1])
        want = want + (upsample(added, (spec.height, spec.width)) if spec.add == "low" else added)
    want = activate(want, spec.act)
    constants = pointwise.pack(spec, rule(spec), w, b)
    check(any_kernels, name, [*inputs, *constants], want)


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(any_kernels, name):
    spec = DEPTHWISE[name]
    x = noise(1, spec.channels, spec.height, spec.width)
    w, b = noise(spec.channels, 1, spec.kernel, spec.kernel), noise(spec.channels)
    want = F.conv2d(
        double(x), double(w), double(b), stride=spec.stride, padding=spec.pad,
        dilation=spec.dilation, groups=spec.channels,
    )  # fmt: skip
    want = activate(want, spec.act)
    constants = depthwise.pack(spec, w, b)
    check(any_kernels, name, [x, *constants], want)


@pytest.mark.parametrize("name", STEMS)
def test_stem(any_kernels, name):
    spec = STEMS[name]
    w, b = noise(spec.cout, 3, 3, 3), noise(spec.cout)
    factor, shift = np.float32([0.01, 0.02, 0.03]), np.float32([-1, 0.5, 0.25])
    if spec.source == "uint8_nhwc":
        generator = np.random.default_rng(1)
        x = generator.integers(0, 256, (1, spec.height, spec.width, 3), dtype=np.uint8)
        planes = double(x).permute(0, 3, 1, 2)
        planes = planes * double(factor)[:, None, None] + double(shift)[:, None, None]
    else:
        x = noise(1, 3, spec.height, spec.width)
        planes = double(x)
    want = activate(F.conv2d(planes, double(w), double(b), stride=2, padding=1), spec.act)
    constants = stem.pack(spec, rule(spec), w, b, factor, shift)
    check(any_kernels, name, [x, *constants], want)


@pytest.mark.parametrize("name", RESIZES)
def test_resize(any_kernels, name):
    spec = RESIZES[name]
    x = noise(1, spec.channels, spec.height, spec.width)
    want = upsample(double(x), (spec.out_height, spec.out_width))
    check(any_kernels, name, [x, *resize.pack(spec)], want)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", MEANS)
def test_global_mean(any_kernels, name, backwards):
    """The block's threads run in two orders: a missing barrier would show in one of them."""
    spec = MEANS[name]
    x = noise(1, spec.channels, spec.height, spec.width)
    want = double(x).mean((2, 3), keepdim=True)
    constants = global_mean.pack(spec)
    check(any_kernels, name, [x, *constants], want, backwards=backwards)


def test_a_missing_barrier_shows(kernels):
    """Else the two orders of threads would prove nothing."""
    spec = MEANS["mean"]
    x = noise(1, spec.channels, spec.height, spec.width)
    broken = EmulatedGpu(kernels.source.replace("__syncthreads();", ""))
    code = kernels.code("mean")
    for backwards in (False, True):
        y = np.zeros(spec.channels, np.float32)
        addresses = [(x, y)[number].ctypes.data for number in code.arguments]
        broken.launch(code.kernel, code.grid, code.block, addresses, backwards=backwards)
        if not np.allclose(y, x.mean((0, 2, 3)), atol=1e-5):
            return
    pytest.fail("both orders gave the mean")


@pytest.mark.parametrize("name", LABELS)
def test_label_end(kernels, name):
    """Labels may differ from float64's only where two classes are as good as equal."""
    spec = LABELS[name]
    scores = noise(1, spec.classes, spec.height, spec.width)
    planes = upsample(double(scores), (spec.out_height, spec.out_width))
    output = np.empty((1, spec.out_height, spec.out_width), np.uint8)
    got = kernels.run(name, [scores, *label_end.pack(spec)], output)
    best = planes.max(1).values
    reached = planes.gather(1, torch.from_numpy(got.astype(np.int64))[:, None])[:, 0]
    assert (best - reached).max() < 1e-5
    assert (got == planes.argmax(1).numpy()).mean() > 0.999


def test_labels_of_ties_and_nans(kernels):
    """Equal scores give the lowest class; the first NaN wins, as in numpy."""
    spec = LABELS["labels"]
    scores = np.zeros((1, spec.classes, spec.height, spec.width), np.float32)
    output = np.empty((1, spec.out_height, spec.out_width), np.uint8)
    constants = label_end.pack(spec)
    assert (kernels.run("labels", [scores, *constants], output) == 0).all()
    scores[:, 3:5] = np.nan
    assert (kernels.run("labels", [scores, *constants], output) == 3).all()


def test_memory_that_is_sized_at_the_launch_is_refused(monkeypatch):
    """TVM's own rules may ask for it; a launch without it would write to nothing."""
    monkeypatch.setattr(
        gpu, "shared", lambda size: T.alloc_buffer((size,), "float32", scope="shared.dyn")
    )
    with pytest.raises(UserError, match=r"the operator mean needs tirx\.use_dyn_shared_memory, "):
        Kernels({"mean": GlobalMeanSpec(4, 8, 8)})


def test_memory_between_two_kernels_is_refused():
    def signature(f):
        x, y = f.param("x", (64,)), f.param("y", (64,))

        def body():
            between = T.alloc_buffer((64,), "float32", scope="global")
            for source, target in ((x, between), (between, y)):
                with gpu.launch((1,), (64,)) as (_, (tx,)):
                    ir.store_scalar(target, source[tx], tx)

        return body

    with pytest.raises(UserError, match="the operator two needs memory between two kernels, which"):
        lower_kernels({"two": ir.prim_func("two", signature)}, cuda())
