"""A street drawn by our own code: the default image, free of anyone's rights.

It is drawn like a frame of CamVid, which the released weights know: a bright sky, dark things below
it, seen from a car. What each pixel is meant to be is drawn beside it, so that it can be told how
well a network does.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from deploy.resolution import Resolution

_OVERSAMPLING = 2  # drawn larger, then shrunk, for soft edges
_MAX_DRAWN_SIDE = 4096
_MOST_FINE_PIXELS = 512 * 1024  # above, noise of 2x2 pixels and less grain
_Colour = tuple[int, int, int]
_Point = tuple[float, float, float]  # metres: to the right of the camera, above the road, ahead
# CamVid's classes; there is no fence.
SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, _, CAR, PEDESTRIAN = range(10)
# How rough each is: the standard deviation of its brightness, beside what is drawn in detail.
_ROUGHNESS = {BUILDING: 2, ROAD: 3, PAVEMENT: 4, TREE: 14, CAR: 2, PEDESTRIAN: 3}
_BLACK, _GLASS, _STEEL = (16, 16, 18), (22, 25, 28), (70, 72, 76)


def draw_street(resolution: Resolution) -> NDArray[np.uint8]:
    """The same street for every call: uint8 (H, W, 3), RGB."""
    size = (resolution.width, resolution.height)
    street = _Street(resolution)
    smooth = street.picture.filter(ImageFilter.GaussianBlur(street.height / 700))
    pixels = np.asarray(smooth.resize(size, Image.Resampling.BICUBIC))
    noisy: NDArray[np.uint8] = np.clip(pixels + _noise(_labels(street, size)), 0, 255).astype("u1")
    return noisy


def street_labels(resolution: Resolution) -> NDArray[np.uint8]:
    """What the pixels of `draw_street` are meant to be: CamVid's classes, uint8 (H, W)."""
    return _labels(_Street(resolution), (resolution.width, resolution.height))


def _labels(street: "_Street", size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(street.labels.resize(size, Image.Resampling.NEAREST))


def _noise(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each surface's roughness, of several sizes, and a camera's grain: (H, W, 1).

    Both are coarse enough that the golden image still compresses.
    """
    rng = np.random.default_rng(7)
    rough = np.zeros(256, np.float32)
    rough[list(_ROUGHNESS)] = list(_ROUGHNESS.values())
    cell = 1 if labels.size <= _MOST_FINE_PIXELS else 2
    height, width = (-(-side // cell) for side in labels.shape)
    clouds = np.zeros((height, width), np.float32)
    for cells in (16, 40, 100):
        small = Image.fromarray(rng.normal(size=(cells, 2 * cells)).astype(np.float32))
        clouds += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)) / 1.2
    most = 3 if cell == 1 else 2
    grain = rng.integers(-most, most + 1, (height, width)).astype(np.float32)
    clouds, grain = (
        part.repeat(cell, 0).repeat(cell, 1)[: labels.shape[0], : labels.shape[1]]
        for part in (clouds, grain)
    )
    return (clouds * rough[labels] + grain)[..., None]


class _Street:
    """The picture and its labels, larger than the resolution; what is near is drawn last.

    The camera is 1.4 m above the middle of the road; (0.5, horizon) of the image is straight ahead.
    """

    horizon, camera = 0.47, 1.4
    wide, tall = 0.55, 1.1  # what one metre takes of the image's width and height, 1 m ahead
    kerb, wall = 4.6, 9.0  # how far from the middle they are

    def __init__(self, resolution: Resolution) -> None:
        scale = _OVERSAMPLING * min(1.0, _MAX_DRAWN_SIDE / (max(resolution) * _OVERSAMPLING))
        self.height, self.width = (max(1, round(side * scale)) for side in resolution)
        self.picture = Image.new("RGB", (self.width, self.height))
        self.labels = Image.new("L", (self.width, self.height), SKY)
        self.canvas, self.mask = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.labels)
        self.rng = np.random.default_rng(3)
        self._sky()
        self._ground()
        for side in (-1, 1):
            for near, far in reversed(
                list(pairwise(np.cumsum([5.5, *self.rng.uniform(6, 11, 14)])))
            ):
                self._house(side, float(near), float(far))
        for x, z in ((0.6, 95), (-7.2, 60), (7.2, 52), (-6.8, 36), (7.0, 30), (-6.6, 20)):
            self._tree(x, z, 8)
        for x, z in ((-5.0, 44), (5.0, 34), (-5.0, 26), (5.0, 15)):
            self._lamp(x, z)
        self._car(-1.8, 40, (150, 150, 155))
        self._car(3.0, 30, (35, 35, 40))
        self._car(-3.2, 19, (60, 20, 22))
        self._car(3.1, 17, (28, 36, 52))
        self._car(1.7, 9.5, (48, 50, 55))
        self._person(6.2, 14, (30, 30, 36))
        self._person(-6.3, 11, (40, 32, 34))
        self._person(6.7, 9.6, (34, 28, 28))
        self._person(6.1, 9.3, (24, 28, 40))
        self._sign(-5.2, 9.5)

    # Shapes, from metres to the image

    def _at(self, point: _Point) -> tuple[float, float]:
        x, y, z = point
        return (
            (0.5 + self.wide * x / z) * self.width,
            (self.horizon - self.tall * (y - self.camera) / z) * self.height,
        )

    def _face(self, kind: int, colour: _Colour, *corners: _Point) -> None:
        points = [self._at(corner) for corner in corners]
        self.canvas.polygon(points, fill=colour)
        self.mask.polygon(points, fill=kind)

    def _front(
        self, kind: int, colour: _Colour, z: float, low: tuple[float, float, float],
        high: tuple[float, float, float], back: float = 0.0,
    ) -> None:  # fmt: skip
        """What faces the camera: left, right and height of the lower and of the upper edge, which
        may lie further back."""
        (a, b, y), (c, d, top), far = low, high, z + back
        self._face(kind, colour, (a, y, z), (b, y, z), (d, top, far), (c, top, far))

    def _side(
        self, kind: int, colour: _Colour, x: float, near: float, far: float, low: float, high: float
    ) -> None:
        """What stands along the road."""
        self._face(kind, colour, (x, low, near), (x, low, far), (x, high, far), (x, high, near))

    def _flat(
        self, kind: int, colour: _Colour, one: float, other: float, near: float, far: float,
        y: float = 0.0,
    ) -> None:  # fmt: skip
        """What lies, from one x to the other."""
        self._face(kind, colour, (one, y, near), (other, y, near), (other, y, far), (one, y, far))

    def _disc(self, kind: int, colour: _Colour, middle: _Point, wide: float, tall: float) -> None:
        x, y, z = middle
        box = [self._at((x - wide / 2, y + tall / 2, z)), self._at((x + wide / 2, y - tall / 2, z))]
        self.canvas.ellipse(box, fill=colour)
        self.mask.ellipse(box, fill=kind)

    def _grey(self, least: int, most: int, tint: _Colour = (0, 0, 0)) -> _Colour:
        grey = int(self.rng.integers(least, most))
        return (grey + tint[0], grey + tint[1], grey + tint[2])

    # What is in the street

    def _sky(self) -> None:
        steps = 64
        for i in range(steps):
            t = i / steps
            box = [0, t * 0.6 * self.height, self.width, (t + 1 / steps) * 0.6 * self.height]
            self.canvas.rectangle(
                box, fill=(int(196 + 54 * t), int(218 + 34 * t), int(236 + 16 * t))
            )

    def _ground(self) -> None:
        near, far = 1.2, 400.0
        self._flat(PAVEMENT, (96, 94, 92), -60, 60, near, far)
        self._flat(ROAD, (78, 80, 84), -self.kerb, self.kerb, near, far)
        for side in (-1, 1):
            kerb, stone, wall = side * self.kerb, side * (self.kerb + 0.2), side * self.wall
            self._side(PAVEMENT, (60, 58, 58), kerb, near, far, 0, 0.14)
            self._flat(PAVEMENT, (132, 130, 126), kerb, stone, near, far, 0.14)
            self._flat(PAVEMENT, (98, 96, 94), stone, wall, near, far, 0.14)
            for z in np.geomspace(3, 60, 60):  # joints
                self._flat(PAVEMENT, (80, 78, 77), stone, wall, z, z * 1.004, 0.14)
            self._flat(ROAD, (150, 140, 90), side * 4.2, side * 4.3, near, far)
        for z in range(3, 120, 6):
            self._flat(ROAD, (188, 188, 184), -0.08, 0.08, z, z + 2.5)
        for _ in range(60):  # patches
            x, z = self.rng.uniform(-4, 4), self.rng.uniform(3, 30)
            self._flat(ROAD, self._grey(70, 84, (0, 1, 4)), x - 0.3, x + 0.3, z, z * 1.2)

    def _house(self, side: int, near: float, far: float) -> None:
        x, tall = side * self.wall, float(self.rng.uniform(6.5, 10))
        tints = ((34, 6, -8), (20, 10, 0), (6, 3, 0), (60, 54, 40))
        wall = self._grey(62, 96, tints[int(self.rng.integers(len(tints)))])
        self._side(BUILDING, wall, x, near, far, 0, tall)
        # The next one may be lower.
        self._front(BUILDING, wall, far, (x, x + side * 6, 0), (x, x + side * 6, tall))
        self._side(BUILDING, self._grey(90, 130), x, near, far, tall - 0.25, tall)
        columns = max(2, int((far - near) // 2.2))
        for floor in range(int(tall // 3)):
            for column in range(columns):
                a, b = (near + (far - near) * (column + part) / columns for part in (0.25, 0.75))
                door = floor == 0 and column % 3 == 1
                self._window(x, a, b, 3 * floor + (0.2 if door else 1.0), 3 * floor + 2.5)

    def _window(self, x: float, near: float, far: float, low: float, high: float) -> None:
        """The frame, the glass, the sky in its upper half, and a bar."""
        middle = (low + high) / 2
        self._side(
            BUILDING, self._grey(130, 190), x, near - 0.12, far + 0.12, low - 0.12, high + 0.12
        )
        self._side(BUILDING, self._grey(20, 50, (0, 3, 6)), x, near, far, low, high)
        self._side(BUILDING, self._grey(60, 120, (0, 4, 8)), x, near, far, middle, high)
        self._side(BUILDING, self._grey(130, 190), x, near, far, middle - 0.06, middle + 0.06)

    def _tree(self, x: float, z: float, tall: float) -> None:
        self._front(TREE, (38, 34, 30), z, (x - 0.18, x + 0.18, 0), (x - 0.18, x + 0.18, tall / 2))
        for _ in range(420):
            turn = self.rng.uniform(0, math.tau)
            reach = 0.32 * tall * math.sqrt(self.rng.uniform())
            dx, dy = reach * math.cos(turn), reach * math.sin(turn)
            size = float(self.rng.uniform(0.03, 0.08)) * tall
            green = self.rng.integers(28, 92) * (1 + 0.8 * dy / tall)
            colour = (int(green * 0.86), int(green), int(green * 0.6))
            self._disc(TREE, colour, (x + dx, tall * 0.66 + dy, z), size, size)

    def _lamp(self, x: float, z: float) -> None:
        self._front(POLE, _STEEL, z, (x - 0.08, x + 0.08, 0), (x - 0.08, x + 0.08, 7))
        end = x - math.copysign(1.6, x)
        self._face(POLE, _STEEL, (x, 6.9, z), (end, 7.1, z), (end, 7.25, z), (x, 7.05, z))

    def _sign(self, x: float, z: float) -> None:
        self._front(POLE, (88, 88, 92), z, (x - 0.05, x + 0.05, 0), (x - 0.05, x + 0.05, 2.4))
        self._front(SIGN, (168, 30, 34), z, (x - 0.45, x + 0.45, 2.3), (x, x, 3.1))
        self._front(SIGN, (225, 225, 220), z, (x - 0.27, x + 0.27, 2.4), (x, x, 2.88))

    def _car(self, x: float, z: float, colour: _Colour) -> None:
        """From behind; of its sides that towards the middle of the road."""
        half, far = 0.85, z + 4
        side, roof = (x - math.copysign(by, x) for by in (half, half - 0.12))
        dark = (colour[0] * 6 // 10, colour[1] * 6 // 10, colour[2] * 6 // 10)
        light = (colour[0] * 3 // 2 + 14, colour[1] * 3 // 2 + 14, colour[2] * 3 // 2 + 14)
        self._flat(ROAD, (26, 26, 28), x - 1, x + 1, z - 0.3, far, 0.01)  # its shadow
        for end in (z + 0.7, far - 0.8):
            self._side(CAR, _BLACK, side, end - 0.3, end + 0.3, 0, 0.62)
        self._side(CAR, dark, side, z, far, 0.22, 0.9)
        for tone, low, high, near in ((dark, 0.9, 1.42, z), (_GLASS, 1.0, 1.35, z + 0.4)):
            self._face(
                CAR, tone, (side, low, near), (side, low, far - 1.2), (roof, high, far - 1.9),
                (roof, high, near + 0.3),
            )  # fmt: skip
        for wheel in (x - 0.6, x + 0.6):
            self._front(
                CAR, _BLACK, z, (wheel - 0.12, wheel + 0.12, 0), (wheel - 0.12, wheel + 0.12, 0.4)
            )
        self._front(CAR, colour, z, (x - half, x + half, 0.2), (x - half, x + half, 0.95))
        self._front(CAR, dark, z, (x - half, x + half, 0.2), (x - half, x + half, 0.42))
        self._front(CAR, colour, z, (x - half, x + half, 0.95), (x - 0.66, x + 0.66, 1.42), 0.4)
        self._front(CAR, _GLASS, z, (x - 0.7, x + 0.7, 0.98), (x - 0.58, x + 0.58, 1.36), 0.35)
        self._front(CAR, (84, 92, 98), z, (x - 0.2, x + 0.6, 1), (x + 0.1, x + 0.5, 1.34), 0.35)
        self._front(CAR, light, z, (x - 0.8, x + 0.8, 0.88), (x - 0.8, x + 0.8, 0.95))
        for lamp in (x - 0.7, x + 0.7):
            self._front(
                CAR,
                (128, 22, 20),
                z,
                (lamp - 0.13, lamp + 0.13, 0.62),
                (lamp - 0.13, lamp + 0.13, 0.84),
            )
        self._front(CAR, (196, 180, 96), z, (x - 0.26, x + 0.26, 0.5), (x - 0.26, x + 0.26, 0.63))

    def _person(self, x: float, z: float, coat: _Colour) -> None:
        for step in (-1, 1):
            hip, foot, arm = x + step * 0.1, x + step * 0.22, x + step * 0.26
            self._front(
                PEDESTRIAN,
                _BLACK,
                z,
                (foot - 0.07, foot + 0.07, 0.1),
                (hip - 0.09, hip + 0.09, 0.9),
            )
            self._front(
                PEDESTRIAN,
                _BLACK,
                z,
                (arm, arm + step * 0.08, 0.85),
                (arm - 0.04, arm + 0.04, 1.43),
            )
        self._front(PEDESTRIAN, coat, z, (x - 0.24, x + 0.24, 0.8), (x - 0.22, x + 0.22, 1.48))
        self._disc(PEDESTRIAN, (120, 92, 80), (x, 1.62, z), 0.2, 0.27)
        self._disc(PEDESTRIAN, (30, 24, 20), (x, 1.68, z), 0.21, 0.17)
