import io
import struct
import threading
import time
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deploy import video
from deploy.images import resize_labels
from deploy.metadata import Metadata
from deploy.resolution import Resolution
from deploy.runtime import open_artifact
from deploy.segment import segment_file
from deploy.video import VideoWarning, find_inputs, segment_video
from deploy.video_file import Source
from hmseg.data.classes import ClassSet, binary_classes, generic_classes
from lut.errors import UserError, WorkError
from tests import conditions
from tests.deploy.cli.conftest import files
from tests.deploy.test_metadata import METADATA
from tests.deploy.videos import (
    FASTSTART,
    LOSSLESS,
    cut,
    noise,
    pictures,
    rate_of,
    read_video,
    write_video,
)

pytestmark = conditions.PYAV.mark


class Network:
    """Finds bands of classes; `wait` is called for each frame, with its number."""

    def __init__(self, metadata: Metadata = METADATA, wait=lambda number: None) -> None:
        self.metadata, self.wait, self.calls = metadata, wait, 0

    def __call__(self, given: np.ndarray) -> np.ndarray:
        assert (given.dtype, given.shape) == (self.metadata.input_dtype, self.metadata.input_shape)
        self.wait(self.calls)
        self.calls += 1
        return band(self.metadata)


def band(metadata: Metadata) -> np.ndarray:
    """Labels, or masks, of a network's size."""
    shape = metadata.found_shape
    if len(shape) == 3:
        return (np.indices(shape)[2] // 16 % 2 == np.indices(shape)[0] % 2).astype(np.uint8)
    classes = len(metadata.classes)
    return (np.indices(shape)[1] // 16 % classes).astype(metadata.found_dtype)


@pytest.fixture
def source(tmp_path) -> Source:
    times = [0, 3600, 7200, 30060, 33660, 90000, 93600, 97200]
    path = write_video(tmp_path / "v.mov", pictures(8), **LOSSLESS, times=times)
    return Source(str(path))


class TestWhatIsWritten:
    def test_the_overlays_of_images_at_the_same_times(self, small_artifact, source, tmp_path):
        """By a real network, in a codec that loses nothing."""
        network = open_artifact(small_artifact, "small")
        out = tmp_path / "o.apng"
        report = segment_video(network, source, out)
        assert (report.frames, report.expected, report.dropped) == (8, 8, 0)
        written = read_video(out)
        times = [time for _, time in read_video(Path(source.address))]
        # An APNG's last pause is one of a 16-bit fraction.
        assert [float(at) for _, at in written] == pytest.approx(list(map(float, times)), abs=1e-4)
        for number, ((shown, _), image) in enumerate(zip(written, pictures(8), strict=True)):
            Image.fromarray(image).save(tmp_path / "i.png")
            paths = segment_file(network, tmp_path / "i.png", tmp_path / "out", f"{number}")
            with Image.open(paths["overlay"]) as overlay:
                np.testing.assert_array_equal(shown[:48, :64], np.asarray(overlay)[:48, :64])

    def test_a_lossy_one(self, source, tmp_path):
        out = tmp_path / "new" / "o.mp4"
        report = segment_video(Network(), source, out)
        assert report.frames == 8
        written = read_video(out)
        assert [time for _, time in written] == [t for _, t in read_video(Path(source.address))]
        assert len({image.shape for image, _ in written}) == 1
        found = resize_labels(band(METADATA), Resolution(48, 64))
        colours = np.array(METADATA.classes.palette)[found]
        for (shown, _), image in zip(written, pictures(8), strict=True):
            expected = 0.45 * image + 0.55 * colours
            assert np.abs(shown[40:44, 2:8] - expected[40:44, 2:8]).max() < 12
        assert files(out.parent) == ["o.mp4"]

    @pytest.mark.parametrize("rate", [25, 24000 / 1001])
    def test_the_frame_rate(self, tmp_path, rate):
        from fractions import Fraction

        rate = Fraction(rate).limit_denominator(1001)
        path = write_video(tmp_path / "v.mp4", pictures(12), rate=rate)
        for name in ("o.mp4", "o.avi"):
            segment_video(Network(), Source(str(path)), tmp_path / name)
            assert rate_of(tmp_path / name) == rate
            assert len(read_video(tmp_path / name)) == 12

    @pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63), (2, 2), (300, 20)])
    def test_any_size(self, tmp_path, size):
        path = write_video(tmp_path / "v.mov", pictures(3, *size), **LOSSLESS)
        assert segment_video(Network(), Source(str(path)), tmp_path / "o.mp4").frames == 3
        for image, _ in read_video(tmp_path / "o.mp4"):
            assert image.shape[0] > size[0] + 10  # the legend
            assert image.shape[1] >= size[1]
            assert not image.shape[0] % 2
            assert not image.shape[1] % 2

    def test_a_rotated_video_is_upright(self, tmp_path):
        path = write_video(tmp_path / "v.mov", pictures(3), **LOSSLESS, turn=(90, False, False))
        network = Network(replace(METADATA, classes=binary_classes(), scores=1, threshold=0.5))
        segment_video(network, Source(str(path)), tmp_path / "o.apng")
        for (shown, _), image in zip(read_video(tmp_path / "o.apng"), pictures(3), strict=True):
            upright = np.rot90(image)
            background = resize_labels(band(network.metadata), Resolution(64, 48)) == 0
            np.testing.assert_array_equal(shown[:64, :48][background], upright[background])

    def test_a_change_of_size(self, tmp_path):
        parts = [write_video(tmp_path / f"{h}.ts", pictures(4, h, 64)) for h in (48, 96)]
        (tmp_path / "v.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
        report = segment_video(Network(), Source(str(tmp_path / "v.ts")), tmp_path / "o.mp4")
        assert report.frames == 8
        written = read_video(tmp_path / "o.mp4")
        assert len(written) == 8
        assert len({image.shape for image, _ in written}) == 1

    @pytest.mark.parametrize(
        "metadata",
        [
            replace(METADATA, input="tensor"),
            replace(METADATA, channels=1, mean=(0.5,), std=(0.5,)),
            replace(METADATA, channels=4, mean=(0.5,) * 4, std=(0.5,) * 4),
            replace(METADATA, classes=generic_classes(300)),
            replace(METADATA, output="masks", threshold=0.0),
            replace(METADATA, classes=ClassSet("one", ("a" * 200,), ((9, 9, 9),))),
        ],
        ids=["tensor", "grey", "rgba", "300 classes", "masks", "a long name"],
    )
    def test_any_network(self, source, tmp_path, metadata):
        report = segment_video(Network(metadata), source, tmp_path / "o.mp4")
        assert report.frames == len(read_video(tmp_path / "o.mp4")) == 8


class TestThreads:
    def test_decoding_the_network_and_drawing_overlap(self, source, tmp_path, monkeypatch):
        """The first frame is in the network until the second has been decoded, the second until
        the first is drawn; and the first is drawn while the second is in the network."""
        decoded, drawn, second = threading.Event(), threading.Event(), threading.Event()
        given_for, draw_overlay = video.given_for, video.draw_overlay

        def given(*arguments):
            given.count += 1
            if given.count == 2:
                decoded.set()
            return given_for(*arguments)

        def draw(*arguments, **options):
            assert second.wait(30)
            drawn.set()
            return draw_overlay(*arguments, **options)

        def wait(number):
            if number == 0:
                assert decoded.wait(30)
            if number == 1:
                second.set()
                assert drawn.wait(30)

        given.count = 0
        monkeypatch.setattr(video, "given_for", given)
        monkeypatch.setattr(video, "draw_overlay", draw)
        assert segment_video(Network(wait=wait), source, tmp_path / "o.mp4").frames == 8

    def test_few_frames_wait(self, tmp_path, monkeypatch):
        """The decoder of a long video does not run ahead."""
        path = write_video(tmp_path / "v.mp4", pictures(100))
        ahead = []

        def given(*arguments):
            ahead.append(network.calls)
            return given_for(*arguments)

        given_for = video.given_for
        monkeypatch.setattr(video, "given_for", given)
        network = Network(wait=lambda number: time.sleep(0.002))
        segment_video(network, Source(str(path)), tmp_path / "o.mp4")
        assert max(number - calls for number, calls in enumerate(ahead)) <= 4

    def test_live_drops_what_it_has_no_time_for(self, tmp_path):
        """100 frames in a second, of which a network takes 20; a file is played in its own time."""
        path = write_video(tmp_path / "v.mp4", pictures(100), rate=100)
        start = time.perf_counter()
        network = Network(wait=lambda number: time.sleep(0.05))
        report = segment_video(network, Source(str(path)), tmp_path / "o.mp4", live=True)
        assert time.perf_counter() - start > 0.9
        assert report.frames + report.dropped == 100
        assert 3 <= report.frames <= 25
        times = [float(at) for _, at in read_video(tmp_path / "o.mp4")]
        assert len(times) == report.frames
        assert all(before < after for before, after in pairwise(times))
        # The newest wins: what is shown is spread over the second and reaches its end.
        assert times[-1] == pytest.approx(0.99)
        assert times[len(times) // 2] > 0.2

    def test_live_with_time_for_all_drops_nothing(self, tmp_path):
        path = write_video(tmp_path / "v.mp4", pictures(8), rate=5)
        report = segment_video(Network(), Source(str(path)), tmp_path / "o.mp4", live=True)
        assert (report.frames, report.dropped) == (8, 0)

    def test_reports(self, source, tmp_path):
        reports = []
        network = Network(wait=lambda number: time.sleep(0.01))
        final = segment_video(network, source, tmp_path / "o.mp4", watch=reports.append)
        assert len(reports) == 8
        assert [r.frames for r in reports] == sorted(r.frames for r in reports)
        assert final.latency_ms > final.network_ms >= 10
        assert 0 < final.fps <= 100


class TestEnds:
    def test_an_interrupt_leaves_what_is_done(self, source, tmp_path):
        def wait(number):
            if number == 5:
                raise KeyboardInterrupt

        report = segment_video(Network(wait=wait), source, tmp_path / "o.mp4")
        assert report.interrupted
        assert report.frames == len(read_video(tmp_path / "o.mp4")) == 5

    def test_an_interrupt_before_the_first_frame(self, source, tmp_path):
        def wait(number):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            segment_video(Network(wait=wait), source, tmp_path / "o.mp4")
        assert files(tmp_path) == ["v.mov"]

    def test_a_network_that_fails(self, source, tmp_path):
        def wait(number):
            if number == 3:
                raise WorkError("the network failed")

        before = threading.active_count()
        with pytest.raises(WorkError, match="the network failed"):
            segment_video(Network(wait=wait), source, tmp_path / "o.mp4")
        assert files(tmp_path) == ["v.mov"]
        assert threading.active_count() == before

    def test_a_result_that_cannot_be_drawn(self, source, tmp_path, monkeypatch):
        def draw(*arguments, **options):
            raise MemoryError

        monkeypatch.setattr(video, "draw_overlay", draw)
        with pytest.raises(MemoryError):
            segment_video(Network(), source, tmp_path / "o.mp4")
        assert files(tmp_path) == ["v.mov"]

    @pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
    def test_no_frames(self, tmp_path, name):
        codec = "mpeg4" if name == "v.avi" else "libx264"
        path = write_video(tmp_path / name, [], size=(48, 64), codec=codec)
        with pytest.raises(UserError, match=rf"{name}: (no frame|no video)"):
            segment_video(Network(), Source(str(path)), tmp_path / "o.mp4")
        assert files(tmp_path) == [name]

    def test_cut_short(self, tmp_path):
        path = cut(write_video(tmp_path / "v.mp4", noise(20), options=FASTSTART), 0.5)
        with pytest.warns(VideoWarning) as warned:
            report = segment_video(Network(), Source(str(path)), tmp_path / "o.mp4")
        assert 3 < report.frames < 20
        assert len(read_video(tmp_path / "o.mp4")) == report.frames
        (warning,) = [one for one in warned if one.category is VideoWarning]
        text = str(warning.message)
        assert text.startswith(f"{path}: cut short or damaged; the {report.frames} frames")
        assert "\n" not in text

    def test_a_whole_one_is_no_reason_to_warn(self, source, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("error", VideoWarning)
            segment_video(Network(), source, tmp_path / "o.mp4")

    def test_broken_files_write_nothing(self, tmp_path):
        (tmp_path / "v.mp4").write_bytes(b"text")
        with pytest.raises(UserError, match=r"v\.mp4: no video"):
            segment_video(Network(), Source(str(tmp_path / "v.mp4")), tmp_path / "new" / "o.mp4")
        assert files(tmp_path) == ["v.mp4"]

    def test_an_old_result_stays_where_a_new_one_fails(self, tmp_path):
        (tmp_path / "o.mp4").write_text("old")
        (tmp_path / "v.mp4").write_bytes(b"text")
        with pytest.raises(UserError):
            segment_video(Network(), Source(str(tmp_path / "v.mp4")), tmp_path / "o.mp4")
        assert (tmp_path / "o.mp4").read_text() == "old"

    @pytest.mark.parametrize("out", ["o", "o.txt", "o.png", "v.mov/o.mp4"])
    def test_a_place_for_no_video(self, source, tmp_path, out):
        network = Network(wait=lambda number: pytest.fail("it must say so before"))
        with pytest.raises(UserError, match="cannot write"):
            segment_video(network, source, tmp_path / out)
        assert files(tmp_path) == ["v.mov"]


class TestInputs:
    def test_found(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        png = io.BytesIO()
        Image.new("RGB", (3, 3)).save(png, "PNG")
        (tmp_path / "folder").mkdir()
        for name, content in {
            "folder/a.png": b"",
            "folder/v.mp4": b"",
            "b.JPG": b"",
            "c": png.getvalue(),
            "d": b"\xff\xd8\xff\xe0",
            "v.mp4": b"",
            "e": b"text",
            "f": struct.pack(">I", 8),
        }.items():
            (tmp_path / name).write_bytes(content)
        words = ["folder", "b.JPG", "rtsp://host/x", "c", "v.mp4", "d", "e", "f", "/dev/null"]
        assert find_inputs(words) == ([
            Path("folder/a.png"), Path("b.JPG"), Source("rtsp://host/x"), Path("c"),
            Source("v.mp4"), Path("d"), Source("e"), Source("f"), Source("/dev/null"),
        ], [])  # fmt: skip

    @pytest.mark.parametrize("word", ["none.mp4", "none.png", "/dev/video77"])
    def test_not_there(self, tmp_path, monkeypatch, word):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=f"{word}: no such file or folder"):
            find_inputs([word])
