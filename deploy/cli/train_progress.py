"""What `hmseg train` and `hmseg search` show while they run: a bar with the time left; and
TensorBoard."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lut.errors import UserError

if TYPE_CHECKING:
    from hmseg.search.config import SearchConfig
    from hmseg.search.evolution import CandidateReport
    from hmseg.search.loop import SearchReport
    from hmseg.train.config import TrainConfig
    from hmseg.train.confusion import Confusion
    from hmseg.train.loop import StepReport
    from hmseg.train.run import Watcher


class _Bar:
    """Steps done and the time left, on stderr.

    Time is reckoned by pixels, as later stages have larger crops: `pixels_after(step)` are those of
    the first steps. Where stderr is no terminal, a line every 5% of the steps.
    """

    def __init__(
        self, title: str, pixels_after: Callable[[int], int], steps: int, unit: str = "step"
    ) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        self._pixels_after, self._steps, self._unit = pixels_after, steps, unit
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn(title), BarColumn(), TextColumn("{task.fields[at]}, time left"), TimeLeft(),
            console=self._console,
        )  # fmt: skip
        # From the first report on: a resumed run would be timed as if it had done it all.
        total = pixels_after(steps)
        self._task = self._progress.add_task(title, total=total, start=False, at="")
        self._start = 0, 0.0  # pixels and time at the first report

    def _advance(self, step: int, at: str) -> None:
        pixels = self._pixels_after(step)
        if not self._progress.live.is_started:
            self._progress.start()
            self._progress.start_task(self._task)
            self._start = pixels, time.monotonic()
        place = f"{self._unit} {step} of {self._steps}: {at}"
        self._progress.update(self._task, completed=pixels, at=place)
        every = max(1, self._steps // 20)
        if self._console.is_terminal or (step % every and step < self._steps):
            return
        first, began = self._start
        left = ""
        if pixels > first:
            seconds = (time.monotonic() - began) / (pixels - first)
            minutes = seconds * (self._pixels_after(self._steps) - pixels) / 60
            left = f", about {minutes:.0f} min left"
        self._console.print(place + left)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress.live.is_started:  # else it prints an empty line
            self._progress.stop()


class TrainBar(_Bar):
    """Steps done, loss, last mIoU and the time left."""

    def __init__(self, config: "TrainConfig") -> None:
        super().__init__("training", config.pixels_after, config.steps)

    def step(self, report: "StepReport") -> None:
        """Advance the bar."""
        self._advance(report.step, f"loss {report.loss:.3f}")

    def evaluation(self, step: int, confusion: "Confusion") -> None:
        """Print the mIoU above the bar."""
        self._console.print(f"step {step}: validation mIoU {100 * confusion.miou:.2f}%")


class SearchBar(_Bar):
    """Steps done, loss, the expected cost E(A) and the time left; `show` writes a cost."""

    def __init__(self, config: "SearchConfig", show: Callable[[float], str]) -> None:
        super().__init__("searching", config.recipe.pixels_after, config.steps)
        self._show = show
        self._refining: _Bar | None = None

    def step(self, report: "SearchReport") -> None:
        """Advance the bar."""
        at = f"loss {report.loss:.3f}"
        if report.architecture:
            at += f", E(A) {self._show(report.architecture.expected)}"
        self._advance(report.step, at)

    def candidate(self, report: "CandidateReport") -> None:
        """Advance the bar of the evolution, which begins where the search has ended."""
        if self._refining is None:
            self.close()
            self._refining = _Bar("refining", lambda done: done, report.total, "network")
        best = "" if report.best is None else f", best {100 * report.best:.2f}%"
        # More are evaluated where what was timed leaves none within the budget.
        done = min(report.done, report.total)
        self._refining._advance(done, f"mIoU {100 * report.miou:.2f}%{best}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        super().close()
        if self._refining is not None:
            self._refining.close()


def tensorboard_watcher(folder: Path) -> "Watcher":
    """Events for TensorBoard; raises UserError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs: pip install tensorboard") from error

    class TensorBoard:
        def __init__(self) -> None:
            self.writer: SummaryWriter | None = None

        def at(self, step: int) -> "SummaryWriter":
            # Not before the run has accepted its folder; what a resumed run repeats is purged.
            if self.writer is None:
                self.writer = SummaryWriter(folder / "tensorboard", purge_step=step)
            return self.writer

        def step(self, report: "StepReport") -> None:
            for name in ("loss", "learning_rate"):
                self.at(report.step).add_scalar(name, getattr(report, name), report.step)

        def evaluation(self, step: int, confusion: "Confusion") -> None:
            self.at(step).add_scalar("miou", confusion.miou, step)

        def close(self) -> None:
            if self.writer is not None:
                self.writer.close()

    return TensorBoard()
