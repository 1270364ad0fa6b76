"""Data sets in their exact layouts, made of noise: a few small frames each."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 72, 96  # height, width


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def frame(rng: np.random.Generator, labels: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """An image whose colours give its mask away, so that a network can learn it."""
    blocks = rng.choice(len(labels), (SIZE[0] // 12, SIZE[1] // 12)).repeat(12, 0).repeat(12, 1)
    mask = np.array(labels, np.uint8)[blocks]
    colours = np.random.default_rng(7).integers(0, 256, (len(labels), 3))
    noise = rng.integers(-10, 10, (*SIZE, 3))
    return (colours[blocks] + noise).clip(0, 255).astype(np.uint8), mask


def make_camvid(root: Path, train: int = 8, val: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            image, mask = frame(rng, list(range(12)))
            save(root / split / f"0001TP_{index:06d}.png", image)
            save(root / f"{split}annot" / f"0001TP_{index:06d}.png", mask)
    return root


def make_cityscapes(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "munster")):
        for index in range(2):
            image, mask = frame(rng, [*range(34), 255])
            stem = f"{city}_{index:06d}_000019"
            save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
            save(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", mask)
            save(root / "gtFine" / split / city / f"{stem}_gtFine_color.png", image)
    save(root / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png", image)
    return root


def make_lip(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, names in (("train", ("77_12", "99_1")), ("val", ("100034_483681",))):
        for name in names:
            image, mask = frame(rng, list(range(20)))
            save(root / "TrainVal_images" / f"{split}_images" / f"{name}.jpg", image)
            masks = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
            save(masks / f"{name}.png", mask)
    save(root / "Testing_images" / "testing_images" / "1_2.jpg", image)
    return root
