"""A training run as a folder: log, checkpoints, curves and overlays; started, stopped, resumed.

FOLDER/log.jsonl          one record per logged step and per evaluation
FOLDER/last.safetensors   the run as it stood at the last checkpoint
FOLDER/best.safetensors   the checkpoint of the best validation mIoU, where there is validation
FOLDER/curves.png         loss, learning rate and mIoU over the steps
FOLDER/samples/*.png      validation frames with the predicted classes over them, if any
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hmseg.data.batches import Source
from hmseg.data.classes import ClassSet
from hmseg.data.dataset import Array
from hmseg.mend import Resume
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.confusion import Confusion
from hmseg.train.curves import draw_curves
from hmseg.train.distributed import ALONE, World
from hmseg.train.loop import StepReport, Trainer
from hmseg.train.metrics import evaluate, torch_predictor
from lut.errors import UserError
from lut.files import check_writable, lock_folder, remove_leftovers
from lut.jsonl import append_record, read_records, rewrite_records

DrawOverlay = Callable[[Array, Array, ClassSet, Path], None]


class Watcher(Protocol):
    """What is shown while a run goes on: a progress bar, TensorBoard."""

    def step(self, report: StepReport) -> None:
        """Called after every step."""

    def evaluation(self, step: int, confusion: Confusion) -> None:
        """Called after every evaluation of the validation split."""

    def close(self) -> None:
        """Called once, at the end."""


@dataclass(frozen=True)
class RunOptions:
    """How often what is written; none of it changes the weights."""

    log_every: int = 20
    checkpoint_every: int = 200
    evaluate_every: int = 500
    samples: int = 4


@dataclass
class Run:
    """A trainer, its folder and what it is validated on, if on anything."""

    folder: Path
    trainer: Trainer
    validation: Source | None
    classes: ClassSet
    options: RunOptions = RunOptions()
    world: World = ALONE
    draw: DrawOverlay | None = None
    watchers: list[Watcher] = field(default_factory=list)
    _since_log: list[StepReport] = field(default_factory=list, init=False)
    _best: float = field(default=-1.0, init=False)

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint of the best evaluation."""
        return self.folder / "best.safetensors"

    @property
    def log(self) -> Path:
        """The log."""
        return self.folder / "log.jsonl"

    def start(self, *, resume: bool) -> None:
        """Train to the end; raises what `Trainer.run` raises and UserError for the folder.

        A folder that holds a run is only touched with `resume`, and only where it is the same run
        and no other process is at work there.
        """
        with ExitStack() as held:
            self.world.together(lambda: self._take_folder(held, resume=resume))
            if self.trainer.config.quantise and not resume:
                self.trainer.calibrate()
            # Every process has looked before the first one writes.
            if self.world.is_main:
                remove_leftovers(self.folder)
                if self.trainer.step == 0:
                    self.trainer.checkpoint().save(self.last)
            self.trainer.run(self._after_step)

    def _take_folder(self, held: ExitStack, *, resume: bool) -> None:
        if self.world.is_main:
            held.enter_context(lock_folder(self.folder))
        if resume:
            self._resume()
        elif self.last.exists():
            raise UserError(
                f"{self.folder} holds a run: name another folder, or go on with it",
                mend=Resume("train", self.folder),
            )
        check_writable(self.last)

    def best_record(self) -> dict[str, Any]:
        """The log's record of the best evaluation; raises UserError where there is none."""
        evaluations = [record for record in read_records(self.log) if "miou" in record]
        if not evaluations:
            raise UserError(f"{self.log} has no evaluation in it")
        return max(evaluations, key=lambda record: record["miou"])

    def _resume(self) -> None:
        checkpoint = Checkpoint.load(self.last)
        self.trainer.resume(checkpoint, self.last)
        # What was logged after the checkpoint happens again.
        records = [r for r in read_records(self.log) if r["step"] <= checkpoint.step]
        self._best = max((r["miou"] for r in records if "miou" in r), default=-1.0)
        if self.world.is_main:
            rewrite_records(self.log, records)

    def _after_step(self, report: StepReport) -> None:
        options, last_step = self.options, report.step == self.trainer.config.steps
        self._since_log.append(report)
        if last_step or report.step % options.log_every == 0:
            self._log_steps()
        if last_step or report.step % options.evaluate_every == 0:
            self._evaluate(report.step)
        if self.world.is_main and (last_step or report.step % options.checkpoint_every == 0):
            self.trainer.checkpoint().save(self.last)
        for watcher in self.watchers:
            watcher.step(report)

    def _log_steps(self) -> None:
        reports, self._since_log = self._since_log, []
        images, seconds = sum(r.images for r in reports), sum(r.step_s for r in reports)
        self._append(
            {
                "step": reports[-1].step,
                "loss": sum(r.loss for r in reports) / len(reports),
                "learning_rate": reports[-1].learning_rate,
                "trainer_images_per_s": images * self.world.size / seconds,
                "loader_images_per_s": self.trainer.loader.images_per_s * self.world.size,
                "waited_share": sum(r.waited_s for r in reports) / seconds,
            }
        )

    def _evaluate(self, step: int) -> None:
        if self.validation is None:
            if self.world.is_main:
                draw_curves(read_records(self.log), self.folder / "curves.png")
            return
        predict = torch_predictor(self.trainer.released)
        confusion = evaluate(predict, self.validation, len(self.classes), self.world)
        for watcher in self.watchers:
            watcher.evaluation(step, confusion)
        if not self.world.is_main:
            return
        iou = dict(zip(self.classes.names, confusion.iou_or_none, strict=True))
        self._append({"step": step, "miou": confusion.miou, "iou": iou})
        if confusion.miou > self._best:
            self._best = confusion.miou
            self.trainer.checkpoint().save(self.best)
        draw_curves(read_records(self.log), self.folder / "curves.png")
        if self.draw is not None:
            for index in range(min(self.options.samples, len(self.validation))):
                image, _ = self.validation.load(index)
                path = self.folder / "samples" / f"{index:04d}.png"
                self.draw(image, predict(image).astype("uint8"), self.classes, path)

    def _append(self, record: dict[str, Any]) -> None:
        if self.world.is_main:
            append_record(self.log, record | {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
