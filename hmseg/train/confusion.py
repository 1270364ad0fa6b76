"""Mean intersection over union, accumulated over a whole split; without torch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmseg.data.dataset import VOID, Array
from lut.errors import UserError


@dataclass
class Confusion:
    """Confusion matrix of `classes` classes: rows are the truth, columns the prediction."""

    classes: int
    matrix: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.classes, self.classes), np.int64)

    def add(self, labels: Array, predicted: NDArray[np.integer]) -> None:
        """Count one image; void pixels of `labels` (255) are ignored.

        Raises UserError for shapes or classes that do not fit.
        """
        if labels.shape != predicted.shape:
            sizes = ["x".join(map(str, shape)) for shape in (predicted.shape, labels.shape)]
            raise UserError(f"predicted {sizes[0]} labels for a mask of {sizes[1]}")
        valid = labels != VOID
        truth, guess = labels[valid].astype(np.int64), predicted[valid].astype(np.int64)
        if guess.size and (guess.max() >= self.classes or guess.min() < 0):
            raise UserError(
                f"the network predicts class {guess.max()}; the data has classes 0 to "
                f"{self.classes - 1}"
            )
        counts = np.bincount(truth * self.classes + guess, minlength=self.classes**2)
        self.matrix += counts.reshape(self.classes, self.classes)

    @property
    def iou(self) -> NDArray[np.float64]:
        """Per-class IoU in [0, 1]; NaN for a class that occurs neither in truth nor prediction."""
        hits = np.diag(self.matrix)
        union = self.matrix.sum(0) + self.matrix.sum(1) - hits
        with np.errstate(invalid="ignore"):
            ratios: NDArray[np.float64] = hits / np.where(union == 0, np.nan, union)
        return ratios

    @property
    def iou_or_none(self) -> list[float | None]:
        """Per-class IoU for JSON, which has no NaN."""
        return [None if np.isnan(value) else float(value) for value in self.iou]

    @property
    def miou(self) -> float:
        """Mean over the classes that occur; raises UserError where every pixel was void."""
        if not self.matrix.any():
            raise UserError("no labelled pixel in this split: there is nothing to evaluate")
        return float(np.nanmean(self.iou))
