"""A run's folder: killed and resumed bit for bit, its log and pictures, and every refusal."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.genotype import MRMS_GENOTYPE, parse_genotype
from hmseg.mend import Resume
from hmseg.network_file import to_line
from hmseg.pretrained import load_released
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.loop import StepReport, Trainer
from hmseg.train.run import Run, RunOptions
from hmseg.train.teacher import Teacher
from hmseg.train.trained import trained_network
from lut.errors import UserError
from lut.jsonl import append_record, read_records
from tests.hmseg.data.folders import make_camvid

CONFIG = TrainConfig(
    "tiny-mrms", "camvid", (Stage((64, 64), 4, 4), Stage((64, 96), 2, 4)), seed=4,
    ema_decay=0.9, nesterov=True, warmup_steps=2, class_balance=1.1,
)  # fmt: skip
OPTIONS = RunOptions(log_every=2, checkpoint_every=2, evaluate_every=4, samples=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


def make_run(data: Path, folder: Path, config: TrainConfig = CONFIG) -> Run:
    train, val = (open_dataset("camvid", data, split) for split in ("train", "val"))
    trainer = Trainer(config, InMemory(train), train.classes.names)
    return Run(folder, trainer, InMemory(val), val.classes, OPTIONS)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbed."""
    run = make_run(data, tmp_path_factory.mktemp("runs") / "whole")
    drawn: list[Path] = []
    run.draw = lambda image, labels, classes, path: drawn.append(path)
    run.start(resume=False)
    assert drawn == [run.folder / "samples" / "0000.png"] * 2
    return run


def train_until_killed(data: Path, folder: Path) -> None:
    """What the killed process runs: it stops dead in step 6, after the checkpoint of step 4."""
    torch.set_num_threads(int(os.environ["THREADS"]))
    run = make_run(data, folder)

    class Stop:
        def step(self, report: StepReport) -> None:
            if report.step == 5:
                print("now", flush=True)
                time.sleep(60)

        def evaluation(self, step: int, confusion: object) -> None:
            pass

        def close(self) -> None:
            pass

    run.watchers.append(Stop())
    run.start(resume=False)


def test_killed_and_resumed_ends_with_the_same_bits(data: Path, whole: Run, tmp_path: Path):
    folder = tmp_path / "run"
    code = (
        "from pathlib import Path; from tests.hmseg.train.test_run import train_until_killed;"
        f"train_until_killed(Path({str(data)!r}), Path({str(folder)!r}))"
    )
    environment = os.environ | {"THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == b"now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    # The kill also tore the log's last line.
    with (folder / "log.jsonl").open("ab") as log:
        log.write(b'{"step": 5, "lo')
    assert Checkpoint.load(folder / "last.safetensors").step == 4

    resumed = make_run(data, folder)
    with pytest.warns(UserWarning, match="the last line was cut short"):
        resumed.start(resume=True)
    mine, theirs = (Checkpoint.load(run.last) for run in (whole, resumed))
    assert mine.step == theirs.step == 8
    assert mine.schedules == theirs.schedules == ((0, CONFIG.schedule),)
    for group in ("weights", "average", "optimizer"):
        for name, tensor in getattr(mine, group).items():
            assert torch.equal(tensor, getattr(theirs, group)[name]), name
    keys = ("step", "loss", "miou", "learning_rate")
    logs = [
        [{k: r[k] for k in keys if k in r} for r in read_records(run.log)]
        for run in (whole, resumed)
    ]
    assert logs[0] == logs[1]


@pytest.mark.usefixtures("undrawn")
def test_adamw_resumes_to_the_same_bits(data: Path, tmp_path: Path):
    config = replace(CONFIG, optimizer="adamw", learning_rate=1e-3, nesterov=False)
    whole = make_run(data, tmp_path / "whole", config)
    whole.start(resume=False)

    class Halt:
        def step(self, report: StepReport) -> None:
            if report.step == 5:
                raise InterruptedError

        def evaluation(self, step: int, confusion: object) -> None:
            pass

        def close(self) -> None:
            pass

    halted = make_run(data, tmp_path / "halted", config)
    halted.watchers.append(Halt())
    with pytest.raises(InterruptedError):
        halted.start(resume=False)
    resumed = make_run(data, halted.folder, config)
    resumed.start(resume=True)
    mine, theirs = Checkpoint.load(resumed.last), Checkpoint.load(whole.last)
    assert {name.rsplit("/", 1)[1] for name in mine.optimizer} == {"step", "exp_avg", "exp_avg_sq"}
    for group in ("weights", "average", "optimizer"):
        for name, tensor in getattr(mine, group).items():
            assert torch.equal(tensor, getattr(theirs, group)[name]), name


QUANTISED = replace(
    CONFIG, stages=(Stage((64, 64), 2, 4),), ema_decay=0.5, learning_rate=1e-4, quantise="int8"
)


def make_quantised(data: Path, folder: Path) -> Run:
    run = make_run(data, folder, QUANTISED)
    run.options = RunOptions(checkpoint_every=1, evaluate_every=4, samples=0)
    return run


@pytest.fixture(scope="module")
def quantised(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A quantised run that nothing disturbed."""
    run = make_quantised(data, tmp_path_factory.mktemp("runs") / "quantised")
    run.trainer.begin_with_released(load_released("tiny-mrms", "camvid"))
    run.start(resume=False)
    return run


def train_quantised_until_killed(data: Path, folder: Path) -> None:
    """What the killed process runs: it kills itself in step 3, before its checkpoint."""
    torch.set_num_threads(int(os.environ["THREADS"]))
    run = make_quantised(data, folder)
    run.trainer.begin_with_released(load_released("tiny-mrms", "camvid"))
    take = run.trainer.optimizer.step

    def step() -> None:
        if run.trainer.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        take()

    run.trainer.optimizer.step = step  # type: ignore[method-assign]
    run.start(resume=False)


@pytest.mark.usefixtures("undrawn")
def test_a_quantised_run_is_killed_and_resumed_to_the_same_bits(
    data: Path, quantised: Run, tmp_path: Path
):
    folder = tmp_path / "run"
    code = (
        "from pathlib import Path; import tests.hmseg.train.test_run as t;"
        f"t.train_quantised_until_killed(Path({str(data)!r}), Path({str(folder)!r}))"
    )
    environment = os.environ | {"THREADS": str(torch.get_num_threads())}
    child = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert Checkpoint.load(folder / "last.safetensors").step == 2
    resumed = make_quantised(data, folder)
    resumed.start(resume=True)
    mine, theirs = (Checkpoint.load(run.last) for run in (quantised, resumed))
    assert mine.step == theirs.step == 4
    for group in ("weights", "average", "optimizer"):
        for name, tensor in getattr(mine, group).items():
            assert torch.equal(tensor, getattr(theirs, group)[name]), name
    assert any("range.max_val" in name for name in mine.average)


def test_a_quantised_run_says_so_and_its_weights_are_no_float_ones(
    data: Path, quantised: Run, tmp_path: Path
):
    checkpoint = Checkpoint.load(quantised.best)
    *_, taken, own = checkpoint.as_history()
    assert (taken["released"], own["recipe"]["quantise"]) == ("tiny-mrms", "int8")
    assert not any("running_mean" in name for name in checkpoint.weights)
    other = make_run(data, tmp_path / "run", replace(QUANTISED, quantise=None))
    with pytest.raises(UserError, match="is quantised: begin with the float weights"):
        other.trainer.begin_with(checkpoint, quantised.best)
    with pytest.raises(UserError, match="is quantised: a teacher is a float network"):
        Teacher.load(quantised.best, checkpoint.classes)
    with pytest.raises(UserError, match=r"configuration \(quantise: int8 there, None here"):
        other.trainer.resume(checkpoint, quantised.best)
    network = trained_network(checkpoint, quantised.best).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(1, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(network(image), quantised.trainer.released.eval()(image))
    # The average has its network's ranges, not an average of averages.
    for name, tensor in checkpoint.average.items():
        if name.startswith("quantisers."):
            assert torch.equal(tensor, checkpoint.weights[name]), name


def test_quantised_training_learns(data: Path, tmp_path: Path):
    config = replace(
        QUANTISED, stages=(Stage((64, 64), 2, 10),), learning_rate=0.02, warmup_steps=0
    )
    run = make_run(data, tmp_path / "run", config)
    run.trainer.begin_with_released(load_released("tiny-mrms", "camvid"))
    run.trainer.calibrate()
    losses: list[float] = []
    run.trainer.run(lambda report: losses.append(report.loss))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bfloat16"}, "computes in float32, not in bfloat16"),
        ({"teacher": "mrms 0"}, "a teacher is of float training"),
    ],
)
def test_what_quantised_training_does_not_take(options: dict[str, str], message: str):
    with pytest.raises(UserError, match=message):
        replace(QUANTISED, **options)


def test_the_log_says_what_happened(whole: Run):
    records = read_records(whole.log)
    assert [r["step"] for r in records if "loss" in r] == [2, 4, 6, 8]
    assert [r["step"] for r in records if "miou" in r] == [4, 8]
    for record in records:
        if "loss" in record:
            assert record["trainer_images_per_s"] > 0
            assert record["loader_images_per_s"] > record["trainer_images_per_s"]
            assert 0 <= record["waited_share"] <= 1
            rate = CONFIG.learning_rate_at(record["step"] - 1)
            assert record["learning_rate"] == rate
        else:
            assert set(record["iou"]) == set(whole.classes.names)
    with Image.open(whole.folder / "curves.png") as picture:
        assert picture.format == "PNG"
        assert len(set(picture.convert("L").tobytes())) > 20


def test_the_best_checkpoint_is_the_best_evaluation(whole: Run):
    evaluations = [r for r in read_records(whole.log) if "miou" in r]
    best = max(evaluations, key=lambda record: record["miou"])
    assert Checkpoint.load(whole.best).step == best["step"]


def test_training_learns(data: Path, tmp_path: Path):
    """Frames whose colours give the class away are learned in a few steps."""
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 96), 4, 12),), learning_rate=0.05)
    run = make_run(data, tmp_path / "run", config)
    losses: list[float] = []
    run.trainer.run(lambda report: losses.append(report.loss))
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


def test_poly_schedule_and_warm_up():
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 100),), warmup_steps=10)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == rates[9]
    assert rates[50] == pytest.approx(0.01 * 0.5**0.9)
    assert 0 < rates[99] < 0.0002


def test_a_folder_with_a_run_is_not_overwritten(data: Path, whole: Run):
    before = whole.last.read_bytes()
    with pytest.raises(UserError, match="holds a run: name another folder") as caught:
        make_run(data, whole.folder).start(resume=False)
    assert caught.value.mend == Resume("train", whole.folder)
    assert whole.last.read_bytes() == before


def test_resuming_another_configuration_is_refused(data: Path, whole: Run):
    for other in (
        replace(CONFIG, seed=5),
        replace(CONFIG, model="mrms"),
        replace(CONFIG, stages=(Stage((64, 64), 2, 20),)),
    ):
        with pytest.raises(UserError, match="a run of another configuration"):
            make_run(data, whole.folder, other).start(resume=True)


@pytest.mark.usefixtures("undrawn")
def test_what_is_left_may_change_and_the_checkpoint_says_so(data: Path, whole: Run, tmp_path: Path):
    longer = replace(CONFIG, stages=(*CONFIG.stages, Stage((64, 64), 2, 1)))
    run = make_run(data, tmp_path / "run", longer)
    Checkpoint.load(whole.last).save(run.last)
    run.start(resume=True)
    checkpoint = Checkpoint.load(run.last)
    assert checkpoint.step == 9
    assert checkpoint.schedules == ((0, CONFIG.schedule), (8, longer.schedule))


@pytest.mark.usefixtures("undrawn")
def test_a_run_begins_with_the_weights_of_another_and_says_so(
    data: Path, whole: Run, tmp_path: Path
):
    first = Checkpoint.load(whole.last)
    run = make_run(data, tmp_path / "run", replace(CONFIG, stages=(Stage((64, 64), 4, 1),), seed=5))
    run.trainer.begin_with(first, whole.last)
    for network in (run.trainer.model, run.trainer.average):
        assert network is not None
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, first.weights[name])
    run.start(resume=False)
    history = Checkpoint.load(run.last).as_history()
    assert [entry["steps"] for entry in history] == [8, 1]
    assert [entry["images_seen"] for entry in history] == [4 * 4 + 4 * 2, 4]
    assert history[0]["recipe"]["seed"] == 4
    with pytest.raises(UserError, match="trained for other classes"):
        run.trainer.begin_with(replace(first, classes=("a", "b")), whole.last)


@pytest.mark.usefixtures("undrawn")
def test_a_run_begins_with_what_fits_of_released_weights(data: Path, tmp_path: Path):
    released = load_released("tiny-mrms", "camvid")
    larger = str(MRMS_GENOTYPE).replace("s5b e6k3", "s5b e6k5")
    model = to_line(parse_genotype(larger), 0.5)
    config = replace(CONFIG, model=model, stages=(Stage((64, 64), 4, 1),))
    run = make_run(data, tmp_path / "run", config)
    run.trainer.begin_with_released(released)
    for network in (run.trainer.model, run.trainer.average):
        assert network is not None
        weights = network.state_dict()
        assert torch.equal(weights["stem.0.weight"], released.tensors["stem.0.weight"])
        middle = weights["stages.s5b.0.depthwise.0.weight"][:, :, 1:-1, 1:-1]
        theirs = released.tensors["stages.s5b.0.depthwise.0.weight"]
        # In another order: the hidden channels come by their reach.
        assert sorted(middle.flatten(1).tolist()) == sorted(theirs.flatten(1).tolist())
    run.start(resume=False)
    *before, taken, own = Checkpoint.load(run.last).as_history()
    assert before == released.card["runs"]
    assert (taken["released"], taken["sha256"]) == ("tiny-mrms", released.card["sha256"])
    assert own["recipe"]["model"] == model


def test_resuming_where_there_is_nothing(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no such checkpoint"):
        make_run(data, tmp_path / "none").start(resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(data: Path, tmp_path: Path):
    config = replace(CONFIG, learning_rate=1e30, warmup_steps=0, ema_decay=0.0)
    run = make_run(data, tmp_path / "run", config)
    with pytest.raises(UserError, match=r"at step 2; the last good checkpoint is kept"):
        run.start(resume=False)
    kept = Checkpoint.load(run.last)
    assert kept.step == 0
    assert all(tensor.isfinite().all() for tensor in kept.weights.values())


def test_weights_that_are_not_finite_are_not_saved(data: Path, tmp_path: Path):
    run = make_run(data, tmp_path / "run")
    with torch.no_grad():
        next(run.trainer.model.parameters())[0] = float("nan")
    with pytest.raises(UserError, match=r"stem\.0\.weight is not finite after step 0"):
        run.trainer.checkpoint()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage((64, 64), 9, 1), "has 8 images, too few for a batch of 9"),
        (Stage((64, 64), 1, 1), "needs at least 2 images"),
    ],
)
def test_batches_that_cannot_be_are_refused(data: Path, tmp_path: Path, stage: Stage, message: str):
    with pytest.raises(UserError, match=message):
        make_run(data, tmp_path, replace(CONFIG, stages=(stage,)))


def test_a_torn_log_is_read_up_to_the_tear(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    append_record(path, {"step": 1})
    append_record(path, {"step": 2})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.warns(UserWarning, match="cut short"):
        assert read_records(path) == [{"step": 1}]
    path.write_bytes(b'{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        read_records(path)
