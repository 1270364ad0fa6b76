"""What quantisation cost: figures of float32 and of each choice, in text and in JSON."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.grid import Grid
from deploy.precision import FP32, INT8
from deploy.quantise.gate import passes, points_lost
from deploy.quantise.judge import Figures
from deploy.quantise.sensitivity import Sensitivity

_SHOWN = 10  # layers of a sensitivity scan in text


@dataclass(frozen=True)
class Way:
    """One to quantise: how the ranges were found, and the layers that stay wide."""

    ranges: str
    kept: tuple[str, ...]
    figures: Figures

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {"ranges": self.ranges, "kept": list(self.kept), **self.figures.to_json()}


@dataclass(frozen=True)
class MapRange:
    """Of one map: the method that its range is by, the range, its grid, and the mean square that
    each method's grid changes in it."""

    method: str
    low: float
    high: float
    grid: Grid
    errors: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """Of one quantisation.

    `fp32` and `int8` are on all `frames`; `tried` are ways to find ranges, on some of them;
    `raised` are choices that keep more and more layers wide, where the gate asked for it.
    `limit_points` is of mIoU, None where the labels that are equal decide. `notes` are what the
    user should know.
    """

    frames: int
    layers: int
    fp32: Figures
    int8: Way
    tried: tuple[Way, ...]
    maps: Mapping[str, MapRange]
    limit_points: float | None
    raised: tuple[Way, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether int8 loses no more than it may."""
        return passes(self.fp32, self.int8.figures, self.limit_points)

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            FP32.name: self.fp32.to_json(), INT8.name: self.int8.to_json(),
            "frames": self.frames, "layers": self.layers, "passed": self.passed,
            "limit_points": self.limit_points, "tried": [c.to_json() for c in self.tried],
            "raised": [c.to_json() for c in self.raised],
            "sensitivity": [s.to_json() for s in self.sensitivity],
            "maps": {name: found.to_json() for name, found in self.maps.items()},
            "notes": list(self.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """For a person."""
        lines = list(self.notes)
        counts = Counter(found.method for found in self.maps.values())
        by = ", ".join(f"{count} by {method}" for method, count in counts.most_common())
        tried = ", ".join(f"{c.ranges} {c.figures.score_error:.2%}" for c in self.tried)
        on = self.tried[0].figures.frames if self.tried else 0
        lines.append(
            f"ranges: {self.int8.ranges} (scores off by, on {on} frames: {tried}); maps: {by}"
        )
        if self.sensitivity:
            lines.append("layers that hurt, each in 8 bits alone: scores off by, labels equal")
            lines += [
                f"  {one.layer:<40}{one.score_error:8.2%}{one.equal:9.2%}"
                for one in self.sensitivity[:_SHOWN]
            ]
            if others := len(self.sensitivity) - _SHOWN:
                lines.append(f"  {others} others" if others > 0 else "")
        for choice in self.raised:
            lines.append(f"{len(choice.kept)} layers kept: {said(self.fp32, choice.figures)}")
        kept = f", kept wide: {', '.join(self.int8.kept)}" if self.int8.kept else ""
        lines.append(
            f"int8 on {self.frames} frames: {said(self.fp32, self.int8.figures)}; "
            f"{self.layers - len(self.int8.kept)} of {self.layers} layers in 8 bits{kept}"
        )
        return [line for line in lines if line]


def said(fp32: Figures, int8: Figures) -> str:
    """What low precision finds beside fp32, in words."""
    same = (
        f"{int8.equal:.2%} of the labels equal to fp32's, {int8.equal_clear:.2%} where they are no "
        "tie"
    )
    if fp32.miou is None or int8.miou is None:
        return same
    points = -points_lost(fp32.miou, int8.miou)
    return f"mIoU {100 * int8.miou:.2f}%, fp32 {100 * fp32.miou:.2f}% ({points:+.2f}); {same}"
