"""Eq. 1 and its options against torch's own formulas at full size, values and gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hmseg.families.auxiliary import Auxiliary
from hmseg.train.losses import (
    BoostedLoss,
    EdgeLoss,
    PixelLoss,
    _InChunks,
    class_weights,
    edges_of,
)
from lut.errors import UserError

CLASSES = 5


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, CLASSES, 6, 9, generator=generator, requires_grad=True)
    labels = torch.randint(0, CLASSES, (3, 47, 70), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
    labels[2] = 255  # an image without any label
    return logits, labels


def full_size(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)


def check(loss: PixelLoss, reference, case) -> None:
    logits, labels = case
    total, weight = loss.sums(logits, labels.byte())
    (gradient,) = torch.autograd.grad(total / weight, logits)
    double = logits.detach().double().requires_grad_()
    expected = reference(full_size(double, labels), labels)
    (slope,) = torch.autograd.grad(expected, double)
    assert (total / weight).item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(gradient.double(), slope, atol=1e-6, rtol=1e-4)


def test_plain_cross_entropy(case):
    check(PixelLoss(), lambda x, y: F.cross_entropy(x, y, ignore_index=255), case)


def test_label_smoothing(case):
    check(
        PixelLoss(label_smoothing=0.1),
        lambda x, y: F.cross_entropy(x, y, ignore_index=255, label_smoothing=0.1),
        case,
    )


def test_class_weights(case):
    weights = (1.0, 2.0, 0.5, 3.0, 1.5)
    table = torch.tensor(weights, dtype=torch.float64)
    check(PixelLoss(weights), lambda x, y: F.cross_entropy(x, y, table, ignore_index=255), case)


def test_class_weights_and_smoothing_weight_whole_pixels(case):
    weights = (1.0, 2.0, 0.5, 3.0, 1.5)
    table = torch.tensor(weights, dtype=torch.float64)

    def reference(x, y):
        valid = y != 255
        pixel = F.cross_entropy(x, y, ignore_index=255, label_smoothing=0.1, reduction="none")
        share = table[y.masked_fill(~valid, 0)] * valid
        return (pixel * share).sum() / share.sum()

    check(PixelLoss(weights, 0.1), reference, case)


def test_ohem_keeps_the_hard_pixels_of_each_image(case):
    def reference(x, y):
        total, count = 0, 0
        for logits, labels in zip(x[:2], y[:2], strict=True):
            pixel = F.cross_entropy(logits[None], labels[None], ignore_index=255, reduction="none")[
                0
            ][labels != 255]
            hard = pixel[pixel > -torch.log(torch.tensor(0.7))]
            total, count = total + hard.sum(), count + len(hard)
        return total / count

    check(PixelLoss(ohem=True), reference, case)


def test_ohem_keeps_at_least_a_sixteenth():
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    logits = torch.zeros(1, 2, 32, 32)
    logits[:, 0] = torch.linspace(5, 9, 1024).view(32, 32)  # all easy
    _, weight = PixelLoss(ohem=True).sums(logits, labels)
    assert weight.item() == 64


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5, 3.0, 1.5)])
@pytest.mark.parametrize("chunk", [2, 3, 9])
def test_images_scored_together_cost_what_they_cost_one_by_one(case, chunk, weights, smoothing):
    logits, labels = case
    loss = PixelLoss(weights, smoothing)
    found = []
    for size in (1, chunk):
        total, weight = _InChunks.apply(logits, labels.byte(), loss, size, 1)
        (gradient,) = torch.autograd.grad(total, logits)
        found.append((total.detach(), weight, gradient))
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)


def test_how_many_images_are_scored_together():
    labels = torch.empty(32, 360, 480, dtype=torch.uint8, device="meta")
    logits = torch.empty(32, 11, 45, 60, device="meta")
    assert PixelLoss().images_at_once(logits, labels) == 35
    assert PixelLoss(ohem=True).images_at_once(logits, labels) == 1
    large = torch.empty(2, 8192, 8192, dtype=torch.uint8, device="meta")
    assert PixelLoss().images_at_once(logits, large) == 1
    here = torch.empty(32, 11, 45, 60)
    assert PixelLoss().images_at_once(here, labels) == 1


def test_without_a_gradient_the_sums_are_the_same_bits(case):
    logits, labels = case
    with torch.no_grad():
        bare = PixelLoss().sums(logits.detach(), labels)
    assert all(
        torch.equal(a, b) for a, b in zip(bare, PixelLoss().sums(logits, labels), strict=True)
    )


def test_boosting_is_equation_1(case):
    logits, labels = case
    outputs = [logits, logits[:, :, :3, :4], logits[:, :, 1:3, 2:4]]
    parts = [
        F.cross_entropy(full_size(output, labels), labels, ignore_index=255) for output in outputs
    ]
    expected = parts[0] + 0.4 * (parts[1] + parts[2])
    torch.testing.assert_close(BoostedLoss()(outputs, labels), expected)


def test_auxiliary_losses_that_see_some_rows_and_columns(case):
    logits, labels = case
    outputs = [logits, logits[:, :, :3, :4]]
    scores, few = (full_size(output, labels) for output in outputs)
    parts = [
        F.cross_entropy(scores, labels, ignore_index=255),
        F.cross_entropy(few[:, :, 1::3, 1::3], labels[:, 1::3, 1::3], ignore_index=255),
    ]
    found = BoostedLoss(auxiliary=(Auxiliary(0.4),), every=3)(outputs, labels)
    torch.testing.assert_close(found, parts[0] + 0.4 * parts[1])
    edges = logits[:, :1]  # these are of neighbours: every pixel is seen
    alone = BoostedLoss(auxiliary=(Auxiliary(20, "edges"),))([logits, edges], labels)
    apart = BoostedLoss(auxiliary=(Auxiliary(20, "edges"),), every=3)([logits, edges], labels)
    torch.testing.assert_close(apart, alone)


def test_auxiliary_outputs_count_by_their_weights(case):
    logits, labels = case
    edges = logits[:, :1]
    auxiliary = (Auxiliary(0.16), Auxiliary(20, "edges"))
    found = BoostedLoss(auxiliary=auxiliary)([logits, logits[:, :, :3], edges], labels)
    scores, extra = (
        F.cross_entropy(full_size(x, labels), labels, ignore_index=255)
        for x in (logits, logits[:, :, :3])
    )
    total, count = EdgeLoss().sums(edges, labels)
    torch.testing.assert_close(found, scores + 0.16 * extra + 20 * total / count)
    with pytest.raises(ValueError, match="zip"):  # an output that has no weight
        BoostedLoss(auxiliary=auxiliary)([logits] * 2, labels)


def test_edges_are_where_another_class_is_near():
    labels = torch.zeros(1, 9, 12, dtype=torch.int64)
    labels[:, :, 6:] = 3
    labels[:, 0, :] = 255
    expected = torch.zeros(1, 9, 12, dtype=torch.bool)
    expected[:, 1:, 4:8] = True  # four wide; void is neither a class nor an edge
    assert torch.equal(edges_of(labels), expected)


def test_edges_weigh_as_much_as_all_else_of_their_image():
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 3, (3, 1, 2, 3), generator=generator).float()
    labels = F.interpolate(labels, (24, 36))[:, 0].long()
    labels[1, :5] = 255
    labels[2] = 255
    logits = torch.randn(3, 1, 6, 9, generator=generator).requires_grad_()
    total, count = EdgeLoss().sums(logits, labels.byte())
    expected = torch.zeros((), dtype=torch.float64)
    large = full_size(logits.double(), labels)[:, 0]
    for image, truth in zip(large[:2], labels[:2], strict=True):
        valid = truth != 255
        edge = edges_of(truth[None])[0][valid]
        share = edge.double().mean()
        losses = torch.where(edge, -F.logsigmoid(image[valid]), -F.logsigmoid(-image[valid]))
        expected += (torch.where(edge, 1 - share, share) * losses).mean()
    assert count == 2
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
    (slope,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-7)


def test_a_batch_without_labels_costs_nothing(case):
    logits, labels = case
    both = (Auxiliary(), Auxiliary(target="edges"))
    outputs = [logits, logits, logits[:, :1]]
    loss = BoostedLoss(auxiliary=both)(outputs, torch.full_like(labels, 255))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient == 0).all()


def test_low_precision_logits_are_scored_in_float32(case):
    logits, labels = case
    half = logits.detach().bfloat16().requires_grad_()
    total, weight = PixelLoss().sums(half, labels)
    expected = F.cross_entropy(full_size(half.detach().float(), labels), labels, ignore_index=255)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total / weight, expected)
    total.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


class Masks:
    """Two frames: class 0 four times, class 1 twice, class 2 never, and void."""

    masks = np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 255, 0, 1]], np.uint8)

    def __len__(self):
        return len(self.masks)

    def load(self, index: int):
        return None, self.masks[index]


def test_rare_classes_weigh_more():
    shares = (4 / 6, 2 / 6, 0.0)
    expected = [1 / math.log(1.02 + share) for share in shares]
    assert class_weights(Masks(), 3, 1.02) == pytest.approx(expected)
    assert class_weights(Masks(), 3, 0.0) is None


def test_there_is_nothing_to_balance_where_all_is_void():
    void = Masks()
    void.masks = (np.full((2, 2), 255, np.uint8),)
    with pytest.raises(UserError, match="no labelled pixel in the training split"):
        class_weights(void, 3, 1.02)
