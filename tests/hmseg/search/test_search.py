"""The search loop: which step changes what, from which frames; killed, resumed, shared out."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.mend import Resume
from hmseg.network_file import read_network
from hmseg.pretrained import load_released
from hmseg.search.architecture import Architecture, gumbel_noise
from hmseg.search.checkpoint import SearchCheckpoint
from hmseg.search.config import SearchConfig
from hmseg.search.run import SearchOptions, SearchRun, _version
from hmseg.search.search import _SLOPES, Half, Searcher, SearchReport
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.distributed import ALONE, CPU, World
from hmseg.train.loop import Trainer
from hmseg.train.place import place_of
from hmseg.zoo import create_model
from lut.errors import UserError
from lut.jsonl import read_records
from tests.hmseg.data.folders import make_camvid
from tests.hmseg.search.costs import odd_objective
from tests.hmseg.search.test_objective import small_space

# A low rate: two crops this small make the lowest branch's batch norms wild, and what overflows on
# one CPU need not on another.
RECIPE = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 6),), seed=4, learning_rate=1e-4)
CONFIG = SearchConfig(RECIPE, "0.04ms", "us", (256, 512), 19, warmup_steps=2)
SCORE = replace(CONFIG, estimator="score", samples=4)
RELEASED = load_released("tiny-mrms", "camvid")
NEAR = replace(SCORE, pretrained=RELEASED.card["sha256"], prior=0.9)
LIMIT = 45.0  # of the odd cost: within its range
OPTIONS = SearchOptions(log_every=2, checkpoint_every=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


def make_searcher(data: Path, config: SearchConfig = CONFIG, world: World = ALONE) -> Searcher:
    frames = open_dataset("camvid", data, "train")
    return Searcher(
        config, odd_objective(LIMIT), InMemory(frames), frames.classes.names, world=world,
        released=RELEASED if config.pretrained == NEAR.pretrained else None,
    )  # fmt: skip


def make_run(data: Path, folder: Path, config: SearchConfig = CONFIG) -> SearchRun:
    return SearchRun(folder, make_searcher(data, config), {"table": "odd"}, OPTIONS)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchRun:
    """A search that nothing disturbed."""
    run = make_run(data, tmp_path_factory.mktemp("runs") / "whole")
    run.start(resume=False)
    return run


class Numbered:
    """Frames that are their own numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int):
        return index


@pytest.mark.parametrize("count", [8, 9])
def test_the_halves_are_disjoint_and_cover_the_split(count: int):
    halves = [Half(Numbered(count), number, seed=3) for number in (0, 1)]
    weights, others = ({half.load(i) for i in range(len(half))} for half in halves)
    assert not weights & others
    assert weights | others == set(range(count))
    assert abs(len(weights) - len(others)) <= 1
    assert {Half(Numbered(count), 0, seed=5).load(i) for i in range(4)} != weights


def test_a_search_in_bfloat16_is_near_one_in_float32(data: Path):
    def losses(config: SearchConfig) -> list[float]:
        found: list[float] = []

        def report(report: SearchReport) -> None:
            found.append(report.loss)
            if report.architecture:
                found.append(report.architecture.loss)

        make_searcher(data, config).run(report)
        return found

    stage = replace(RECIPE, stages=(Stage((64, 64), 2, 3),), learning_rate=1e-4)
    config = replace(SCORE, recipe=stage, warmup_steps=1)
    exact = losses(config)
    rounded = losses(replace(config, recipe=replace(stage, precision="bfloat16")))
    assert len(exact) == 5
    assert rounded == pytest.approx(exact, rel=0.1)
    assert rounded != exact


def test_each_kind_of_step_changes_its_own_parameters(data: Path):
    searcher = make_searcher(data)
    searcher.supernet.train()
    images, labels = next(searcher._batches(1, 0))

    def values() -> tuple[list[torch.Tensor], torch.Tensor]:
        weights = [p.detach().clone() for p in searcher.supernet.parameters()]
        return weights, searcher.architecture.logits.detach().clone()

    weights, logits = values()
    searcher._weight_step(images, labels, 0.01)
    moved, still = values()
    assert torch.equal(logits, still)
    path = searcher.weight_path(0)
    names = [name for name, _ in searcher.supernet.named_parameters()]
    changed = {n for n, a, b in zip(names, weights, moved, strict=True) if not torch.equal(a, b)}
    assert "stem.0.weight" in changed
    blocks = {".".join(name.split(".")[1:4]) for name in changed if name.startswith("stages.")}
    layers = [f"{group}.{i}" for group, n in zip(
        ("s1", "s2", "s3", "s4a", "s4b", "s5a", "s5b"), (1, 4, 4, 4, 4, 4, 1), strict=True
    ) for i in range(n)]  # fmt: skip
    assert blocks == {f"{layer}.{op}" for layer, op in zip(layers, path.ops, strict=True) if op}

    searcher.step = CONFIG.warmup_steps
    step = searcher._architecture_step(images, labels)
    frozen, tuned = values()
    assert all(torch.equal(a, b) for a, b in zip(moved, frozen, strict=True))
    assert not torch.equal(tuned, logits)
    assert step.temperature == 10


def test_the_log_has_the_search_in_it(whole: SearchRun):
    records = read_records(whole.log)
    assert [record["step"] for record in records] == [2, 4, 6]
    assert ["architecture" in record for record in records] == [False, True, True]
    assert records[-1]["architecture"]["temperature"] == pytest.approx(0.1)
    first, last = (torch.tensor(record["probabilities"]) for record in (records[0], records[-1]))
    assert torch.allclose(first[2], torch.full((10,), 0.1))  # the warm-up moves nothing
    assert (last[2] != first[2]).any()
    for record in records:
        assert record["images_per_s"] > 0
        assert record["most_probable"]["upper"] > record["most_probable"]["estimate"] > 0


def test_what_was_found_is_written_with_its_provenance(whole: SearchRun, data: Path):
    genotype, width, classes = read_network(whole.folder / "genotype.json")
    assert (width, classes) == (0.5, 11)
    estimate = whole.searcher.objective.cost.of(genotype)
    assert estimate.upper <= LIMIT
    search = json.loads((whole.folder / "genotype.json").read_text())["search"]
    assert SearchConfig.from_json(json.dumps(search["config"])) == CONFIG
    assert search["estimate"]["value"] == estimate.value
    assert search["cost"] == {"table": "odd"}
    assert search["versions"].keys() == {"hmseg"}
    assert search["computed_on"] == [place_of(CPU)]
    for name in ("network.png", "probabilities.png", "cost.png"):
        with Image.open(whole.folder / name) as picture:
            assert len(set(picture.convert("L").tobytes())) > 20


def test_a_package_that_is_not_installed_has_no_version():
    assert _version("torch") == torch.__version__
    assert _version("no-such-package") == "not installed"


def test_training_begins_with_the_network_that_was_found(whole: SearchRun, data: Path):
    file, path = whole.folder / "genotype.json", whole.folder / "inherited.safetensors"
    inherited = Checkpoint.load(path)
    by_line = create_model(inherited.config.model, num_classes=11)
    assert by_line.config == create_model(str(file)).config
    frames = open_dataset("camvid", data, "train")
    trainer = Trainer(
        TrainConfig(inherited.config.model, "camvid", (Stage((64, 64), 2, 1),)),
        InMemory(frames), frames.classes.names,
    )  # fmt: skip
    trainer.begin_with(inherited, path)
    supernet = whole.searcher.supernet.state_dict()
    assert torch.equal(trainer.model.state_dict()["stem.0.weight"], supernet["stem.0.weight"])
    trainer.run(lambda report: None)
    assert trainer.step == 1
    searched, trained = trainer.checkpoint().as_history()
    assert SearchConfig.from_json(json.dumps(searched["search"])) == CONFIG
    assert searched["steps"] == CONFIG.steps
    assert (trained["steps"], trained["images_seen"]) == (1, 2)


def search_until_killed(data: Path, folder: Path) -> None:
    """What the killed process runs: it stops dead after step 5, past the checkpoint of step 4."""
    torch.set_num_threads(int(os.environ["THREADS"]))
    run = make_run(data, folder)

    def stop(report: SearchReport) -> None:
        if report.step == 5:
            print("now", flush=True)
            time.sleep(60)

    run.watch = stop
    run.start(resume=False)


def test_killed_and_resumed_ends_with_the_same_bits(data: Path, whole: SearchRun, tmp_path: Path):
    folder = tmp_path / "run"
    code = (
        "from pathlib import Path; from tests.hmseg.search.test_search import search_until_killed;"
        f"search_until_killed(Path({str(data)!r}), Path({str(folder)!r}))"
    )
    environment = os.environ | {"THREADS": str(torch.get_num_threads())}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == b"now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert SearchCheckpoint.load(folder / "last.safetensors").step == 4

    resumed = make_run(data, folder)
    resumed.start(resume=True)
    mine, theirs = (SearchCheckpoint.load(run.last) for run in (whole, resumed))
    assert mine.step == theirs.step == 6
    for group in ("weights", "architecture", "optimizer", "arch_optimizer"):
        own, other = getattr(mine, group), getattr(theirs, group)
        assert own.keys() == other.keys()
        assert own
        for name, tensor in own.items():
            assert torch.equal(tensor, other[name]), name
    logs = [
        [{k: v for k, v in r.items() if k not in ("time", "images_per_s")} for r in records]
        for records in (read_records(whole.log), read_records(resumed.log))
    ]
    assert logs[0] == logs[1]
    genotypes = [read_network(run.folder / "genotype.json") for run in (whole, resumed)]
    assert genotypes[0] == genotypes[1]


def test_it_begins_with_released_weights_and_near_their_network(data: Path):
    searcher = make_searcher(data, NEAR)
    network = create_model("tiny-mrms", pretrained="camvid").double().eval()
    heir = searcher.supernet.double().eval()
    image, path = torch.rand(1, 3, 64, 64).double(), searcher.architecture.most_probable()
    with torch.no_grad():
        torch.testing.assert_close(heir(image, path), network(image))
    paths = [searcher.weight_path(step) for step in range(CONFIG.warmup_steps)]
    same = [a == b for p in paths for a, b in zip(p.choices, path.choices, strict=True)]
    assert 0.7 < sum(same) / len(same) < 1  # not fair turns


def test_weights_that_do_not_belong_are_refused(data: Path):
    with pytest.raises(UserError, match="are not those of the search's configuration"):
        make_searcher(data, replace(NEAR, pretrained="another's digest"))
    frames = open_dataset("camvid", data, "train")
    with pytest.raises(UserError, match="tiny-mrms is for other classes; begin without"):
        Searcher(NEAR, odd_objective(LIMIT), InMemory(frames), ("road", "sky"), released=RELEASED)


@pytest.mark.parametrize("config", [SCORE, replace(NEAR, shared=True)])
def test_a_search_with_the_score_estimator_resumes_with_the_same_bits(
    data: Path, tmp_path: Path, config: SearchConfig
):
    def interrupt(report: SearchReport) -> None:
        if report.step == 5:  # past the checkpoint of step 4
            raise KeyboardInterrupt

    whole, cut = (make_run(data, tmp_path / name, config) for name in ("whole", "cut"))
    whole.start(resume=False)
    cut.watch = interrupt
    with pytest.raises(KeyboardInterrupt):
        cut.start(resume=False)
    resumed = make_run(data, cut.folder, config)
    resumed.start(resume=True)
    mine, theirs = (SearchCheckpoint.load(run.last) for run in (whole, resumed))
    assert mine.step == theirs.step == 6
    assert torch.equal(mine.architecture["logits"], theirs.architecture["logits"])
    assert mine.architecture["logits"].abs().max() > 0
    for name, tensor in mine.weights.items():
        assert torch.equal(tensor, theirs.weights[name]), name
    *before, search = Checkpoint.load(cut.folder / "inherited.safetensors").as_history()
    assert search["search"]["pretrained"] == config.pretrained
    assert search["computed_on"] == [place_of(CPU)]
    if config.pretrained:  # what came before is in the weights' history, after a resume too
        *runs, taken = before
        assert runs == RELEASED.card["runs"]
        assert taken["sha256"] == config.pretrained
    else:
        assert not before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (replace(CONFIG, budget="0.05ms"), "budget: 0.04ms there, 0.05ms here"),
        (replace(CONFIG, recipe=replace(RECIPE, seed=5)), "seed: 4 there, 5 here"),
        (replace(CONFIG, recipe=replace(RECIPE, stages=(Stage((64, 64), 2, 7),))), "stages: "),
        (replace(CONFIG, cost="another table's digest"), "cost: us there, another table's"),
        (replace(CONFIG, warmup_steps=3), "warmup steps: 2 there, 3 here"),
        (replace(NEAR, prior=0.0), "estimator: straight-through there, score here"),
        (replace(CONFIG, prior=0.5), "prior: 0.0 there, 0.5 here"),
        (replace(CONFIG, shared=True), "shared: False there, True here"),
        (SCORE, "estimator: straight-through there, score here"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_says_which(
    data: Path, whole: SearchRun, other: SearchConfig, difference: str
):
    with pytest.raises(UserError, match=rf"a search with other settings \({difference}"):
        make_run(data, whole.folder, other).start(resume=True)


def test_a_folder_with_a_search_is_not_overwritten(data: Path, whole: SearchRun):
    before = whole.last.read_bytes()
    with pytest.raises(UserError, match="holds a search: name another folder") as caught:
        make_run(data, whole.folder).start(resume=False)
    assert caught.value.mend == Resume("search", whole.folder)
    assert whole.last.read_bytes() == before


def test_other_checkpoints_are_named(data: Path, whole: SearchRun, tmp_path: Path):
    with pytest.raises(UserError, match="not a checkpoint of a training run"):
        Checkpoint.load(whole.last)
    with pytest.raises(UserError, match="not a checkpoint of a search"):
        SearchCheckpoint.load(whole.folder / "inherited.safetensors")
    with pytest.raises(UserError, match="no such checkpoint"):
        make_run(data, tmp_path / "none").start(resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_steps": 6}, "6 warm-up steps leave none of 6"),
        ({"estimator": "score"}, "needs at least 2 samples"),
        ({"samples": 0}, "needs a path"),
        ({"arch_learning_rate": 0.0}, "must be above 0"),
        ({"arch_learning_rate": math.inf}, "must be above 0"),
        ({"cost_weight": math.nan}, "must be above 0"),
        ({"prior": 1.0}, "at least 0 and below 1"),
        ({"prior": math.nan}, "at least 0 and below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, message: str):
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **change)


def test_a_half_is_smaller_than_the_split(data: Path):
    config = replace(CONFIG, recipe=replace(RECIPE, stages=(Stage((64, 64), 5, 6),)))
    with pytest.raises(UserError, match="has 4 images, too few for a batch of 5"):
        make_searcher(data, config)


def test_the_score_estimator_is_the_gradient_of_the_expected_loss():
    """Over many samples, where the loss of each path is known: here a sum over its choices."""
    architecture = Architecture(small_space())
    with torch.no_grad():
        architecture.logits += torch.linspace(-1, 1, 240, dtype=torch.float64).view(24, 10)
    values = torch.linspace(0, 3, 240, dtype=torch.float64).view(24, 10).sin()

    class Known:
        world = ALONE

        def __init__(self) -> None:
            self.architecture = architecture

        def _task_loss(self, _images, _labels, path) -> torch.Tensor:
            return values[torch.arange(24), torch.tensor(path.choices)].sum()

    expected_loss = (architecture.probabilities() * values).sum()
    (expected,) = torch.autograd.grad(expected_loss, architecture.logits)
    slopes = []
    for step in range(500):
        paths = [architecture.sample(gumbel_noise(0, step, draw), 1.0) for draw in range(3)]
        slope, _ = _SLOPES["score"](Known(), None, None, paths)
        slopes.append(slope)
    stacked = torch.stack(slopes)
    deviation = stacked.std(0) / len(slopes) ** 0.5
    assert ((stacked.mean(0) - expected).abs() <= 4.5 * deviation + 1e-12).all()
    assert expected.abs().max() > 6 * deviation.max()


DOUBLE = replace(
    CONFIG,
    recipe=replace(RECIPE, stages=(Stage((64, 64), 4, 2),), precision="float64"),
    warmup_steps=0,
)


def share_worker(rank: int, address: str, data: Path, folder: Path, config: SearchConfig) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    searcher = make_searcher(data, config, World(rank, 2, CPU))
    losses: list[float] = []
    searcher.run(lambda report: losses.append(report.loss))
    torch.save((losses, searcher.architecture.logits.detach()), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "config", [DOUBLE, replace(DOUBLE, estimator="score", samples=2, prior=0.3)]
)
def test_two_processes_search_as_one(data: Path, tmp_path: Path, config: SearchConfig):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(share_worker, (address, data, tmp_path, config), nprocs=2)
    alone = make_searcher(data, config)
    losses: list[float] = []
    alone.run(lambda report: losses.append(report.loss))
    left, right = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert torch.equal(left[1], right[1])
    assert left[0] == right[0] == pytest.approx(losses, rel=1e-6)
    # Adam turns a gradient near 0 into a step of up to 0.01, and rounding with it.
    torch.testing.assert_close(left[1], alone.architecture.logits.detach(), atol=1e-4, rtol=0)
    assert left[1].abs().max() > 0.01
