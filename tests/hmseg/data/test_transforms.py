"""The augmentation: image and mask move together, sizes and fill, determinism; normalisation."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from hmseg.data.normalise import MEAN, STD, normalise
from hmseg.data.transforms import Augmentation, paste_classes


def columns(height: int, width: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertical stripes whose grey value is 20 times their label."""
    labels = np.broadcast_to(np.arange(width) // step, (height, width)).astype(np.uint8)
    return np.repeat((labels * 20)[..., None], 3, 2), labels


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.9])
def test_image_and_mask_stay_aligned(scale: float):
    image, labels = columns(120, 160, 16)
    augment = Augmentation(scale=(scale, scale), colour=0)
    for seed in range(20):
        out, out_labels = augment(image, labels, (100, 140), np.random.default_rng(seed))
        assert out.shape == (100, 140, 3)
        valid = out_labels != 255
        agree = np.abs(out[..., 0].astype(int) - 20 * out_labels.astype(int)) <= 10
        # Bilinear and nearest differ only next to a stripe's edge.
        assert agree[valid].mean() > 0.8
        visible = min(1, 120 * scale / 100) * min(1, 160 * scale / 140)
        assert valid.mean() == pytest.approx(visible, abs=0.02)
        # What is outside the image has the mean colour.
        assert (out[~valid] == np.round(255 * np.array(MEAN))).all()


def test_scale_one_and_a_whole_crop_change_nothing():
    image, labels = columns(120, 160, 16)
    augment = Augmentation(scale=(1, 1), colour=0, flip=False)
    out, out_labels = augment(image, labels, (120, 160), np.random.default_rng(0))
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(out_labels, labels)


def test_the_scale_is_what_was_asked_for():
    image, labels = columns(200, 200, 10)
    augment = Augmentation(scale=(2, 2), colour=0, flip=False)
    _, out = augment(image, labels, (100, 100), np.random.default_rng(0))
    widths = np.diff(np.flatnonzero(np.diff(out[0].astype(int))))
    assert set(widths) == {20}


def test_flip_mirrors_half_of_the_samples():
    image, labels = columns(64, 64, 8)
    augment = Augmentation(scale=(1, 1), colour=0)
    flipped = 0
    for seed in range(200):
        out, out_labels = augment(image, labels, (64, 64), np.random.default_rng(seed))
        is_flipped = out_labels[0, 0] == 7
        flipped += is_flipped
        np.testing.assert_array_equal(out, image[:, ::-1] if is_flipped else image)
    assert 70 < flipped < 130


def test_colour_changes_the_image_and_never_the_labels():
    image, labels = columns(64, 64, 8)
    augment = Augmentation(scale=(1, 1), flip=False)
    outs = [augment(image, labels, (64, 64), np.random.default_rng(seed)) for seed in range(5)]
    assert len({out.tobytes() for out, _ in outs}) == 5
    assert all((out_labels == labels).all() for _, out_labels in outs)


class Recorder:
    """A generator that keeps what it drew."""

    def __init__(self, seed: int) -> None:
        self.inner, self.drawn = np.random.default_rng(seed), []

    def __getattr__(self, name: str):
        def draw(*given):
            self.drawn.append(getattr(self.inner, name)(*given))
            return self.drawn[-1]

        return draw


@pytest.mark.parametrize("seed", range(8))
def test_colour_and_flip_are_what_pillow_and_numpy_make_in_the_plain_way(seed: int):
    image = np.random.default_rng(9).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    labels = image[..., 0] % 11
    augment = Augmentation(scale=(0.6, 1.4))
    plain, plain_labels = Augmentation(scale=(0.6, 1.4), flip=False, colour=0)(
        image, labels, (80, 100), np.random.default_rng(seed)
    )
    rng = Recorder(seed)
    out, out_labels = augment(image, labels, (80, 100), rng)
    *_, factors, flip = rng.drawn
    rows, columns = (np.flatnonzero((plain_labels != 255).any(axis)) for axis in (1, 0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    patch = Image.fromarray(plain[inside])
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhancer, factor in zip(enhancers, factors, strict=True):
        patch = enhancer(patch).enhance(float(factor))
    expected = plain.copy()
    expected[inside] = np.asarray(patch)
    mirror = -1 if flip < 0.5 else 1
    np.testing.assert_array_equal(out, expected[:, ::mirror])
    np.testing.assert_array_equal(out_labels, plain_labels[:, ::mirror])


def test_the_same_generator_gives_the_same_sample():
    image, labels = columns(120, 160, 16)
    first, second = (
        Augmentation()(image, labels, (90, 90), np.random.default_rng((3, 1, 5))) for _ in "ab"
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_normalise_against_float64():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    expected = (image.astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    result = normalise(image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_blur_and_grey_leave_the_labels_alone():
    image, labels = columns(64, 64, 8)
    image = image * np.array([1, 0, 1], np.uint8)
    still = {"scale": (1.0, 1.0), "colour": 0.0, "flip": False}
    blurred, same = Augmentation(**still, blur=4)(image, labels, (64, 64), np.random.default_rng(3))
    np.testing.assert_array_equal(same, labels)
    steps = [np.abs(np.diff(x[..., 0].astype(int), axis=1)).max() for x in (image, blurred)]
    assert steps[1] < steps[0]
    grey, same = Augmentation(**still, grey=1)(image, labels, (64, 64), np.random.default_rng(3))
    np.testing.assert_array_equal(same, labels)
    assert (grey == grey[..., :1]).all()
    plain, _ = Augmentation(**still)(image, labels, (64, 64), np.random.default_rng(3))
    np.testing.assert_array_equal(plain, image)


def test_half_of_the_classes_of_another_crop_are_pasted_whole():
    image, labels = columns(64, 64, 16)  # classes 0 to 3
    other_labels = np.repeat(np.array([4, 5, 6, 255], np.uint8), 16)[:, None].repeat(64, 1)
    other = np.repeat((other_labels // 2)[..., None], 3, 2)
    seen = set()
    for seed in range(20):
        out, out_labels = paste_classes(
            image, labels, other, other_labels, np.random.default_rng(seed)
        )
        pasted = tuple(c for c in (4, 5, 6) if (out_labels == c).any())
        seen.add(pasted)
        assert len(pasted) == 2
        taken = np.isin(other_labels, pasted)
        np.testing.assert_array_equal(out[taken], other[taken])
        np.testing.assert_array_equal(out[~taken], image[~taken])
        np.testing.assert_array_equal(out_labels, np.where(taken, other_labels, labels))
    assert len(seen) == 3
    void = np.full_like(labels, 255)
    out, out_labels = paste_classes(image, labels, other, void, np.random.default_rng(0))
    np.testing.assert_array_equal(out_labels, labels)
    np.testing.assert_array_equal(out, image)
