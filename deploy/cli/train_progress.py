"""What `hmseg train` shows while it runs: a bar with the time left, and TensorBoard."""

from pathlib import Path
from typing import TYPE_CHECKING

from lut.errors import UserError

if TYPE_CHECKING:
    from hmseg.train.loop import StepReport
    from hmseg.train.metrics import Confusion
    from hmseg.train.run import Watcher


class ProgressBar:
    """Steps done, loss, last mIoU and the time left, on stderr."""

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[at]}, time left"), TimeLeft(), console=self._console,
        )  # fmt: skip
        # From the first report on: a resumed run would be timed as if it had done it all.
        self._task = self._progress.add_task("training", total=steps, start=False, at="")

    def step(self, report: "StepReport") -> None:
        """Advance the bar."""
        if not self._progress.live.is_started:
            self._progress.start()
            self._progress.start_task(self._task)
        self._progress.update(self._task, completed=report.step, at=f"loss {report.loss:.3f}")

    def evaluation(self, step: int, confusion: "Confusion") -> None:
        """Print the mIoU above the bar."""
        self._console.print(f"step {step}: validation mIoU {100 * confusion.miou:.2f}%")

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress.live.is_started:  # else it prints an empty line
            self._progress.stop()


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
