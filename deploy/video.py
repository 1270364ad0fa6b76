"""A video in, the same with coloured overlays out: decoding, the network and drawing overlap."""

import re
import stat
import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.belt import Belt
from deploy.images import draw_overlay, find_images, to_channels
from deploy.resolution import Resolution
from deploy.runtime import Network
from deploy.segment import found_at, given_for
from deploy.video_file import Reader, Source, Writer, kind_of
from hmseg.data.image_file import SUFFIXES
from lut.errors import HmsegWarning, UserError
from lut.files import atomic_path, check_writable

_ROOM = 2  # frames that wait for the network, and for drawing
_RECENT = 100  # frames that the medians of a report are of
_LEAVE_S = 1.0  # for the thread that decodes, which may wait for a camera
# How a PNG, a JPEG, a TIFF and a WebP begin.
_SIGNATURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II\*\0|MM\0\*|RIFF....WEBP", re.DOTALL)


class VideoWarning(HmsegWarning):
    """A video of which not everything could be decoded."""


@dataclass(frozen=True)
class VideoReport:
    """How it goes, or went."""

    frames: int  # written
    expected: int | None  # where the video says how many it has
    dropped: int
    fps: float
    latency_ms: float  # from decoded to written, the median of the last frames
    network_ms: float  # of it, in the network
    interrupted: bool = False


def find_inputs(words: Sequence[str]) -> tuple[list[Path | Source], list[UserError]]:
    """The images named, those directly inside the folders named, and the videos, in order; and why
    others are none (`find_images`). Whether an address answers is not asked.

    Raises UserError where nothing is found.
    """
    found: list[Path | Source] = []
    broken: list[UserError] = []
    for word in words:
        source = Source(word)
        try:
            paths = [] if source.is_stream else find_images(Path(word))
        except UserError as error:
            broken.append(error)
            continue
        video = source.is_stream or not (Path(word).is_dir() or _is_image(Path(word)))
        found += [source] if video else paths
    if not found:
        raise broken[0]
    return found, broken


def _is_image(path: Path) -> bool:
    """By its suffix, or how it begins."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return _SIGNATURE.match(file.read(16)) is not None
    except OSError:
        return False  # whoever opens it says why


def check_video_name(path: Path) -> None:
    """Raise UserError unless a video can be written there (`kind_of`); meant for before long
    work."""
    kind_of(path)
    check_writable(path)


def segment_video(
    network: Network,
    source: Source,
    out: Path,
    *,
    live: bool = False,
    watch: Callable[[VideoReport], object] = lambda report: None,
) -> VideoReport:
    """Write a video with the overlays of what a network finds in each frame of another, with the
    frame rate and the time stamps of that, upright and without sound.

    Each frame is resized to the network's size, what is found back by nearest; frames of another
    size than the first are resized to that before. `live` drops frames instead of falling behind,
    and plays a file in its own time. `watch` is told after each frame.

    A KeyboardInterrupt ends the video there: what is done is written, and the report says so. Of a
    file that is damaged or cut short what can be decoded is written, with a VideoWarning. Raises
    UserError where PyAV is not installed, for what is no video or has no frames, and where no video
    can be written; then nothing is.
    """
    check_video_name(out)
    reader = Reader(source, live=live)
    with atomic_path(out) as temporary:
        writer = Writer(temporary, out, reader.rate, reader.tick)
        paced = live and source.is_file
        report = _Run(network, reader, writer, live=live, paced=paced, watch=watch).run()
        if not report.frames:
            if report.interrupted:
                raise KeyboardInterrupt
            raise UserError(f"{source.name}: no frame of it could be decoded")
    if reader.damaged and not report.interrupted:
        text = f"cut short or damaged; the {report.frames} frames that could be decoded are written"
        warnings.warn(f"{source.name}: {text}", VideoWarning, stacklevel=2)
    return report


@dataclass(frozen=True)
class _Frame:
    """`image` uint8 (H, W, 3), `given` what the network takes, `at` seconds of the video's time,
    `born` of this machine's clock."""

    image: NDArray[np.uint8]
    given: NDArray[Any]
    at: Fraction
    born: float


class _Run:
    """Three threads with belts between them. The network stays in the one that calls `run`, which
    has its pool of threads and is the one that an interrupt reaches."""

    def __init__(
        self,
        network: Network,
        reader: Reader,
        writer: Writer,
        *,
        live: bool,
        paced: bool,
        watch: Callable[[VideoReport], object],
    ) -> None:
        self._network, self._metadata, self._watch = network, network.metadata, watch
        self._reader, self._writer, self._paced = reader, writer, paced
        room = 1 if live else _ROOM
        self._read = Belt[_Frame](room, newest=live)
        self._found = Belt[tuple[_Frame, NDArray[Any], float]](room)
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._frames = 0
        self._start = time.perf_counter()
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=_RECENT)

    def run(self) -> VideoReport:
        """Until the video ends or an interrupt; raises what any of the threads raises."""
        # Daemons: one that waits for a camera does not keep the program from ending.
        reading = threading.Thread(target=self._decode, daemon=True)
        drawing = threading.Thread(target=self._draw, daemon=True)
        interrupted = False
        drawing.start()
        try:
            reading.start()
            for frame in self._read:
                start = time.perf_counter()
                result = self._network(frame.given)
                if not self._found.put((frame, result, time.perf_counter() - start)):
                    break
                self._watch(self._report())
        except KeyboardInterrupt:
            interrupted = True
        except BaseException as error:
            self._found.end(error)
            raise
        finally:
            self._read.leave()
            self._found.end()
            try:
                drawing.join()
            except KeyboardInterrupt:  # while the last frames are written; a second one gives up
                interrupted = True
                drawing.join()
            reading.join(_LEAVE_S)
        if self._error is not None:
            raise self._error
        return self._report(ended=True, interrupted=interrupted)

    def _decode(self) -> None:
        try:
            first = None
            for image, at in self._reader:
                if self._paced:
                    now = time.perf_counter()
                    first = now - float(at) if first is None else first
                    time.sleep(max(0.0, first + float(at) - now))
                born = time.perf_counter()
                given = given_for(self._metadata, to_channels(image, self._metadata.channels))
                if not self._read.put(_Frame(image, given, at, born)):
                    break
            self._read.end()
        except BaseException as error:
            self._read.end(error)

    def _draw(self) -> None:
        classes, background = self._metadata.classes, self._metadata.scores == 1
        try:
            with self._writer:
                for frame, result, spent in self._found:
                    found = found_at(self._metadata, result, Resolution(*frame.image.shape[:2]))
                    picture = draw_overlay(
                        frame.image, found, classes, background=background, steady=True
                    )
                    self._writer.write(np.asarray(picture), frame.at)
                    now = time.perf_counter()
                    with self._lock:
                        self._frames += 1
                        self._recent.append((now, now - frame.born, spent))
        except BaseException as error:
            self._error = error
        finally:
            self._found.leave()

    def _report(self, *, ended: bool = False, interrupted: bool = False) -> VideoReport:
        """Of the last frames; its rate of all of them where the video has ended."""
        with self._lock:
            frames, recent = self._frames, list(self._recent)
        seconds, counted = time.perf_counter() - self._start, frames
        if not ended and len(recent) > 1:
            seconds, counted = recent[-1][0] - recent[0][0], len(recent) - 1
        return VideoReport(
            frames=frames,
            expected=self._reader.expected,
            dropped=self._read.dropped,
            fps=counted / seconds,
            latency_ms=1000 * statistics.median([latency for _, latency, _ in recent] or [0.0]),
            network_ms=1000 * statistics.median([spent for *_, spent in recent] or [0.0]),
            interrupted=interrupted,
        )
