"""Two processes with half the batch are one process with the whole batch."""

import multiprocessing
import socket
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from hmseg.data.batches import normalise_on
from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.distributed import ALONE, CPU, World, synchronise_batch_norm
from hmseg.train.loop import Trainer
from hmseg.train.metrics import evaluate, torch_predictor
from lut.errors import UserError
from lut.files import lock_folder
from tests.hmseg.data.folders import make_camvid
from tests.hmseg.train.test_run import make_run

STEPS = 4


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(), nn.Conv2d(6, 4, 3))


def gradients_and_buffers(model: nn.Module, images: torch.Tensor, world: World):
    loss = (model(images) ** 2).sum()
    loss.backward()
    world.sum_gradients(model.parameters())
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return loss.detach(), gradients, dict(model.named_buffers())


def batch_norm_worker(rank: int, world: World, folder: Path) -> None:
    model = small_network()
    synchronise_batch_norm(model)
    images = torch.load(folder / "images.pt")
    share = images[:1] if rank == 0 else images[1:]  # unequal shares
    loss, gradients, buffers = gradients_and_buffers(model, share, world)
    model.eval()
    loss = world.sum(loss)
    torch.save((loss, gradients, buffers, model(images)), folder / f"rank{rank}.pt")


# float64: from a random start the first step amplifies a rounding error some thousand times.
def train(world: World, folder: Path, options: dict) -> tuple[list[float], Trainer, float]:
    source = InMemory(open_dataset("camvid", folder / "data", "train"))
    config = TrainConfig(
        "tiny-mrms", "camvid", (Stage((64, 96), 4, STEPS),), precision="float64", **options
    )
    trainer = Trainer(config, source, tuple(map(str, range(11))), world=world)
    losses: list[float] = []
    trainer.run(lambda report: losses.append(report.loss))
    miou = evaluate(torch_predictor(trainer.released), source, 11, world).miou
    return losses, trainer, miou


def train_worker(rank: int, world: World, folder: Path, options: dict) -> None:
    losses, trainer, miou = train(world, folder, options)
    torch.save((losses, trainer.model.state_dict(), miou), folder / f"rank{rank}.pt")


def enter(rank: int, address: str, work) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    work(rank, World(rank, 2, CPU))
    dist.destroy_process_group()


def in_two_processes(work) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.set_forkserver_preload([__name__])  # torch is imported once for all of them
    mp.start_processes(
        enter, (f"tcp://127.0.0.1:{port}", work), nprocs=2, start_method="forkserver"
    )


def test_batch_norm_has_the_values_and_gradients_of_the_whole_batch(tmp_path: Path):
    images = 3 + 2 * torch.randn(3, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    torch.save(images, tmp_path / "images.pt")
    in_two_processes(partial(batch_norm_worker, folder=tmp_path))
    model = small_network()
    loss, gradients, buffers = gradients_and_buffers(model, images, ALONE)
    outputs = model.eval()(images)
    for rank in range(2):
        theirs = torch.load(tmp_path / f"rank{rank}.pt")
        torch.testing.assert_close(theirs[0], loss)
        torch.testing.assert_close(theirs[1], gradients, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(theirs[2], buffers)
        torch.testing.assert_close(theirs[3], outputs)


@pytest.mark.parametrize("options", [{}, {"ohem": True, "class_balance": 1.1, "ema_decay": 0.9}])
def test_two_processes_give_the_loss_curve_of_one(tmp_path: Path, options: dict):
    make_camvid(tmp_path / "data", train=8)
    in_two_processes(partial(train_worker, folder=tmp_path, options=options))
    losses, trainer, miou = train(ALONE, tmp_path, options)
    left, right = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert left[0] == right[0]
    assert len(losses) == STEPS
    assert left[0] == pytest.approx(losses, rel=1e-6)
    assert left[2] == right[2] == pytest.approx(miou, abs=1e-4)
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(left[1][name], right[1][name], rtol=0, atol=0)
        torch.testing.assert_close(left[1][name], tensor, atol=1e-6, rtol=1e-6)


def test_without_synchronisation_the_curves_part(tmp_path: Path):
    """The comparison above can fail: local batch norm is not within its tolerance."""
    make_camvid(tmp_path / "data", train=8)
    source = InMemory(open_dataset("camvid", tmp_path / "data", "train"))
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 96), 4, 1),))
    trainer = Trainer(config, source, tuple(map(str, range(11))))
    pixels, labels = next(trainer.loader.batches(config.batches()))
    images = normalise_on(CPU, pixels, torch.float32)
    model = trainer.model.train()
    whole = trainer.loss(model(images), labels)
    halves = [trainer.loss.sums(model(images[i : i + 2]), labels[i : i + 2]) for i in (0, 2)]
    split = trainer.loss.combine(*(a + b for a, b in zip(*halves, strict=True)))
    assert split.item() != pytest.approx(whole.item(), rel=1e-3)


def refused_worker(rank: int, world: World, folder: Path) -> None:
    run = make_run(folder / "data", folder / "run")
    run.world = world
    with pytest.raises(UserError, match="another process is at work in") as refusal:
        run.start(resume=False)
    (folder / f"rank{rank}.txt").write_text(str(refusal.value))


def test_a_folder_that_is_taken_is_refused_by_all(tmp_path: Path):
    """Only the first process asks for it; the other would wait for it, and fail when it is gone."""
    make_camvid(tmp_path / "data")
    with lock_folder(tmp_path / "run"):
        in_two_processes(partial(refused_worker, folder=tmp_path))
    texts = {(tmp_path / f"rank{rank}.txt").read_text() for rank in range(2)}
    assert len(texts) == 1


def test_together_alone():
    done: list[int] = []
    ALONE.together(lambda: done.append(1))
    assert done == [1]

    def refuse() -> None:
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        ALONE.together(refuse)
