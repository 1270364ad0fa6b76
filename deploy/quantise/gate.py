"""What a network in low precision may lose to float32: points of mIoU on labelled frames, else a
share of the labels. Light to import."""

from typing import TYPE_CHECKING

from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.quantise.judge import Figures

LEAST_EQUAL = 0.99  # of the labels that are no tie, where no frame has labels
MOST_MIOU_LOSS = 0.5  # points, where frames have labels


def check_loss(points: float) -> None:
    """Raise UserError for what cannot be points of mIoU."""
    if not 0 <= points <= 100:
        raise UserError(f"--max-miou-loss {points:g}: write points of mIoU, 0 to 100, such as 0.5")


def points_lost(fp32: float, low: float) -> float:
    """Percentage points between two mIoUs in 0..1."""
    return 100 * (fp32 - low)


def passes(fp32: "Figures", low: "Figures", limit_points: float | None) -> bool:
    """The gate: mIoU where there is a limit of it, else labels that are equal where they are no
    tie. Both say their mIoU where there is a limit (`deploy.quantise.run.limit_of`)."""
    if limit_points is None:
        return low.equal_clear >= LEAST_EQUAL
    assert fp32.miou is not None
    assert low.miou is not None
    return points_lost(fp32.miou, low.miou) <= limit_points


def allowed(limit_points: float | None) -> str:
    """What the gate asks, in words."""
    if limit_points is None:
        return f"{LEAST_EQUAL:.0%} of the labels that are no tie have to be equal"
    return f"{limit_points:g} points of mIoU may be lost (--max-miou-loss)"
