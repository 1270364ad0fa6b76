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
from deploy.gpu.lower import lower_kernels
from lut.errors import UserError
from lut.ops import ArgMax, Depthwise, GlobalMean, Labels, Pointwise, Resize, Stem
from tests.deploy.cpu.kernels.helpers import activate
from tests.deploy.gpu.run_kernels import Kernels, cuda, rule

POINTWISE = {
    "wide": Pointwise(16, 96, 8, 16, "relu6"),
    "odd": Pointwise(13, 11, 5, 7, "relu"),
    "large": Pointwise(8, 16, 64, 256, "none", add="map"),
    "residual": Pointwise(24, 16, 8, 16, "none", add="map"),
    "context": Pointwise(32, 12, 6, 8, "relu6", add="channel"),
    "pixel": Pointwise(40, 24, 1, 1, "sigmoid"),
    "hard_swish": Pointwise(16, 24, 8, 16, "hswish"),
    "gated_hard_swish": Pointwise(8, 12, 8, 16, "hswish", "low", True, 4, 8),
    "gated": Pointwise(16, 32, 8, 16, "relu6", "low", True, 4, 8),
    "gated_odd": Pointwise(16, 19, 9, 7, "none", "low", True, 4, 3),
    "gated_large": Pointwise(16, 16, 64, 128, "relu6", "low", True, 16, 32),
}  # fmt: skip
DEPTHWISE = {
    f"depthwise_{c}_{h}_{w}_{k}_{s}_{d}": Depthwise(c, h, w, k, s, d, act)
    for c, h, w, k, s, d, act in [
        (8, 9, 13, 3, 1, 1, "relu6"), (8, 16, 32, 3, 2, 1, "none"), (5, 15, 17, 3, 2, 1, "relu"),
        (4, 12, 20, 3, 1, 4, "relu6"), (4, 12, 20, 5, 1, 2, "relu6"), (3, 9, 11, 7, 2, 1, "relu6"),
        (16, 70, 130, 3, 1, 1, "relu6"), (32, 65, 130, 3, 2, 1, "none"),
        (6, 9, 13, 3, 1, 1, "sigmoid"), (7, 9, 13, 3, 2, 1, "hswish"),
    ]
}  # fmt: skip
STEMS = {
    "camera": Stem(16, 16, 24), "camera_odd": Stem(20, 17, 23, act="relu"),
    "planes": Stem(32, 16, 24, "float32_nchw", "none"), "bounded": Stem(8, 9, 13, act="sigmoid"),
    "hard_swish_stem": Stem(8, 9, 13, act="hswish"),
}  # fmt: skip
RESIZES = {
    "up": Resize(4, 5, 7, 17, 23), "half": Resize(4, 16, 32, 8, 16),
    "odd_down": Resize(3, 30, 50, 12, 20),
}  # fmt: skip
MEANS = {"mean": GlobalMean(5, 9, 17), "mean_large": GlobalMean(3, 48, 96)}
ARG_MAXES = {
    "arg_max": ArgMax(11, 6, 8, 6, 8), "arg_max_odd": ArgMax(4, 5, 7, 5, 7),
}  # fmt: skip
LABELS = {
    "labels": Labels(11, 6, 9, 48, 72), "labels_odd": Labels(4, 5, 6, 37, 43),
}  # fmt: skip
OPERATIONS = {**POINTWISE, **DEPTHWISE, **STEMS, **RESIZES, **MEANS, **ARG_MAXES, **LABELS}


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels(OPERATIONS)


@pytest.fixture(scope="module")
def half_kernels() -> Kernels:
    scored = {*LABELS, *ARG_MAXES}
    return Kernels({name: op for name, op in OPERATIONS.items() if name not in scored}, "fp16")


@pytest.fixture(params=["fp32", "fp16"])
def any_kernels(request) -> Kernels:
    return request.getfixturevalue("kernels" if request.param == "fp32" else "half_kernels")


def noise(*shape: int) -> np.ndarray:
    """Numbers that half holds exactly."""
    generator = np.random.default_rng(hash(shape) % 2**32)
    return generator.standard_normal(shape).astype(np.float16).astype(np.float32)


def double(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array)).double()


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
    op = POINTWISE[name]
    x, w, b = (
        noise(1, op.cin, op.height, op.width),
        noise(op.cout, op.cin),
        noise(op.cout),
    )
    inputs, want = [x], F.conv2d(double(x), double(w)[:, :, None, None], double(b))
    if op.gate:
        inputs.append(noise(1, op.cout, 1, 1))
        want = want * double(inputs[-1])
    if op.add != "none":
        planes = {
            "map": (op.height, op.width), "channel": (1, 1), "low": (op.low_height, op.low_width)
        }  # fmt: skip
        inputs.append(noise(1, op.cout, *planes[op.add]))
        added = double(inputs[-1])
        want = want + (upsample(added, (op.height, op.width)) if op.add == "low" else added)
    want = activate(want, op.act)
    constants = pointwise.pack(op, rule(op), w, b)
    check(any_kernels, name, [*inputs, *constants], want)


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(any_kernels, name):
    op = DEPTHWISE[name]
    x = noise(1, op.channels, op.height, op.width)
    w, b = noise(op.channels, 1, op.kernel, op.kernel), noise(op.channels)
    want = F.conv2d(
        double(x), double(w), double(b), stride=op.stride, padding=op.dilation * (op.kernel // 2),
        dilation=op.dilation, groups=op.channels,
    )  # fmt: skip
    want = activate(want, op.act)
    constants = depthwise.pack(op, rule(op), w, b)
    check(any_kernels, name, [x, *constants], want)


@pytest.mark.parametrize("name", STEMS)
def test_stem(any_kernels, name):
    op = STEMS[name]
    w, b = noise(op.cout, 3, 3, 3), noise(op.cout)
    mean, std = np.array([100.0, 120.0, 90.0]), np.array([50.0, 60.0, 75.0])
    if op.source == "uint8_nhwc":
        generator = np.random.default_rng(1)
        x = generator.integers(0, 256, (1, op.height, op.width, 3), dtype=np.uint8)
        planes = double((x - mean) / std).permute(0, 3, 1, 2)
    else:
        x = noise(1, 3, op.height, op.width)
        planes = double(x)
    want = activate(F.conv2d(planes, double(w), double(b), stride=2, padding=1), op.act)
    constants = stem.pack(op, rule(op), w, b, mean=mean, std=std)
    check(any_kernels, name, [x, *constants], want)


@pytest.mark.parametrize("name", RESIZES)
def test_resize(any_kernels, name):
    op = RESIZES[name]
    x = noise(1, op.channels, op.height, op.width)
    want = upsample(double(x), (op.out_height, op.out_width))
    check(any_kernels, name, [x, *resize.pack(op, rule(op))], want)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", MEANS)
def test_global_mean(any_kernels, name, backwards):
    """The block's threads run in two orders: a missing barrier would show in one of them."""
    op = MEANS[name]
    x = noise(1, op.channels, op.height, op.width)
    want = double(x).mean((2, 3), keepdim=True)
    constants = global_mean.pack(op, rule(op))
    check(any_kernels, name, [x, *constants], want, backwards=backwards)


def test_a_missing_barrier_shows(kernels):
    """Else the two orders of threads would prove nothing."""
    op = MEANS["mean"]
    x = noise(1, op.channels, op.height, op.width)
    broken = EmulatedGpu(kernels.source.replace("__syncthreads();", ""))
    code = kernels.code("mean")
    for backwards in (False, True):
        y = np.zeros(op.channels, np.float32)
        addresses = [(x, y)[number].ctypes.data for number in code.arguments]
        broken.launch(code.kernel, code.grid, code.block, addresses, backwards=backwards)
        if not np.allclose(y, x.mean((0, 2, 3)), atol=1e-5):
            return
    pytest.fail("both orders gave the mean")


@pytest.mark.parametrize("name", LABELS)
def test_label_end(kernels, name):
    """Labels may differ from float64's only where two classes are as good as equal."""
    op = LABELS[name]
    scores = noise(1, op.classes, op.height, op.width)
    planes = upsample(double(scores), (op.out_height, op.out_width))
    output = np.empty((1, op.out_height, op.out_width), np.uint8)
    got = kernels.run(name, [scores, *label_end.pack(op, rule(op))], output)
    best = planes.max(1).values
    reached = planes.gather(1, torch.from_numpy(got.astype(np.int64))[:, None])[:, 0]
    assert (best - reached).max() < 1e-5
    assert (got == planes.argmax(1).numpy()).mean() > 0.999


def test_labels_of_ties_and_nans(kernels):
    """Equal scores give the lowest class; the first NaN wins, as in numpy."""
    op = LABELS["labels"]
    scores = np.zeros((1, op.classes, op.height, op.width), np.float32)
    output = np.empty((1, op.out_height, op.out_width), np.uint8)
    constants = label_end.pack(op, rule(op))
    assert (kernels.run("labels", [scores, *constants], output) == 0).all()
    scores[:, 3:5] = np.nan
    assert (kernels.run("labels", [scores, *constants], output) == 3).all()


@pytest.mark.parametrize("name", ARG_MAXES)
def test_arg_max(kernels, name):
    """numpy's, with ties and NaNs."""
    op = ARG_MAXES[name]
    scores = np.round(noise(1, op.classes, op.height, op.width))
    scores[:, 2:, 1] = np.nan
    got = kernels.run(name, [scores], np.empty(op.output, np.uint8))
    np.testing.assert_array_equal(got, scores.argmax(1))


def test_memory_that_is_sized_at_the_launch_is_refused(monkeypatch):
    """TVM's own rules may ask for it; a launch without it would write to nothing."""
    monkeypatch.setattr(
        gpu, "shared", lambda size: T.alloc_buffer((size,), "float32", scope="shared.dyn")
    )
    with pytest.raises(UserError, match=r"the operator mean needs tirx\.use_dyn_shared_memory, "):
        Kernels({"mean": GlobalMean(4, 8, 8)})


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
