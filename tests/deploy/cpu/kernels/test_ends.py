from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit, labels_end, module_of
from lut.ops import Labels, Logits

from .helpers import ISAS, normal, run

SHAPES = {
    "classes": st.integers(2, 150),
    "h": st.integers(1, 9),
    "w": st.integers(1, 9),
    "oh": st.integers(1, 40),
    "ow": st.integers(1, 90),
}


def labels(isa, x, oh, ow, **changes):
    op = Labels(*x.shape[1:], oh, ow)
    schedule = replace(module_of(op).default_schedule(op, isa), **changes)
    arrays = [layout.pack_activation(isa, x), *module_of(op).pack(op, isa)]
    return run(emit(op, isa, schedule=schedule), isa, arrays, (1, oh, ow), "uint8")


def objects(classes, h, w):
    """Scores in which a few classes win large regions, as in a picture."""
    x = normal(1, 1, classes, h, w)
    regions = np.random.default_rng(2).integers(0, classes, (-(-h // 3), -(-w // 3)))
    regions = regions.repeat(3, 0).repeat(3, 1)[:h, :w]
    np.put_along_axis(x[0], regions[None], 6, 0)
    return x


def upsample(x, oh, ow):
    planes = torch.from_numpy(x).double()
    return F.interpolate(planes, (oh, ow), mode="bilinear", align_corners=False).numpy()


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(**SHAPES)
@example(classes=19, h=4, w=8, oh=32, ow=64)
@example(classes=2, h=1, w=1, oh=1, ow=1)
@example(classes=5, h=9, w=9, oh=3, ow=4)  # down
def test_labels(isa, classes, h, w, oh, ow):
    x = normal(1, 1, classes, h, w)
    got, planes = labels(isa, x, oh, ow), upsample(x, oh, ow)
    chosen = np.take_along_axis(planes, got[:, None].astype(np.int64), 1)[:, 0]
    # Where two classes are as good as equal, rounding may choose either.
    np.testing.assert_allclose(chosen, planes.max(1), atol=2e-6)
    assert (got != planes.argmax(1)).mean() < 0.01


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(**SHAPES)
@example(classes=19, h=4, w=8, oh=32, ow=64)
def test_logits(isa, classes, h, w, oh, ow):
    x = normal(1, 1, classes, h, w)
    op = Logits(classes, h, w, oh, ow)
    arrays = [layout.pack_activation(isa, x), *module_of(op).pack(op, isa)]
    y = run(emit(op, isa), isa, arrays, (1, classes, oh, ow))
    np.testing.assert_allclose(y, upsample(x, oh, ow), atol=5e-6)


def interpolate(x, axis, out):
    """One axis in float64, from the two neighbours of each output alone, as ONNX's Resize says."""
    size = x.shape[axis]
    source = np.maximum((np.arange(out) + 0.5) * size / out - 0.5, 0)
    low = np.minimum(np.floor(source).astype(int), size - 1)
    high = np.minimum(low + 1, size - 1)
    share = np.expand_dims(source - low, [i for i in range(x.ndim) if i != axis])
    with np.errstate(invalid="ignore"):
        return x.take(low, axis) * (1 - share) + x.take(high, axis) * share


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("out", [(72, 48), (61, 39)], ids=["weighted sums", "intervals"])
def test_logits_that_are_not_finite(isa, out):
    x = normal(3, 1, 20, 9, 6)
    x[0, 5, 1, 2], x[0, 17, 3, 0], x[0, 9, 0, 4], x[0, 9, 0, 5] = np.nan, np.nan, np.inf, -np.inf
    x[0, :, 3, 5] = -np.inf
    op = Logits(20, 9, 6, *out)
    constants = module_of(op).pack(op, isa)
    assert (len(constants) > 4) == (out == (72, 48))
    y = run(emit(op, isa), isa, [layout.pack_activation(isa, x), *constants], (1, 20, *out))
    expected = interpolate(interpolate(x.astype(np.float64), 2, out[0]), 3, out[1])
    bad = ~np.isfinite(expected).all((1, 3))[0]
    assert bad.any()
    assert not bad.all()  # rows of both kinds
    np.testing.assert_allclose(y, expected, atol=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("classes", "size", "out"),
    [
        (19, (8, 12), (64, 96)),
        (255, (7, 5), (53, 61)),
        (2, (1, 2), (9, 40)),
        (33, (9, 19), (30, 64)),
    ],
)
def test_filled_cells_are_the_labels_of_their_pixels(isa, classes, size, out):
    x = objects(classes, *size)
    filled = labels(isa, x, *out, by_cells=True)
    assert (filled == upsample(x, *out).argmax(1)).all()
    assert (filled == labels(isa, x, *out, by_cells=False)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_cells_beside_a_non_finite_score_are_not_filled(isa):
    x = objects(20, 6, 9)
    x[0, 5, 1, 2], x[0, 3, 4, 8], x[0, 9, 0, 0] = np.nan, -np.inf, np.inf
    got = labels(isa, x, 48, 72, by_cells=True)
    assert (got == torch.from_numpy(upsample(x, 48, 72)).argmax(1).numpy()).all()


@pytest.mark.parametrize("isa", ISAS)
def test_scores_whose_differences_are_no_floats(isa):
    x = normal(3, 1, 20, 5, 6)
    x[0, 4, 1], x[0, 4, 2], x[0, 7, 3, 2] = 3e38, -3e38, 3e38
    got, planes = labels(isa, x, 40, 48, by_cells=True), upsample(x, 40, 48)
    assert (got == planes.argmax(1)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_ranges_of_rows_cut_cells(isa):
    x = normal(4, 1, 20, 5, 9)
    whole = labels(isa, x, 43, 61, by_cells=True, row_tasks=1)
    assert (labels(isa, x, 43, 61, by_cells=True, row_tasks=7) == whole).all()
    assert (whole != upsample(x, 43, 61).argmax(1)).mean() < 0.01


def test_cells_are_filled_where_they_have_pixels_and_classes_enough():
    def fills(classes, *sizes):
        return labels_end.default_schedule(Labels(classes, *sizes), AVX2).by_cells

    assert fills(19, 32, 64, 256, 512)
    assert fills(19, 128, 256, 256, 512)
    assert not fills(2, 128, 256, 256, 512)
    assert fills(2, 64, 128, 256, 512)
    assert not fills(19, 32, 64, 32, 64)
    assert not fills(19, 32, 1, 256, 512)


@pytest.mark.parametrize("isa", ISAS)
def test_equal_scores_give_the_lowest_class(isa):
    x = np.full((1, 20, 3, 5), 0.25, np.float32)
    assert not labels(isa, x, 24, 40).any()
    x[:, 7], x[:, 11] = 1, 1
    assert (labels(isa, x, 24, 40) == 7).all()


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_and_infinity_as_in_torch(isa):
    x = normal(3, 1, 20, 4, 6)
    x[0, 5, 1, 2], x[0, 3, 1, 2], x[0, 17, 3, 0], x[0, 9, 0, 4] = np.nan, np.nan, np.nan, np.inf
    x[0, :, 2, 5] = -np.inf
    got, planes = labels(isa, x, 32, 48), upsample(x, 32, 48)
    expected = torch.from_numpy(planes).argmax(1).numpy()
    assert (got == expected).all()
