"""Videos in and out: frames upright in RGB with their times, by PyAV, which is FFmpeg's libraries.

PyAV is imported where it is used.
"""

import contextlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from deploy.images import resize_image
from deploy.resolution import Resolution
from lut.errors import UserError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")  # that advice names
_ADVICE = f"name a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_ANSWER_S = 10.0  # how long a server may be silent
_USUAL_RATE, _HIGHEST_RATE = Fraction(25), 1000  # frames per second
_BT709, _UNTOLD, _BT601 = 1, 2, 6  # FFmpeg's numbers of colour spaces
_HD = 720  # lines, from which on players take a video that does not tell for one of BT.709
# The encoders' own settings are too slow beside a network, or too coarse for a legend.
_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "18"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "24"},
    "mpeg4": {"flags": "+qscale", "global_quality": "354"},  # 3 on its scale of 1 to 31
    "mpeg1video": {"flags": "+qscale", "global_quality": "354"},
}
_PIXELS = ("yuv420p", "rgb24", "rgb8")  # the first that an encoder takes


@dataclass(frozen=True)
class Source:
    """Where a video comes from: a file, a device such as /dev/video0, or a stream's address."""

    address: str

    @property
    def is_stream(self) -> bool:
        """Whether it is no path."""
        return _ADDRESS.match(self.address) is not None

    @property
    def is_file(self) -> bool:
        """Whether all of it is there already; else it comes as it is made."""
        return not self.is_stream and Path(self.address).is_file()

    @property
    def name(self) -> str:
        """For people: as it was written, without the password that an address may hold."""
        return re.sub(r"(?<=://)[^/]*@", "", self.address) if self.is_stream else self.address

    @property
    def path(self) -> Path:
        """What results are named after: of an address its last word."""
        if not self.is_stream:
            return Path(self.address)
        parts = urlsplit(self.name)
        words = re.findall(r"\w[\w.+-]*", f"{parts.netloc.partition(':')[0]} {parts.path}")
        return Path(words[-1] if words else "stream")


class Reader:
    """A video, opened; iterate over it once for its frames.

    They are uint8 (H, W, 3), RGB, upright, with square pixels, all of the first one's size, each
    with its time in seconds: a file's own, of what comes from elsewhere that since the first;
    always later than the one before. `live` decodes one after the other, sooner but slower.

    Raises UserError where PyAV is not installed and for what cannot be opened or is no video.
    """

    def __init__(self, source: Source, *, live: bool = False) -> None:
        self.damaged = False  # whether less was decoded than there should have been
        self._source = source
        self._errors = import_av().error
        self._container = _open(source)
        try:
            self._stream = _video_in(self._container, source)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "SLICE" if live else "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE
        self.rate = rate if 0 < rate <= _HIGHEST_RATE else _USUAL_RATE
        self.tick = self._stream.time_base or 1 / self.rate  # seconds; times are multiples of it
        self.expected = self._stream.frames or None  # frames, where the file says
        self._first: Fraction | None = None
        self._at: Fraction | None = None
        self._shift = Fraction(0)
        self._end = Fraction(0)  # of the last frame

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], Fraction]]:
        size: Resolution | None = None
        with self._container:
            for packet in self._packets():
                try:
                    frames = [(self._rgb(f), self._time_of(f)) for f in self._stream.decode(packet)]
                except self._errors.FFmpegError:
                    # Whoever joins a stream may have missed what its first frames build on.
                    self.damaged |= self._source.is_file or size is not None
                    continue
                for image, at in frames:
                    size = size or Resolution(*image.shape[:2])
                    yield resize_image(image, size), at
            self.damaged |= self._ends_early()

    def _packets(self) -> "Iterator[Packet[VideoStream] | None]":
        """All; None, as a file's own last packet, asks the decoder for what it still holds."""
        torn = False  # one in the middle may just be where two recordings meet
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    torn = packet.is_corrupt and self._source.is_file
                yield packet
            self.damaged |= torn
        except self._errors.FFmpegError:
            self.damaged = True
            yield None

    def _rgb(self, frame: "VideoFrame") -> NDArray[np.uint8]:
        """Of any pixel format and depth; of pixels that are no squares, as wide as it is shown."""
        told = frame.colorspace != _UNTOLD or frame.format.is_rgb
        aspect = self._stream.sample_aspect_ratio or 1
        image = frame.to_ndarray(
            format="rgb24",
            width=max(1, round(frame.width * aspect)) if 1 / 4 <= aspect <= 4 else frame.width,
            src_colorspace=None if told else _colours(frame.height),
        ).astype(np.uint8, copy=False)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _upright(image, matrix)

    def _time_of(self, frame: "VideoFrame") -> Fraction:
        step = length = 1 / self.rate
        if frame.pts is None or frame.time_base is None:
            own = Fraction(0) if self._at is None else self._at - self._shift + step
        else:
            own = frame.pts * frame.time_base
            length = frame.duration * frame.time_base or step
        if self._first is None:
            self._first = own
            self._shift = Fraction(0) if self._source.is_file else -own
        if self._at is not None and own + self._shift <= self._at:  # its clock was set back
            self._shift = self._at + step - own
        self._at = own + self._shift
        self._end = self._at + length
        return self._at

    def _ends_early(self) -> bool:
        """Whether more than two frames are missing of the length that the file says it has."""
        if self._first is None or not self._source.is_file:
            return False
        stream, start = self._stream, self._first
        if stream.duration and stream.time_base:
            length = stream.duration * stream.time_base
        else:
            length, start = _length_of_matroska(stream.metadata.get("DURATION", "")), Fraction(0)
        return self._end - start < length - 2 / self.rate


def _length_of_matroska(text: str) -> Fraction:
    """Seconds of HH:MM:SS.fraction, from the file's start to the stream's end; 0 for none."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", text)
    return 3600 * int(match[1]) + 60 * int(match[2]) + Fraction(match[3]) if match else Fraction(0)


def _open(source: Source) -> "InputContainer":
    av = import_av()
    try:
        container: InputContainer
        if source.is_stream:
            container = av.open(source.address, timeout=_ANSWER_S)
        else:
            path = Path(source.address).absolute()  # a relative one's colon would be a protocol's
            camera = stat.S_ISCHR(path.stat().st_mode)
            container = av.open(str(path), format="v4l2" if camera else None)
    except av.error.ExitError:
        reason = f"no answer within {_ANSWER_S:.0f} s"
        raise UserError(f"{source.name}: cannot be opened ({reason})") from None
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise _no_video(source) from error
    except (OSError, ValueError, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{source.name}: cannot be opened ({reason})") from error
    if container.format.name == "tty":  # any text, which FFmpeg would draw
        container.close()
        raise _no_video(source)
    return container


def check_is_video(source: Source) -> None:
    """Raise UserError for a file that is no video, as far as PyAV is there to tell."""
    if not source.is_file:
        return
    try:
        import_av()
    except UserError:
        return
    with _open(source) as container:
        _video_in(container, source)


def _no_video(source: Source) -> UserError:
    return UserError(
        f"{source.name}: no video, or one cut short before its index, and no PNG or JPEG image"
    )


def _video_in(container: "InputContainer", source: Source) -> "VideoStream":
    from av.stream import Disposition

    # A song's cover is a stream of one picture.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise _no_video(source)
    if streams[0].codec_context is None:
        raise UserError(f"{source.name}: PyAV knows no decoder for this video")
    return streams[0]


def _colours(height: int) -> str:
    """PyAV's name of the colour space that a video of so many lines usually has."""
    return "ITU709" if height >= _HD else "ITU601"


def _upright(image: NDArray[np.uint8], matrix: Any) -> NDArray[np.uint8]:  # noqa: ANN401 - a buffer
    """As a display matrix says, to the nearest quarter turn."""
    # A pixel at (x, y) is shown at (a x + c y, b x + d y), but for a shift.
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(int)
    across, down = a, d
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, across, down = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


@dataclass(frozen=True)
class Kind:
    """What a video file is written as: FFmpeg's names of the container, the encoder and its pixels;
    whether any time stamp may be written, or only those of a fixed rate."""

    container: str
    encoder: str
    pixels: str
    any_times: bool


def kind_of(path: Path) -> Kind:
    """By the name's suffix: H.264 where the container takes it with any time stamps, else the
    container's usual. Raises UserError where PyAV is not installed and for a suffix that is no
    video's, or of one that holds no time stamps."""
    av = import_av()
    from av.codec.codec import UnknownCodecError
    from av.format import Flags

    wrong = UserError(f"cannot write a video to {path}: {_ADVICE}")
    try:
        with av.open(f"name{path.suffix}", "w") as container:  # creates no file
            format_, usual = container.format, container.default_video_codec
            fits = "h264" in container.supported_codecs
        flags = Flags(format_.flags)
        if flags & (Flags.no_file | Flags.need_number | Flags.no_timestamps):
            raise wrong
        any_times = Flags.variable_fps in flags
        codec = av.Codec("h264" if fits and any_times else usual, "w")
    except (ValueError, UnknownCodecError):
        raise wrong from None
    pixels = [found.name for found in codec.video_formats or []]
    if not pixels:
        raise wrong
    chosen = next((name for name in _PIXELS if name in pixels), pixels[0])
    return Kind(format_.name, codec.name, chosen, any_times)


class Writer:
    """Writes frames to a file, in a block that it closes: what was written by then can be played.

    name: what errors call the file, and whose suffix says what is written (`kind_of`). rate, tick:
    as of a `Reader`.
    """

    def __init__(self, path: Path, name: Path, rate: Fraction, tick: Fraction) -> None:
        self._path, self._name, self._kind = path, name, kind_of(name)
        # MPEG-4 counts in 16 bits; 30000/1001 is the rate with the largest divisor in use.
        self._rate = rate.limit_denominator(1001)
        self._tick = tick if self._kind.any_times else 1 / self._rate
        self._is_yuv = self._kind.pixels.startswith("yuv")
        self._last: int | None = None
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._container is None or self._stream is None:
            return
        if kind is None:
            with self._container, self._errors_named():
                self._container.mux(self._stream.encode(None))
        else:
            with contextlib.suppress(Exception):
                self._container.close()

    def write(self, image: NDArray[np.uint8], at: Fraction) -> None:
        """Append an RGB image uint8 (H, W, 3), as large as the first, at a time in seconds. An odd
        size becomes even by a white line at the right or below where the pixels need that. Raises
        UserError for what the encoder does not take, OSError as for any file."""
        av = import_av()
        if self._is_yuv and (image.shape[0] % 2 or image.shape[1] % 2):
            margins = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))
            image = np.pad(image, margins, constant_values=255)
        with self._errors_named():
            if self._container is None or self._stream is None:
                self._container, self._stream = self._start(image.shape[1], image.shape[0])
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            colours = _colours(image.shape[0]) if self._is_yuv else None
            frame = frame.reformat(format=self._kind.pixels, dst_colorspace=colours)
            tick = round(at / self._tick)
            self._last = tick if self._last is None else max(tick, self._last + 1)
            frame.pts, frame.time_base = self._last, self._tick
            self._container.mux(self._stream.encode(frame))

    def _start(self, width: int, height: int) -> "tuple[OutputContainer, VideoStream]":
        kind = self._kind
        container = import_av().open(str(self._path.absolute()), "w", format=kind.container)
        stream: VideoStream = container.add_stream(
            kind.encoder, self._rate, options=_OPTIONS.get(kind.encoder)
        )
        stream.width, stream.height, stream.pix_fmt = width, height, kind.pixels
        context = stream.codec_context
        context.time_base = self._tick
        if self._is_yuv:
            context.colorspace = _BT709 if _colours(height) == "ITU709" else _BT601
        return container, stream

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        av = import_av()
        try:
            yield
        except OSError:
            raise
        except av.error.FFmpegError as error:
            raise UserError(
                f"cannot write {self._name}: {self._kind.encoder} does not take these frames "
                f"({error.strerror}); {_ADVICE}"
            ) from error


def import_av() -> ModuleType:
    """PyAV; raises UserError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError("videos need PyAV: pip install 'hmseg[video]'") from error
    return av
