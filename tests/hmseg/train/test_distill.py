"""The loss against a teacher, beside the formulas written out in numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hmseg.train.distill import DistillationLoss, Lesson, likeness, soft_labels


def some(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_soft_labels_are_the_divergence(temperature: float):
    mine, theirs = some(1, 2, 5, 3, 4), some(2, 2, 5, 3, 4)
    p, q = (softmax(x.numpy() / temperature) for x in (theirs, mine))
    wanted = temperature**2 * (p * np.log(p / q)).sum(1).mean()
    assert float(soft_labels(mine, theirs, temperature)) == pytest.approx(wanted)
    assert float(soft_labels(mine, mine, temperature)) == pytest.approx(0, abs=1e-12)


def test_likeness_compares_places_whatever_the_widths():
    mine, theirs = some(1, 2, 6, 2, 3), some(2, 2, 9, 2, 3)
    total = 0.0
    for image in range(2):
        cosines = []
        for maps in (mine, theirs):
            rows = maps[image].reshape(maps.shape[1], -1).T.numpy()
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            cosines.append(rows @ rows.T)
        total += np.square(cosines[0] - cosines[1]).mean() / 2
    assert float(likeness(mine, theirs)) == pytest.approx(total)
    turned = torch.linalg.qr(some(3, 6, 6))[0]
    assert float(likeness(mine, torch.einsum("ij,njhw->nihw", turned, mine))) < 1e-20


def test_maps_of_two_sizes_meet_at_the_smaller():
    small = some(1, 1, 4, 3, 5)
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert float(likeness(small, large)) < 1e-20
    assert float(likeness(large, small)) < 1e-20


def test_each_part_has_its_weight_and_the_gradient_is_the_students():
    scores, c4, c5 = (some(s, 2, c, 3, 4).requires_grad_() for s, c in ((1, 5), (2, 6), (3, 7)))
    lesson = Lesson(some(4, 2, 5, 3, 4), (some(5, 2, 8, 3, 4), some(6, 2, 9, 3, 4)))
    soft = DistillationLoss(1, 1, 0)(scores, (c4, c5), lesson)
    features = DistillationLoss(0, 1, 1)(scores, (c4, c5), lesson)
    both = DistillationLoss(2, 1, 3)(scores, (c4, c5), lesson)
    torch.testing.assert_close(both, 2 * soft + 3 * features)
    assert float(DistillationLoss(0, 1, 0)(scores, (c4, c5), lesson)) == 0
    both.backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in (scores, c4, c5))


def test_rounded_maps_are_compared_in_float32():
    maps = (some(1, 1, 4, 3, 4).bfloat16(), some(2, 1, 4, 3, 4).bfloat16())
    scores = some(3, 1, 5, 3, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = DistillationLoss(1, 1, 1)(scores, maps, Lesson(scores, maps))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(0, abs=1e-6)
