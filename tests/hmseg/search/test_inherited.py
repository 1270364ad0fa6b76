"""A path as a network of its own: batch norm counted anew, and its mIoU."""

from pathlib import Path

import pytest
import torch

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.search.inherited import Evenly, Inherited, load_supernet, recalibrate
from hmseg.search.loop import Searcher
from hmseg.train.confusion import Confusion
from hmseg.train.metrics import torch_predictor
from tests.hmseg.data.folders import make_camvid
from tests.hmseg.search.searches import NEAR, make_searcher


class Numbered:
    """Frames that are their own numbers."""

    def __len__(self) -> int:
        return 10

    def load(self, index: int):
        return index


@pytest.mark.parametrize(
    ("count", "wanted"), [(3, [0, 3, 6]), (10, [*range(10)]), (99, [*range(10)])]
)
def test_frames_are_evenly_spaced(count: int, wanted: list[int]):
    frames = Evenly(Numbered(), count)
    assert [frames.load(i) for i in range(len(frames))] == wanted


@torch.no_grad()
def test_batch_norm_has_the_mean_of_the_batches_statistics():
    norm = torch.nn.BatchNorm2d(3, momentum=0.3)
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 3, 5, 5, generator=generator) * n + n for n in (1, 2, 5)]
    norm(batches[0])  # whatever it had counted
    recalibrate(norm, batches)
    means = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variances = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert (norm.momentum, norm.training) == (0.3, False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture(scope="module")
def searcher(data: Path) -> Searcher:
    return make_searcher(data, NEAR)


def test_its_miou_is_that_of_the_recalibrated_network(
    data: Path, searcher: Searcher, tmp_path: Path
):
    validation = InMemory(open_dataset("camvid", data, "val"))
    before = {name: t.clone() for name, t in searcher.supernet.state_dict().items()}
    supernet, recipe, source = searcher.supernet, searcher.config.recipe, searcher.source
    inherited = Inherited(supernet, recipe, source, validation, frames=2, batches=3)
    path = searcher.architecture.most_probable()
    network = inherited.network(path)
    confusion = Confusion(11)
    for index in (0, 1):  # of three frames two, evenly spaced
        image, labels = validation.load(index)
        confusion.add(labels, torch_predictor(network)(image))
    assert inherited.miou(path) == confusion.miou
    again, checkpoint = tmp_path / "last.safetensors", searcher.checkpoint()
    checkpoint.save(again)
    loaded, _ = load_supernet(again)
    other = Inherited(loaded, recipe, source, validation, frames=2, batches=3)
    assert other.miou(path) == confusion.miou
    for name, tensor in searcher.supernet.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # the supernet stays as it is
    own = network.state_dict()
    assert torch.equal(own["head.fuse.0.weight"], before["head.fuse.0.weight"])
    assert not torch.equal(own["head.fuse.1.running_mean"], before["head.fuse.1.running_mean"])
