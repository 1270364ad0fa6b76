"""The stream of batches: every frame once per pass, shares of processes, order, speed, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hmseg.data.batches import BatchSpec, Loader, normalise_on
from hmseg.data.normalise import normalise
from hmseg.data.transforms import Augmentation
from lut.errors import UserError

PLAIN = Augmentation(scale=(1, 1), flip=False, colour=0)


class Numbered:
    """Frames whose pixels are their index."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int):
        if index == 13:
            raise UserError("frame 13: not a whole image file")
        return np.full((64, 64, 3), index, np.uint8), np.full((64, 64), index, np.uint8)


def specs(count: int, size: int):
    return (BatchSpec(index * size, size, (64, 64)) for index in range(count))


def test_every_frame_comes_once_per_pass_in_a_new_order():
    loader = Loader(Numbered(12), PLAIN, seed=0)
    order = [int(n) for _, labels in loader.batches(specs(6, 4)) for n in labels[:, 0, 0]]
    assert sorted(order[:12]) == sorted(order[12:]) == list(range(12))
    assert order[:12] != order[12:]


def test_batches_have_the_networks_layout():
    images, labels = next(iter(Loader(Numbered(12), PLAIN, seed=0).batches(specs(1, 4))))
    assert (images.shape, images.dtype) == ((4, 3, 64, 64), torch.uint8)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, labels[:, None].expand(4, 3, 64, 64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_normalised_bit_for_bit_as_an_array_is(dtype: torch.dtype):
    # Every value of every channel, in more pixels than a vector holds.
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 72, 3), dtype=np.uint8)
    pixels[0, :4, :64] = np.arange(256, dtype=np.uint8).reshape(4, 64, 1)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    result = normalise_on(torch.device("cpu"), images, dtype)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    expected = normalise(pixels).astype(result.numpy().dtype)
    np.testing.assert_array_equal(result.permute(0, 2, 3, 1).numpy(), expected)
    planar = normalise_on(torch.device("cpu"), images.contiguous(), dtype)
    assert torch.equal(planar, result)


def test_processes_share_out_exactly_the_batch_of_one_process():
    def stream(rank: int, world: int):
        loader = Loader(Numbered(12), Augmentation(), seed=5, rank=rank, world=world, threads=3)
        return list(loader.batches(specs(5, 4)))

    for whole, left, right in zip(stream(0, 1), stream(0, 2), stream(1, 2), strict=True):
        for part in (0, 1):
            assert torch.equal(whole[part], torch.cat([left[part], right[part]]))


def test_a_later_start_gives_the_same_batches():
    full = list(Loader(Numbered(12), Augmentation(), seed=5).batches(specs(5, 4)))
    later = [s for index, s in enumerate(specs(5, 4)) if index >= 3]
    resumed = list(Loader(Numbered(12), Augmentation(), seed=5).batches(iter(later)))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(full[3:], resumed, strict=True))


def test_a_broken_frame_reaches_the_trainer_as_its_own_error():
    with pytest.raises(UserError, match="frame 13"):
        list(Loader(Numbered(14), PLAIN, seed=0).batches(specs(7, 2)))


def test_the_speed_of_the_loader_is_known():
    loader = Loader(Numbered(12), PLAIN, seed=0)
    assert loader.images_per_s == 0
    list(loader.batches(specs(3, 4)))
    assert loader.images_per_s > 10


def test_a_share_of_the_samples_is_mixed_and_the_others_stay_as_they_were():
    plain, mixing = (
        Loader(Numbered(12), replace(PLAIN, mix=mix), seed=0) for mix in (0.0, 0.5)
    )  # fmt: skip
    one, two = (
        torch.cat([labels for _, labels in loader.batches(specs(30, 4))])
        for loader in (plain, mixing)
    )
    changed = (one != two).flatten(1).any(1)
    assert 30 < changed.sum() < 70  # of 120; a frame mixed with itself does not change
    again = torch.cat([labels for _, labels in mixing.batches(specs(30, 4))])
    assert torch.equal(two, again)
