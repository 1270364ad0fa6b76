"""Which of several precisions is taken: by their times, round by round, and what each keeps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.measure.interleave import Samples
from deploy.measure.statistics import Ratio, ratio_of_rounds, summarise
from deploy.precision import BF16, FP32, INT8

_HEAD = ("precision", "ms", "faster", "labels equal", "no ties", "mIoU, %", "lost", "")
_NOT_KNOWN = "-"


@dataclass(frozen=True)
class Kept:
    """Of a precision's binary: the share of the labels that is fp32's, that among those that are no
    tie, and on labelled frames its mIoU in 0..1."""

    equal: float
    equal_clear: float
    miou: float | None = None


@dataclass(frozen=True)
class Choice:
    """Which precision was taken, and why: the medians of those that were timed, in milliseconds,
    fp32's time over theirs, what each keeps and on which images, and why others were not taken."""

    precision: str
    why: str
    ms: Mapping[str, float] = field(default_factory=dict)
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, Kept] = field(default_factory=dict)
    judged_on: str = ""

    def __str__(self) -> str:
        return f"precision {self.precision}: {self.why}"

    def to_json(self) -> dict[str, Any]:
        """For the manifest and --json."""
        return {
            "precision": self.precision, "why": self.why, "ms": dict(self.ms),
            "ratios": {name: vars(ratio) for name, ratio in self.ratios.items()},
            "refused": dict(self.refused), "judged_on": self.judged_on,
            "kept": {name: asdict(kept) for name, kept in self.kept.items()},
        }  # fmt: skip

    def table(self) -> list[str]:
        """A line for each precision below a head: its time, what it keeps, what became of it."""
        rows = [_HEAD, *(self._row(precision.name) for precision in (FP32, BF16, INT8))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        lines = []
        for *cells, last in rows:
            name, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            lines.append("  ".join([cells[0].ljust(len(name)), *others, last]).rstrip())
        return [*lines, f"labels beside fp32's, on {self.judged_on}"] if self.kept else lines

    def _row(self, name: str) -> tuple[str, ...]:
        cells = dict.fromkeys(("ms", "faster", "equal", "clear", "miou", "lost"), _NOT_KNOWN)
        if name in self.ms:
            cells["ms"] = f"{self.ms[name]:.3g}"
        if ratio := self.ratios.get(name):
            cells["faster"] = f"{ratio.median:.2f} [{ratio.low:.2f}..{ratio.high:.2f}]"
        if kept := self.kept.get(name):
            cells |= {"equal": f"{kept.equal:.2%}", "clear": f"{kept.equal_clear:.2%}"}
            plain = self.kept[FP32.name].miou
            if kept.miou is not None and plain is not None:
                cells["miou"] = f"{100 * kept.miou:.2f}"
                cells["lost"] = f"{100 * (plain - kept.miou):.2f}"
        return (name, *cells.values(), self._verdict(name))

    def _verdict(self, name: str) -> str:
        if name == self.precision:
            return "taken"
        if name in self.refused:
            return self.refused[name]
        if name not in self.ratios:
            return ""  # fp32, which the others are beside
        faster = self.ratios[name].low > 1
        return f"slower than {self.precision}" if faster else "not faster in every round"


def choose(
    samples: Mapping[str, Samples], refused: Mapping[str, str],
    kept: Mapping[str, Kept] | None = None, judged_on: str = "",
) -> Choice:  # fmt: skip
    """From the nanoseconds of every call, round by round: fp32, unless another is faster in every
    round; of those the fastest. By the reasons alone where nothing was timed. `kept` is told."""
    ms = {n: summarise([ns for b in blocks for ns in b]).median_ms for n, blocks in samples.items()}
    ratios = {
        name: ratio_of_rounds(samples[FP32.name], blocks)
        for name, blocks in samples.items()
        if name != FP32.name
    }
    faster = {name: ratio.median for name, ratio in ratios.items() if ratio.low > 1}
    best = max(faster, key=lambda name: faster[name], default=FP32.name)
    if best in ratios:
        ratio = ratios[best]
        why = (
            f"{ms[best]:.3g} ms, fp32 {ms[FP32.name]:.3g} ms ({ratio.median:.2f} times, "
            f"[{ratio.low:.2f} .. {ratio.high:.2f}] over {ratio.rounds} rounds), and its labels "
            "pass the gate"
        )
    else:
        slower = [
            f"{name} is not faster in every round, {ms[name]:.3g} ms beside {ms[FP32.name]:.3g} ms"
            for name in ratios
        ]
        why = "; ".join([*slower, *(f"{name}: {text}" for name, text in refused.items())])
    return Choice(best, why, ms, ratios, refused, kept or {}, judged_on)
