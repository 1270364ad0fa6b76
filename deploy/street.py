"""A street drawn by our own code: the default image, free of anyone's rights."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from deploy.resolution import Resolution

_OVERSAMPLING = 2  # drawn larger, then shrunk, for soft edges
_MAX_DRAWN_SIDE = 4096
_MOST_FINE_PIXELS = 512 * 1024  # above, grain of 2x2 pixels
_Box = tuple[float, float, float, float]


def draw_street(resolution: Resolution) -> NDArray[np.uint8]:
    """The same street for every call: uint8 (H, W, 3), RGB."""
    longest = max(resolution) * _OVERSAMPLING
    scale = _OVERSAMPLING * min(1.0, _MAX_DRAWN_SIDE / longest)
    height, width = (max(1, round(side * scale)) for side in resolution)
    image = Image.new("RGB", (width, height))
    _Street(ImageDraw.Draw(image), height, width).draw()
    small = image.filter(ImageFilter.GaussianBlur(height / 600)).resize(
        (resolution.width, resolution.height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(small).astype(np.int16)
    # A camera's grain, coarse enough that the golden image still compresses.
    size = 1 if math.prod(resolution) <= _MOST_FINE_PIXELS else 2
    coarse = (-(-resolution.height // size), -(-resolution.width // size), 1)
    grain = np.random.default_rng(7).integers(-4, 5, coarse)
    grain = grain.repeat(size, 0).repeat(size, 1)[: resolution.height, : resolution.width]
    noisy: NDArray[np.uint8] = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return noisy


class _Street:
    """Coordinates are fractions of the image; (0.5, horizon) is the vanishing point."""

    horizon = 0.46

    def __init__(self, canvas: ImageDraw.ImageDraw, height: int, width: int) -> None:
        self.canvas, self.height, self.width = canvas, height, width
        self.rng = np.random.default_rng(3)

    def draw(self) -> None:
        self._sky()
        self._ground()
        for side in (-1, 1):
            self._buildings(side)
        for side, depth in ((-1, 0.30), (1, 0.38), (-1, 0.55)):
            self._tree(side, depth)
        self._pole(0.79, 0.10, 0.66)
        self._sign(0.79, 0.22)
        self._car(0.385, 0.585, 0.07, (150, 30, 35))
        self._car(0.60, 0.66, 0.13, (40, 60, 110))
        self._car(0.245, 0.74, 0.17, (205, 205, 210))
        self._person(0.875, 0.60, 0.27, (60, 70, 130))
        self._person(0.925, 0.62, 0.25, (120, 50, 60))
        self._person(0.165, 0.55, 0.14, (50, 90, 60))

    def _box(self, box: _Box, colour: tuple[int, int, int]) -> None:
        left, top, right, bottom = box
        self.canvas.rectangle(
            [
                left * self.width, top * self.height,
                max(left, right) * self.width, max(top, bottom) * self.height,
            ],
            fill=colour,
        )  # fmt: skip

    def _polygon(self, points: list[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        self.canvas.polygon([(x * self.width, y * self.height) for x, y in points], fill=colour)

    def _ellipse(self, box: _Box, colour: tuple[int, int, int]) -> None:
        left, top, right, bottom = box
        self.canvas.ellipse(
            [left * self.width, top * self.height, right * self.width, bottom * self.height],
            fill=colour,
        )

    def _sky(self) -> None:
        steps = 64
        for i in range(steps):
            t = i / steps
            colour = (int(120 + 95 * t), int(160 + 65 * t), int(215 + 20 * t))
            self._box((0, t * 0.6, 1, (i + 1) / steps * 0.6), colour)

    def _buildings(self, side: int) -> None:
        x, near = 0.5 + side * 0.055, 0.055
        while near < 0.62:
            far, near = near, near * 1.45 + 0.03
            shade = int(95 + self.rng.integers(0, 80))
            tone = (shade, int(shade * 0.88), int(shade * 0.78))
            tall = float(self.rng.uniform(0.75, 1.25))
            near_x = 0.5 + side * near
            tops = [self.horizon - tall * far * 0.9, self.horizon - tall * near * 0.9]
            feet = [self.horizon + far * 0.28, self.horizon + near * 0.28]
            wall = [(x, tops[0]), (near_x, tops[1]), (near_x, feet[1]), (x, feet[0])]
            self._polygon(wall, tone)
            self._windows(x, near_x, tops, feet, tone)
            x = near_x

    def _windows(
        self, far_x: float, near_x: float, tops: list[float], feet: list[float],
        tone: tuple[int, int, int],
    ) -> None:  # fmt: skip
        glass = (int(tone[0] * 0.45), int(tone[1] * 0.5), int(tone[2] * 0.62))
        for column in range(4):
            a, b = (column + 0.25) / 4, (column + 0.75) / 4
            for row in range(5):
                c, d = (row + 0.3) / 6, (row + 0.75) / 6
                corners = []
                for u, v in ((a, c), (b, c), (b, d), (a, d)):
                    top = tops[0] + (tops[1] - tops[0]) * u
                    foot = feet[0] + (feet[1] - feet[0]) * u
                    corners.append((far_x + (near_x - far_x) * u, top + (foot - top) * v))
                self._polygon(corners, glass)

    def _ground(self) -> None:
        self._box((0, self.horizon, 1, 1), (168, 160, 150))
        self._polygon([(0.5, self.horizon), (1.18, 1.0), (-0.18, 1.0)], (92, 92, 96))
        for side in (-1, 1):
            edge = 0.5 + side * 0.66
            self._polygon(
                [(0.5, self.horizon), (edge, 1.0), (edge + side * 0.025, 1.0)], (205, 205, 200)
            )
        for start in (0.03, 0.09, 0.19, 0.36, 0.64):
            end = start * 1.35
            top, bottom = (self.horizon + t * (1 - self.horizon) for t in (start, end))
            self._polygon(
                [
                    (0.5 - 0.012 * start, top), (0.5 + 0.012 * start, top),
                    (0.5 + 0.012 * end, bottom), (0.5 - 0.012 * end, bottom),
                ],
                (225, 225, 215),
            )  # fmt: skip

    def _tree(self, side: int, depth: float) -> None:
        x, foot = 0.5 + side * depth * 0.92, self.horizon + depth * 0.33
        size = depth * 0.42
        self._box((x - size * 0.05, foot - size, x + size * 0.05, foot), (84, 66, 48))
        for _ in range(26):
            dx, dy = self.rng.normal(0, size * 0.28), self.rng.normal(0, size * 0.33)
            radius = size * float(self.rng.uniform(0.15, 0.3))
            green = int(self.rng.integers(75, 135))
            cx, cy = x + dx, foot - size * 1.35 + dy
            self._ellipse(
                (cx - radius * 0.6, cy - radius, cx + radius * 0.6, cy + radius),
                (green // 2, green, green // 3),
            )

    def _pole(self, x: float, top: float, foot: float) -> None:
        self._box((x - 0.004, top, x + 0.004, foot), (120, 120, 124))

    def _sign(self, x: float, y: float) -> None:
        self._ellipse((x - 0.022, y - 0.044, x + 0.022, y + 0.044), (190, 40, 40))
        self._ellipse((x - 0.016, y - 0.032, x + 0.016, y + 0.032), (235, 235, 235))

    def _car(self, x: float, foot: float, size: float, colour: tuple[int, int, int]) -> None:
        half = size / 2
        self._ellipse(
            (x - half * 1.1, foot - size * 0.1, x + half * 1.1, foot + size * 0.09), (60, 60, 62)
        )
        for wheel in (-0.34, 0.34):
            cx = x + wheel * size
            self._box((cx - size * 0.08, foot - size * 0.2, cx + size * 0.08, foot), (25, 25, 27))
        self._box((x - half, foot - size * 0.62, x + half, foot - size * 0.12), colour)
        roof = [
            (x - half * 0.85, foot - size * 0.6), (x - half * 0.62, foot - size * 1.12),
            (x + half * 0.62, foot - size * 1.12), (x + half * 0.85, foot - size * 0.6),
        ]  # fmt: skip
        self._polygon(roof, colour)
        glass = [
            (x - half * 0.7, foot - size * 0.64), (x - half * 0.54, foot - size * 1.04),
            (x + half * 0.54, foot - size * 1.04), (x + half * 0.7, foot - size * 0.64),
        ]  # fmt: skip
        self._polygon(glass, (45, 55, 65))
        for lamp in (-0.42, 0.42):
            cx = x + lamp * size
            lamp_box = (cx - size * 0.05, foot - size * 0.5, cx + size * 0.05, foot - size * 0.38)
            self._box(lamp_box, (210, 60, 50))

    def _person(self, x: float, foot: float, size: float, coat: tuple[int, int, int]) -> None:
        wide = size * 0.11
        for leg in (-0.45, 0.45):
            cx = x + leg * wide
            self._box((cx - wide * 0.3, foot - size * 0.48, cx + wide * 0.3, foot), (45, 45, 55))
        self._box((x - wide, foot - size * 0.84, x + wide, foot - size * 0.42), coat)
        head = (x - wide * 0.5, foot - size, x + wide * 0.5, foot - size * 0.83)
        self._ellipse(head, (205, 165, 140))
