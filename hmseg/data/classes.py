"""Class names and palettes of the data sets. No torch: export and run need them too."""

import colorsys
from dataclasses import dataclass

from lut.errors import UserError

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassSet:
    """The classes of one data set in label order, with an RGB colour each."""

    name: str
    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise UserError(f"{self.name}: {len(self.names)} names, {len(self.palette)} colours")

    def __len__(self) -> int:
        return len(self.names)


def generic_classes(count: int) -> ClassSet:
    """`count` unnamed classes with well-spread colours (golden-ratio steps of the hue)."""

    def colour(index: int) -> Colour:
        hue, value = index * 0.618034 % 1, (0.95, 0.7, 0.5)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
        return round(red * 255), round(green * 255), round(blue * 255)

    names = tuple(f"class {i}" for i in range(count))
    return ClassSet("generic", names, tuple(colour(i) for i in range(count)))


def binary_classes() -> ClassSet:
    """What one score tells apart."""
    return ClassSet("binary", ("background", "class 1"), ((0, 0, 0), generic_classes(1).palette[0]))


CITYSCAPES = ClassSet(
    "cityscapes",
    (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    (
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip

CAMVID = ClassSet(
    "camvid",
    (
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip

LIP = ClassSet(
    "lip",
    (
        "background", "hat", "hair", "glove", "sunglasses", "upper clothes", "dress", "coat",
        "socks", "pants", "jumpsuits", "scarf", "skirt", "face", "left arm", "right arm",
        "left leg", "right leg", "left shoe", "right shoe",
    ),
    generic_classes(20).palette,
)  # fmt: skip

CLASS_SETS = {classes.name: classes for classes in (CITYSCAPES, CAMVID, LIP)}


def classes_for(count: int) -> ClassSet:
    """The data set that has `count` classes (19, 11, 20), else `count` unnamed ones."""
    by_count = {len(classes): classes for classes in CLASS_SETS.values()}
    return by_count.get(count) or generic_classes(count)
