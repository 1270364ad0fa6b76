"""Small real videos, made and read back by PyAV alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

TICK = Fraction(1, 90000)  # seconds, of `times`
FASTSTART = {"movflags": "faststart"}  # the index in front, so that a part can be played
# A codec and pixels that lose nothing of RGB, in .mov.
LOSSLESS = {"codec": "png", "pixels": "rgb24"}


def pictures(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Flat patches, which survive a lossy codec, of a colour that changes from one to the next; no
    two of the eight ways to turn and mirror them look alike."""
    made = []
    for number in range(count):
        image = np.full((height, width, 3), (40, 160, 90), np.uint8)
        image[: height // 2, : width // 2] = (200, 60, 30)
        image[: height // 4, width // 2 :] = (30, 60, 10 + 40 * (number % 6))
        made.append(image)
    return made


def noise(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Nothing that compresses: a share of the file holds about that share of the frames."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


def write_video(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int | Fraction = 25,
    times: Sequence[int] | None = None,
    turn: tuple[int, bool, bool] | None = None,
    options: dict[str, str] | None = None,
    size: tuple[int, int] | None = None,
    **settings: object,
) -> Path:
    """Write RGB images as a video. times: in TICK, else at the rate. turn: degrees counterclockwise
    that it is to be shown at, then whether mirrored across and down. options: of the container.
    settings: of the codec's context."""
    import av

    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size or images[0].shape[:2]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = TICK
        if turn is not None:
            stream.set_display_rotation(*turn)
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        if not images:
            container.start_encoding()
        colours = "ITU709" if settings.get("colorspace") == 1 else None
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pixels, dst_colorspace=colours)
            if times is not None:
                frame.pts, frame.time_base = times[number], TICK
            else:
                frame.pts, frame.time_base = number, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        if images:
            container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> list[tuple[np.ndarray, Fraction]]:
    """Its frames in RGB with their times in seconds; fails for damage."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [
            (frame.to_ndarray(format="rgb24"), frame.pts * frame.time_base)
            for frame in container.decode(stream)
        ]


def rate_of(path: Path) -> Fraction:
    import av

    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate


def cut(path: Path, share: float) -> Path:
    """The first part of a file, beside it."""
    data = path.read_bytes()
    short = path.with_name(f"cut-{path.name}")
    short.write_bytes(data[: int(len(data) * share)])
    return short
