"""The one augmentation of all data sets: random scale, crop, flip and colour; where asked for, also
blur, grey pictures, and classes of another frame pasted in.

All randomness of a sample comes from the generator that is handed in, so a sample can be made
again, by any process, from its number alone.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageStat

from hmseg.data.dataset import VOID, Array
from hmseg.data.normalise import MEAN

FILL = tuple(round(255 * value) for value in MEAN)  # normalises to about zero


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; `colour` is the largest relative change of brightness,
    contrast and saturation (0: none), `blur` the largest radius in pixels, `grey` and `mix` are
    probabilities. What is 0 draws no random number: samples are as if it were not there."""

    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    colour: float = 0.3
    blur: float = 0.0
    grey: float = 0.0
    mix: float = 0.0

    def __call__(
        self, image: Array, labels: Array, crop: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """A random crop of (H, W) pixels of the randomly scaled image.

        Where the scaled image is smaller than the crop, the rest is the mean colour and void.
        """
        height, width = labels.shape
        # Log-uniform: halving is as likely as doubling.
        scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        # The crop's window in the coordinates of the unscaled image. Only the window is resampled.
        window = crop[0] / scale, crop[1] / scale
        top, bottom, out_top, out_bottom = _window(window[0], height, crop[0], rng)
        left, right, out_left, out_right = _window(window[1], width, crop[1], rng)
        size, box = (out_right - out_left, out_bottom - out_top), (left, top, right, bottom)
        patch = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box)
        mask = Image.fromarray(labels).resize(size, Image.Resampling.NEAREST, box=box)
        patch = self._spoil(self._recolour(patch, rng), rng)
        if self.flip and rng.random() < 0.5:
            # Before the padding: numpy takes ten times as long to copy a mirrored image.
            patch, mask = (
                picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for picture in (patch, mask)
            )
            out_left, out_right = crop[1] - out_right, crop[1] - out_left
        if patch.size == (crop[1], crop[0]):
            return np.asarray(patch), np.asarray(mask)
        out = np.empty((*crop, 3), np.uint8)
        out[:] = np.full((crop[1], 3), FILL, np.uint8)  # whole rows: pixel by pixel is slow
        out_labels = np.full(crop, VOID, np.uint8)
        out[out_top:out_bottom, out_left:out_right] = np.asarray(patch)
        out_labels[out_top:out_bottom, out_left:out_right] = np.asarray(mask)
        return out, out_labels

    def _recolour(self, patch: Image.Image, rng: np.random.Generator) -> Image.Image:
        if not self.colour:
            return patch
        brightness, contrast, saturation = rng.uniform(1 - self.colour, 1 + self.colour, 3).tolist()
        patch = _blend_with(0, patch, brightness)
        grey = int(ImageStat.Stat(patch.convert("L")).mean[0] + 0.5)
        patch = _blend_with(grey, patch, contrast)
        return ImageEnhance.Color(patch).enhance(saturation)

    def _spoil(self, patch: Image.Image, rng: np.random.Generator) -> Image.Image:
        """What takes information away."""
        if self.blur:
            patch = patch.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, self.blur))))
        if self.grey and rng.random() < self.grey:
            patch = patch.convert("L").convert("RGB")
        return patch


def paste_classes(
    image: Array, labels: Array, other: Array, other_labels: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A crop with half of the classes of another one pasted in, chosen at random (ClassMix, Olsson
    et al., WACV 2021); unchanged where the other is all void."""
    there = np.unique(other_labels)
    there = there[there != VOID]
    chosen = rng.permutation(there)[: (len(there) + 1) // 2]
    pasted = np.isin(other_labels, chosen)
    return np.where(pasted[..., None], other, image), np.where(pasted, other_labels, labels)


def _blend_with(level: int, patch: Image.Image, factor: float) -> Image.Image:
    """`ImageEnhance`'s brightness (level 0) and contrast (the mean grey): the same numbers, but the
    256 values are blended once instead of every pixel, which releases the interpreter lock too."""
    every = Image.frombytes("L", (256, 1), bytes(range(256)))
    table = Image.blend(Image.new("L", every.size, level), every, factor).tobytes()
    return patch.point(list(table) * 3)


def _window(
    window: float, side: int, crop: int, rng: np.random.Generator
) -> tuple[float, float, int, int]:
    """Start and end of the crop's window in the image, and where they land in the output."""
    if window <= side:
        start = float(rng.uniform(0, side - window))
        return start, min(float(side), start + window), 0, crop
    covered = max(1, round(crop * side / window))
    at = int(rng.integers(0, crop - covered + 1))
    return 0.0, float(side), at, at + covered
