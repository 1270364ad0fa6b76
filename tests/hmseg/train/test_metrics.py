"""mIoU over a whole split, against sets of pixels counted one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hmseg.data.batches import normalise_on
from hmseg.families.calibrate import calibrate_batch_norm
from hmseg.train.metrics import evaluate, torch_predictor
from hmseg.zoo import create_model


class Frames:
    def __init__(self, masks):
        self.masks = masks

    def __len__(self):
        return len(self.masks)

    def load(self, index: int):
        return np.full((*self.masks[index].shape, 3), index, np.uint8), self.masks[index]


def test_miou_accumulates_over_the_split_and_ignores_void():
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 1, 2, 255], (20, 30)).astype(np.uint8) for _ in range(4)]
    guesses = [rng.integers(0, 3, (20, 30)) for _ in range(4)]
    confusion = evaluate(lambda image: guesses[image[0, 0, 0]], Frames(masks), 3)
    expected = []
    for cls in range(3):
        both = either = 0
        for mask, guess in zip(masks, guesses, strict=True):
            for m, g in zip(mask.ravel(), guess.ravel(), strict=True):
                if m != 255:
                    both += m == cls and g == cls
                    either += m == cls or g == cls
        expected.append(both / either)
    np.testing.assert_allclose(confusion.iou, expected)
    assert confusion.miou == pytest.approx(np.mean(expected))


def test_labels_by_a_peer_are_of_the_frame_s_size():
    torch.manual_seed(0)
    model = create_model("dfanet-b", num_classes=5)
    calibrate_batch_norm(model, size=(64, 64))
    image = np.random.default_rng(1).integers(0, 256, (70, 66, 3), dtype=np.uint8)
    labels = torch_predictor(model)(image)
    assert labels.shape == (70, 66)
    padded = np.pad(image, ((0, 58), (0, 62), (0, 0)), mode="edge")
    pixels = torch.tensor(padded).permute(2, 0, 1)[None]
    pixels = normalise_on(torch.device("cpu"), pixels, torch.float32)
    with torch.inference_mode():
        scores = F.interpolate(model(pixels), (128, 128), mode="bilinear")
    np.testing.assert_array_equal(labels, scores[0].argmax(0)[:70, :66])
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("size", [(50, 80), (80, 50), (70, 66)])
def test_labels_of_a_frame_that_is_smaller_than_the_network_takes(size):
    torch.manual_seed(0)
    model = create_model("tiny-mrms", num_classes=5)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = torch_predictor(model)(image)
    assert labels.shape == size
    missing = [(0, max(0, 64 - side)) for side in size]
    padded = np.pad(image, (*missing, (0, 0)), mode="edge")
    np.testing.assert_array_equal(labels, torch_predictor(model)(padded)[: size[0], : size[1]])
