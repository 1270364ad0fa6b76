"""A training run from what is asked for to the finished folder."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from hmseg.data.dataset import SegmentationData, open_source
from hmseg.data.fingerprint import fingerprint
from hmseg.data.registry import open_dataset
from hmseg.pretrained import Released, load_released
from hmseg.train.checkpoint import Checkpoint, knows_validation
from hmseg.train.compute import Compute, joined
from hmseg.train.config import Learning, Quantisation, Stage, TrainConfig
from hmseg.train.distributed import wait_for_all
from hmseg.train.loop import Trainer
from hmseg.train.run import DrawOverlay, Run, RunOptions, Watcher
from hmseg.train.teacher import Teacher
from hmseg.zoo import entry, lasting_name
from lut.errors import UserError

LITE0 = "lite0"  # the one initialisation of other makers' weights


@dataclass(frozen=True)
class Passes:
    """A schedule of one stage: passes over the training split, images of a step over all processes,
    and the crop (H, W), by default the first frame's size."""

    epochs: int = 200
    batch: int = 8
    crop: tuple[int, int] | None = None

    def stage(self, split: SegmentationData) -> Stage:
        """Of a split; raises UserError for frames of many sizes without a crop."""
        if self.crop is None and split.classes.name == "lip":
            raise UserError("the frames of lip differ in size: name a crop, e.g. 480x480")
        height, width = self.crop or split.load_image(0).shape[:2]
        return Stage((height, width), self.batch, max(1, self.epochs * len(split) // self.batch))


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What is asked for: `data` is the data set's root, `model` a zoo name, a genotype's file or a
    network in one line. The run begins with a checkpoint's weights, with what fits of the released
    weights of a zoo name or of Lite0's (`init`), or with random ones; resumed, it goes on with its
    own. `teacher` is a checkpoint whose network it also learns from, resumed too. What is to be
    quantised (`quantise`) begins with trained weights. `with_validation` learns from the validation
    split too, and evaluates nothing."""

    model: str
    dataset: str
    data: Path
    folder: Path
    schedule: Passes | tuple[Stage, ...] = Passes()
    learning: Learning = field(default_factory=Learning)
    begin_with: Path | None = None
    pretrained: str | None = None
    init: str | None = None
    teacher: Path | None = None
    quantise: Quantisation | None = None
    with_validation: bool = False
    compute: Compute = field(default_factory=Compute)
    options: RunOptions = field(default_factory=RunOptions)
    resume: bool = False

    def __post_init__(self) -> None:
        first = {
            "a checkpoint": self.begin_with,
            "pretrained weights": self.pretrained,
            "an initialisation": self.init,
        }
        given = [name for name, value in first.items() if value is not None]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given[:2])} both give the first weights; leave one out")
        if self.resume and given:
            raise UserError(
                f"a run that is resumed goes on with its own weights; leave {given[0]} out"
            )
        trained = self.begin_with or self.pretrained
        if self.quantise and not trained and not self.resume:
            raise UserError(
                "quantised training goes on from trained weights: name a checkpoint or a network "
                "with released weights to begin with"
            )
        if self.init not in (None, LITE0):
            raise UserError(f"unknown initialisation {self.init!r}: there is {LITE0}")

    def config(self, split: SegmentationData, teacher: str | None = None) -> TrainConfig:
        """The run on a training split, with a teacher of that name."""
        schedule = self.schedule
        stages = (schedule.stage(split),) if isinstance(schedule, Passes) else schedule
        model = lasting_name(self.model)
        learning = asdict(self.learning)
        return TrainConfig(
            model, self.dataset, stages, teacher=teacher, quantise=self.quantise,
            with_validation=self.with_validation, **learning,
        )  # fmt: skip

    def released(self) -> Released | None:
        """The pretrained weights; raises UserError where there are none, naming what is near."""
        if self.pretrained is None:
            return None
        entry(self.pretrained)
        return load_released(self.pretrained, self.dataset)


def train(
    job: TrainJob,
    *,
    watch: Callable[[TrainConfig], Sequence[Watcher]] = lambda _config: (),
    draw: DrawOverlay | None = None,
) -> Run | None:
    """Train to the end: the finished run in the process that writes the files, None in others.

    `watch` makes what is shown meanwhile, in that process alone. Raises UserError for what is
    missing or does not fit, and what `Run.start` raises.
    """
    split, validation = (open_dataset(job.dataset, job.data, name) for name in ("train", "val"))
    learned = split
    if job.with_validation:
        learned = replace(split, split="train and val", frames=split.frames + validation.frames)
    names = split.classes.names
    teacher = None if job.teacher is None else Teacher.load(job.teacher, names)
    config = job.config(split, teacher.name if teacher else None)
    released = job.released()
    with joined(job.compute) as (world, device):
        trainer = Trainer(
            config, open_source(learned), names, world=world, device=device,
            loader_threads=job.compute.loader_threads, teacher=teacher,
        )  # fmt: skip
        trainer.frames = {each.split: fingerprint(each) for each in (split, validation)}
        if job.begin_with is not None:
            trainer.begin_with(Checkpoint.load(job.begin_with), job.begin_with)
        if released is not None:
            trainer.begin_with_released(released)
        if job.init is not None:
            trainer.begin_with_lite0()
        if not job.with_validation and knows_validation(trainer.before):
            raise UserError(
                "the first weights or the teacher have learned from the validation split, which "
                "can say nothing of what comes of them: learn from it too"
            )
        watchers = list(watch(config)) if world.is_main else []
        run = Run(
            job.folder, trainer, None if job.with_validation else open_source(validation),
            validation.classes, job.options, world, draw, watchers,
        )  # fmt: skip
        try:
            run.start(resume=job.resume)
            wait_for_all()
        finally:
            for watcher in watchers:
                watcher.close()
        return run if world.is_main else None
