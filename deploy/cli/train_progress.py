"""What `hmseg train` and `hmseg search` show while they run: a bar with the time left; and
TensorBoard."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lut.errors import UserError

if TYPE_CHECKING:
    from hmseg.search.search import SearchReport
    from hmseg.train.loop import StepReport
    from hmseg.train.metrics import Confusion
    from hmseg.train.run import Watcher


class ProgressBar:
    """Steps done, loss, last mIoU and the time left, on stderr."""

    def __init__(self, steps: int, title: str = "training") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn(title), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[at]}, time left"), TimeLeft(), console=self._console,
        )  # fmt: skip
        # From the first report on: a resumed run would be timed as if it had done it all.
        self._task = self._progress.add_task(title, total=steps, start=False, at="")

    def step(self, report: "StepReport") -> None:
        """Advance the bar."""
        self._advance(report.step, f"loss {report.loss:.3f}")

    def _advance(self, step: int, at: str) -> None:
        if not self._progress.live.is_started:
            self._progress.start()
            self._progress.start_task(self._task)
        self._progress.update(self._task, completed=step, at=at)

    def evaluation(self, step: int, confusion: "Confusion") -> None:
        """Print the mIoU above the bar."""
        self._console.print(f"step {step}: validation mIoU {100 * confusion.miou:.2f}%")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress.live.is_started:  # else it prints an empty line
            self._progress.stop()


class SearchProgress(ProgressBar):
    """Steps done, loss, the expected cost E(A) and the time left, on stderr.

    A line every 5% where stderr is no terminal.
    """

    def __init__(self, steps: int, show: Callable[[float], str]) -> None:
        super().__init__(steps, "searching")
        self._steps, self._show, self._began = steps, show, time.monotonic()
        self._first: int | None = None

    def search_step(self, report: "SearchReport") -> None:
        """Advance the bar."""
        at = f"loss {report.loss:.3f}"
        if report.architecture:
            at += f", E(A) {self._show(report.architecture.expected)}"
        self._advance(report.step, at)
        if self._console.is_terminal:
            return
        if self._first is None:
            self._first = report.step - 1
        if report.step % max(1, self._steps // 20) == 0 or report.step == self._steps:
            spent = time.monotonic() - self._began
            left = spent / (report.step - self._first) * (self._steps - report.step)
            self._console.print(
                f"step {report.step} of {self._steps}: {at}, about {left / 60:.0f} min left"
            )


def tensorboard_watcher(folder: Path) -> "Watcher":
    """Events for TensorBoard; raises UserError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs: pip install tensorboard") from error
    writer = SummaryWriter(folder / "tensorboard")

    class TensorBoard:
        def step(self, report: "StepReport") -> None:
            for name in ("loss", "learning_rate"):
                writer.add_scalar(name, getattr(report, name), report.step)

        def evaluation(self, step: int, confusion: "Confusion") -> None:
            writer.add_scalar("miou", confusion.miou, step)

        def close(self) -> None:
            writer.close()

    return TensorBoard()
