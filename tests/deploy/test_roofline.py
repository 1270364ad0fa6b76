import re
from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from deploy.profile import KernelProfile
from deploy.roofline import NUMBERED, draw_roofline, roofline_figure
from lut.ops import Depthwise, GlobalMean, InvertedResidual
from tests.deploy.test_profile import CEILINGS, PROFILE

# Kernels in a heap, as those of a network are that all reach the ceiling.
HEAP = tuple(
    KernelProfile(f"k{n}", op.kind, str(op), 1, 0.01 + n / 1000, 400_000 + 9_000 * n, 10_000 + n)
    for n, op in enumerate([InvertedResidual(8, 48, 8, 16, 32), Depthwise(48, 16, 32)] * 10)
)
MEAN = KernelProfile("mean", "global_mean", str(GlobalMean(8, 16, 32)), 1, 0.5, 0, 10_000)


@pytest.mark.parametrize("ceilings", [CEILINGS, None])
def test_it_is_a_picture(tmp_path, ceilings):
    path = tmp_path / "roofline.png"
    draw_roofline(replace(PROFILE, ceilings=ceilings), "title", path)
    assert Image.open(path).size[0] > 400


def test_without_a_kernel_that_computes(tmp_path):
    draw_roofline(replace(PROFILE, kernels=(MEAN,)), "title", tmp_path / "roofline.png")
    assert Image.open(tmp_path / "roofline.png").size[0] > 400


def test_numbers_stand_apart_and_beside_the_picture_is_what_they_are():
    figure = roofline_figure(replace(PROFILE, kernels=(*HEAP, MEAN)), "title")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    texts = {text.get_text(): text for text in axes.texts}
    numbers = [texts[str(n)] for n in range(1, NUMBERED + 1)]
    boxes = [text.get_bbox_patch() or _own_box(text, canvas) for text in numbers]
    assert not [(a, b) for a in boxes for b in boxes if a is not b and a.overlaps(b)]
    (beside,) = [text for text in texts if "of the frame" in text]
    lines = [re.sub(r"\s+", " ", line).strip() for line in beside.splitlines()[1:]]
    assert lines[:2] == [
        "1 2.9% depthwise of 48, 3x3, 16x32",
        "2 2.8% inverted residual 8→48→8, 3x3, 16x32",
    ]
    assert len(lines) == NUMBERED
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["depthwise", "inverted residual"]


def _own_box(text, canvas):
    """Of the number, without the line that leads to it."""
    from matplotlib.text import Text

    return Text.get_window_extent(text, canvas.get_renderer())


def test_levels_of_memory_are_named_along_their_lines():
    figure = roofline_figure(PROFILE, "title")
    (axes,) = figure.axes
    found = {text.get_text(): text for text in axes.texts}
    small, large = found["16 KiB a thread: 400 GB/s"], found["1024 MiB a thread: 20 GB/s"]
    assert 0 < small.get_rotation() < 90
    assert small.get_rotation() == pytest.approx(large.get_rotation())
    for text, rate in ((small, 400), (large, 20)):
        x, y = text.get_position()
        assert y == pytest.approx(x * rate)
