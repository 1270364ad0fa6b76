"""A training run from what is asked for: its schedule, its first weights, what watches it."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from hmseg.data.registry import open_dataset
from hmseg.genotype import random_genotype
from hmseg.network_file import to_line, write_network
from hmseg.train.checkpoint import Checkpoint, knows_validation
from hmseg.train.compute import Compute
from hmseg.train.config import Learning, Stage, TrainConfig
from hmseg.train.confusion import Confusion
from hmseg.train.job import Passes, TrainJob, train
from hmseg.train.loop import StepReport
from hmseg.train.run import RunOptions
from lut.errors import UserError
from tests.hmseg.data.folders import SIZE, make_camvid, make_lip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture
def job(data: Path, tmp_path: Path) -> TrainJob:
    return TrainJob(
        model="tiny-mrms", dataset="camvid", data=data, folder=tmp_path / "run",
        schedule=(Stage((64, 64), 2, 2),), learning=Learning(seed=3, learning_rate=1e-4),
        compute=Compute(loader_threads=1), options=RunOptions(evaluate_every=2),
    )  # fmt: skip


class Seen:
    """A watcher that keeps what it is told."""

    def __init__(self, fail_at: int = 0) -> None:
        self.steps: list[int] = []
        self.evaluations: list[int] = []
        self.closed = 0
        self._fail_at = fail_at

    def step(self, report: StepReport) -> None:
        self.steps.append(report.step)
        if report.step == self._fail_at:
            raise InterruptedError

    def evaluation(self, step: int, confusion: Confusion) -> None:
        self.evaluations.append(step)

    def close(self) -> None:
        self.closed += 1


def test_passes_over_a_split(data: Path):
    split = open_dataset("camvid", data, "train")
    assert Passes(epochs=3, batch=4).stage(split) == Stage(SIZE, 4, 6)
    assert Passes(epochs=1, batch=3, crop=(64, 32)).stage(split) == Stage((64, 32), 3, 2)
    assert Passes(epochs=1, batch=9).stage(split).steps == 1


def test_frames_of_many_sizes_need_a_crop(tmp_path: Path):
    split = open_dataset("lip", make_lip(tmp_path), "train")
    with pytest.raises(UserError, match="frames of lip differ in size: name a crop"):
        Passes().stage(split)
    assert Passes(1, 1, (64, 64)).stage(split) == Stage((64, 64), 1, 2)


def test_the_run_is_what_was_asked_for(job: TrainJob, data: Path, tmp_path: Path):
    split = open_dataset("camvid", data, "train")
    stages = (Stage((64, 64), 2, 2),)
    expected = TrainConfig("tiny-mrms", "camvid", stages, seed=3, learning_rate=1e-4)
    assert job.config(split) == expected
    assert replace(job, schedule=Passes(2, 4)).config(split).stages == (Stage(SIZE, 4, 4),)
    genotype, path = random_genotype(random.Random(5)), tmp_path / "genotype.json"
    write_network(path, genotype, 0.5, 11, {})
    # As a line, which means the same without the file.
    assert replace(job, model=str(path)).config(split).model == to_line(genotype, 0.5)


def test_two_kinds_of_first_weights_are_refused(job: TrainJob):
    with pytest.raises(UserError, match="both give the first weights; leave one out"):
        replace(job, begin_with=Path("a"), pretrained="tiny-mrms")
    with pytest.raises(UserError, match="pretrained weights and an initialisation both give"):
        replace(job, init="lite0", pretrained="tiny-mrms")
    with pytest.raises(UserError, match="unknown initialisation 'lite4': there is lite0"):
        replace(job, init="lite4")
    for first in ({"begin_with": Path("a")}, {"pretrained": "tiny-mrms"}, {"init": "lite0"}):
        with pytest.raises(UserError, match="goes on with its own weights"):
            replace(job, resume=True, **first)


def test_a_quantised_run_begins_with_trained_weights(job: TrainJob):
    with pytest.raises(UserError, match="goes on from trained weights: name a checkpoint"):
        replace(job, quantise="int8")
    with pytest.raises(UserError, match="goes on from trained weights"):
        replace(job, quantise="int8", init="lite0")
    assert replace(job, quantise="int8", resume=True).quantise == "int8"


def test_a_run_is_watched_to_its_end_and_resumed(job: TrainJob):
    seen, configs = Seen(), []

    def watch(config: TrainConfig) -> list[Seen]:
        configs.append(config)
        return [seen]

    run = train(job, watch=watch)
    assert run is not None
    assert [config.steps for config in configs] == [2]
    assert (seen.steps, seen.evaluations, seen.closed) == ([1, 2], [2], 1)
    assert run.best_record()["step"] == Checkpoint.load(run.last).step == 2
    longer = replace(job, schedule=(Stage((64, 64), 2, 3),), resume=True)
    again = Seen()
    assert train(longer, watch=lambda _config: [again]) is not None
    assert again.steps == [3]


def test_a_run_that_learns_from_both_splits_is_not_evaluated(job: TrainJob, data: Path):
    """It learns from every frame, keeps both splits' digests, and is not gone on with as a run
    that was validated, nor one as it."""
    both, seen = replace(job, with_validation=True, schedule=Passes(1, 4, (64, 64))), Seen()
    split = open_dataset("camvid", data, "train")
    assert both.config(split).stages == replace(both, with_validation=False).config(split).stages
    run = train(both, watch=lambda _config: [seen])
    assert run is not None
    assert not run.best.exists()
    assert (run.folder / "curves.png").exists()
    assert (seen.steps, seen.evaluations) == ([1, 2], [])
    counts = {split: len(open_dataset("camvid", data, split)) for split in ("train", "val")}
    checkpoint = Checkpoint.load(run.last)
    assert checkpoint.config.with_validation
    assert TrainConfig.from_json(checkpoint.config.to_json()) == checkpoint.config
    assert {name: len(kept) for name, kept in checkpoint.frames.items()} == counts
    assert len(run.trainer.loader.source) == sum(counts.values())
    with pytest.raises(UserError, match="with validation: True there, False here"):
        train(replace(both, with_validation=False, resume=True))
    longer = replace(both, schedule=(Stage((64, 64), 4, 3),), resume=True)
    assert train(longer) is not None
    for after in ({"begin_with": run.last}, {"teacher": run.last}):
        with pytest.raises(UserError, match="have learned from the validation split"):
            train(replace(job, folder=job.folder / "after", **after))
    taught = replace(job, folder=job.folder / "taught", teacher=run.last, with_validation=True)
    student = train(taught)
    assert student is not None
    assert knows_validation(Checkpoint.load(student.last).before)
    assert not knows_validation(())


def test_what_watches_is_closed_when_a_run_fails(job: TrainJob):
    seen = Seen(fail_at=1)
    with pytest.raises(InterruptedError):
        train(job, watch=lambda _config: [seen])
    assert seen.closed == 1


def test_it_begins_with_a_checkpoint_or_released_weights(job: TrainJob, tmp_path: Path):
    first = train(replace(job, pretrained="tiny-mrms"))
    assert first is not None
    *_, taken = first.trainer.before
    assert taken["released"] == "tiny-mrms"
    second = train(replace(job, folder=tmp_path / "second", begin_with=first.last))
    assert second is not None
    assert second.trainer.before == Checkpoint.load(first.last).as_history()
    with pytest.raises(UserError, match="did you mean tiny-mrms"):
        train(replace(job, pretrained="tiny-mrsm"))
