"""What may be lost."""

import pytest

from deploy.quantise.gate import allowed, check_loss, passes, points_lost
from deploy.quantise.judge import Figures
from lut.errors import UserError


def figures(miou: float | None = None, clear: float = 1.0) -> Figures:
    return Figures(1, clear, clear, 0.0, miou)


@pytest.mark.parametrize(
    ("miou", "clear", "limit", "good"),
    [
        (0.695, 0.5, 0.51, True), (0.695, 1.0, 0.49, False), (0.8, 0.5, 0.0, True),
        (None, 0.99, None, True), (None, 0.989, None, False), (0.7, 0.989, None, False),
    ],
)  # fmt: skip
def test_the_gate(miou, clear, limit, good):
    """By mIoU where there is a limit of it, whatever labels differ; else by these."""
    assert passes(figures(0.7), figures(miou, clear), limit) is good


def test_in_words_and_points():
    assert points_lost(0.7, 0.695) == pytest.approx(0.5)
    assert allowed(0.5) == "0.5 points of mIoU may be lost (--max-miou-loss)"
    assert allowed(None) == "99% of the labels that are no tie have to be equal"
    check_loss(0)
    for wrong in (-1, 101, float("nan")):
        with pytest.raises(UserError, match="write points of mIoU, 0 to 100"):
            check_loss(wrong)
