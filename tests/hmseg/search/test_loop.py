"""The search loop: which step changes what, from which frames; shared out over processes."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.inherit_lite0 import inherit_lite0
from hmseg.lite0 import weights_name
from hmseg.search.config import SearchConfig
from hmseg.search.loop import Half, Searcher, SearchReport
from hmseg.train.config import Stage
from hmseg.train.distributed import ALONE, CPU, World
from hmseg.train.teacher import Teacher, digest
from hmseg.zoo import create_model
from lut.errors import UserError
from tests.conditions import LITE0
from tests.hmseg.data.folders import make_camvid
from tests.hmseg.search.costs import odd_objective
from tests.hmseg.search.searches import CONFIG, LIMIT, NEAR, RECIPE, RELEASED, SCORE, make_searcher


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


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
    # CPUs without such products add them up in bfloat16, too: 0.18 on one.
    off = sorted(abs(one / other - 1) for one, other in zip(rounded, exact, strict=True))
    # A CPU without such products adds them up in bfloat16, too: one of five was off by 0.18.
    assert off[-2] < 0.1
    assert off[-1] < 0.25
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


@LITE0.mark
def test_it_begins_with_lite0s_weights(data: Path):
    config = replace(CONFIG, init=weights_name())
    searcher = make_searcher(data, config)
    network = create_model("tiny-mrms", num_classes=11)
    inherit_lite0(network)
    mine, theirs = searcher.supernet.state_dict(), network.state_dict()
    assert torch.equal(mine["stem.0.weight"], theirs["stem.0.weight"])
    name = "depthwise.0.weight"
    assert torch.equal(mine[f"stages.s3.1.e6k3.{name}"], theirs[f"stages.s3.1.{name}"])
    (taken,) = searcher.before
    assert config.init == f"lite0 {taken['sha256']}"
    with pytest.raises(UserError, match="Lite0's weights are not those of the search's config"):
        make_searcher(data, replace(config, init="lite0 of another day"))
    assert config.difference(CONFIG) == f"init: None there, {config.init} here"
    assert CONFIG.difference(config) == f"init: {config.init} there, none here"
    assert SearchConfig.from_json(config.to_json()) == config
    assert "init" not in CONFIG.to_dict()  # as before there was any


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    network = create_model("tiny-mrms", num_classes=11, pretrained="camvid")
    return Teacher(network, {"teacher": "tiny-mrms", "sha256": digest(network)})


def test_a_teacher_is_in_every_loss_and_asked_once_for_a_batch(
    data: Path, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []
    ask = Teacher.ask
    monkeypatch.setattr(
        Teacher, "ask", lambda self, images: asked.append(len(images)) or ask(self, images)
    )

    def losses(teacher: Teacher | None, **changes) -> tuple[list[float], Searcher]:
        recipe = replace(RECIPE, teacher=teacher.name if teacher else None, **changes)
        searcher = make_searcher(data, replace(SCORE, recipe=recipe), teacher=teacher)
        found: list[float] = []
        for report in run_steps(searcher):
            found += [report.loss, *([report.architecture.loss] if report.architecture else [])]
        return found, searcher

    alone, _ = losses(None)
    silent, _ = losses(teacher, soft_weight=0.0)
    assert silent == alone
    assert asked == [2] * len(alone)  # not for each of the four paths
    taught, searcher = losses(teacher, feature_weight=1.0)
    assert taught[0] > alone[0]
    assert all(a != b for a, b in zip(taught, alone, strict=True))
    assert searcher.before == (teacher.about,)
    with pytest.raises(UserError, match="the teacher is not that of the search's configuration"):
        make_searcher(data, SCORE, teacher=teacher)


def run_steps(searcher: Searcher) -> list[SearchReport]:
    reports: list[SearchReport] = []
    searcher.run(reports.append)
    return reports


def test_a_half_is_smaller_than_the_split(data: Path):
    config = replace(CONFIG, recipe=replace(RECIPE, stages=(Stage((64, 64), 5, 6),)))
    with pytest.raises(UserError, match="has 4 images, too few for a batch of 5"):
        make_searcher(data, config)


DOUBLE = replace(
    CONFIG,
    recipe=replace(RECIPE, stages=(Stage((64, 64), 4, 2),), precision="float64"),
    warmup_steps=0,
)


SHARED = (DOUBLE, replace(DOUBLE, estimator="score", samples=2, prior=0.3))
Outcome = tuple[list[float], torch.Tensor]


def run_all(data: Path, world: World = ALONE) -> list[Outcome]:
    """Losses and logits of each search, one after the other."""
    outcomes: list[Outcome] = []
    for config in SHARED:
        searcher = make_searcher(data, config, world)
        losses = [report.loss for report in run_steps(searcher)]
        outcomes.append((losses, searcher.architecture.logits.detach()))
    return outcomes


def share_worker(rank: int, address: str, data: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    torch.save(run_all(data, World(rank, 2, CPU)), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_search_as_one(data: Path, tmp_path: Path):
    """By either estimator; the processes are made once, which takes longer than the searches."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    mp.spawn(share_worker, (address, data, tmp_path), nprocs=2)
    both = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for left, right, (losses, logits) in zip(*both, run_all(data), strict=True):
        assert torch.equal(left[1], right[1])
        assert left[0] == right[0] == pytest.approx(losses, rel=1e-6)
        # Adam turns a gradient near 0 into a step of up to 0.01, and rounding with it.
        torch.testing.assert_close(left[1], logits, atol=1e-4, rtol=0)
        assert left[1].abs().max() > 0.01
