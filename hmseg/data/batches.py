"""Batches by step number: stateless, so a resumed or a distributed run sees the same samples."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hmseg.data.dataset import Array
from hmseg.data.normalise import coefficients
from hmseg.data.transforms import Augmentation, paste_classes


class Source(Protocol):
    """What batches are drawn from: a split on disk or in memory."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> tuple[Array, Array]:
        """Image uint8 (H, W, 3) and labels uint8 (H, W)."""
        ...


@dataclass(frozen=True)
class BatchSpec:
    """One batch of the whole run: samples first .. first + size of the stream, all at `crop`."""

    first: int
    size: int
    crop: tuple[int, int]


class Loader:
    """Augmented batches of a source.

    The stream of samples is one shuffled pass after another. The order of pass p comes from
    (seed, p), the augmentation of sample k from (seed, k): nothing else is random and there is no
    state to save. With `world` processes, `rank` makes its slice of every batch.
    """

    def __init__(
        self,
        source: Source,
        augmentation: Augmentation,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        threads: int = 1,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.augmentation, self.seed = source, augmentation, seed
        self.rank, self.world, self.threads, self.prefetch = rank, world, threads, prefetch
        self.pin_memory = pin_memory  # batches that a GPU can fetch by itself
        self._made, self._busy_s = 0, 0.0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def sample(self, number: int, index: int, crop: tuple[int, int]) -> tuple[Array, Array]:
        """Sample `number` of the stream, made from frame `index`."""
        began = time.perf_counter()
        rng = np.random.default_rng((self.seed, 1, number))
        augment = self.augmentation
        sample = augment(*self.source.load(index), crop, rng)
        if augment.mix and rng.random() < augment.mix:
            other = self.source.load(int(rng.integers(len(self.source))))
            sample = paste_classes(*sample, *augment(*other, crop, rng), rng)
        self._made, self._busy_s = self._made + 1, self._busy_s + time.perf_counter() - began
        return sample

    @property
    def images_per_s(self) -> float:
        """How fast the threads made samples so far, had they done nothing else."""
        return self.threads * self._made / self._busy_s if self._made else 0.0

    def batches(self, specs: Iterator[BatchSpec]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images uint8 (N, 3, H, W) channels_last, labels uint8 (N, H, W)) per spec; a
        network takes what `normalise_on` makes of them.

        `threads` workers stay `prefetch` batches ahead: decoding and resampling release the
        interpreter lock.
        """
        with ThreadPoolExecutor(self.threads) as pool:
            pending: deque[Future[tuple[Tensor, Tensor]]] = deque()
            try:
                for spec in specs:
                    pending.append(self._submit(pool, spec))
                    if len(pending) > self.prefetch:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, spec: BatchSpec) -> Future[tuple[Tensor, Tensor]]:
        share = spec.size // self.world
        first = spec.first + self.rank * share
        samples = [
            pool.submit(self.sample, number, self._frame(number), spec.crop)
            for number in range(first, first + share)
        ]
        # No deadlock: the pool takes tasks in order, so by then every sample is being made.
        return pool.submit(self._collate, samples)

    def _collate(self, futures: list[Future[tuple[Array, Array]]]) -> tuple[Tensor, Tensor]:
        samples = [future.result() for future in futures]
        began = time.perf_counter()
        images, labels = (self._stack(arrays) for arrays in zip(*samples, strict=True))
        self._busy_s += time.perf_counter() - began
        return images.permute(0, 3, 1, 2), labels

    def _stack(self, arrays: Sequence[Array]) -> Tensor:
        shape = len(arrays), *arrays[0].shape
        batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin_memory)
        np.stack(arrays, out=batch.numpy())
        return batch

    def _frame(self, number: int) -> int:
        epoch, position = divmod(number, len(self.source))
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, 0, epoch))
            self._order = epoch, rng.permutation(len(self.source))
        return int(self._order[1][position])


def normalise_on(device: torch.device, images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 images (N, 3, H, W) as a network on that device takes them, in their own layout.

    They are normalised there, in float32 whatever `dtype` is: a quarter of the bytes go to a GPU,
    and the threads that make samples are free of it. The numbers are `hmseg.data.normalise`'s.
    """
    factor, shift = _coefficients(device)
    pixels = images.to(device, non_blocking=True).to(torch.float32)
    return pixels.mul_(factor).sub_(shift).to(dtype)


@lru_cache(maxsize=8)
def _coefficients(device: torch.device) -> tuple[Tensor, Tensor]:
    factor, shift = (torch.from_numpy(c).view(3, 1, 1).to(device) for c in coefficients())
    return factor, shift
