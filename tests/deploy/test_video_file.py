import resource
import sys
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from deploy.video_file import SUFFIXES, Reader, Source, Writer, kind_of
from lut.errors import UserError
from tests import conditions
from tests.deploy.videos import (
    FASTSTART,
    LOSSLESS,
    TICK,
    cut,
    noise,
    pictures,
    read_video,
    write_video,
)

pytestmark = conditions.PYAV.mark


def read(path: Path | str) -> list[tuple[np.ndarray, Fraction]]:
    return list(Reader(Source(str(path))))


def near(image: np.ndarray, expected: np.ndarray, atol: int = 8) -> bool:
    """In the middles of the patches: at their edges a lossy codec mixes them."""
    assert image.shape == expected.shape
    height, width = image.shape[:2]
    for down, across in ((1 / 8, 3 / 4), (1 / 4, 1 / 4), (3 / 4, 1 / 2)):
        y, x = int(down * height), int(across * width)
        found = image[y - 2 : y + 2, x - 2 : x + 2].mean((0, 1))
        if np.abs(found - expected[y, x]).max() > atol:
            return False
    return True


class TestReader:
    @pytest.mark.parametrize(
        ("suffix", "codec", "pixels"),
        [
            (".mp4", "libx264", "yuv420p"),
            (".avi", "mpeg4", "yuv420p"),
            (".mp4", "libx264", "yuv444p10le"),
            (".mp4", "libx265", "yuv420p10le"),
            (".mov", "prores", "yuv422p10le"),
            (".mkv", "ffv1", "yuv420p10le"),
            (".mkv", "ffv1", "gbrp12le"),
            (".mkv", "ffv1", "gray16le"),
        ],
    )
    def test_any_pixel_format(self, tmp_path, suffix, codec, pixels):
        images = pictures(6)
        if pixels.startswith("gray"):
            images = [i[..., :1].repeat(3, -1) for i in images]
        path = write_video(tmp_path / f"v{suffix}", images, codec=codec, pixels=pixels)
        reader = Reader(Source(str(path)))
        frames = list(reader)
        assert len(frames) == 6
        for (image, at), expected, number in zip(frames, images, range(6), strict=True):
            assert image.dtype == np.uint8
            assert near(image, expected, 12)
            assert at == pytest.approx(number / 25, abs=1e-3)
        assert (reader.rate, reader.damaged) == (25, False)

    @pytest.mark.parametrize("number", range(8))
    def test_upright(self, tmp_path, number):
        """As an independent reading of what the container was told: turned, then mirrored."""
        turn = (90 * (number % 4), number >= 4, False)
        (image,) = pictures(1)
        path = write_video(tmp_path / "v.mov", [image] * 3, **LOSSLESS, turn=turn)
        expected = np.rot90(image, number % 4)
        if number >= 4:
            expected = expected[:, ::-1]
        frames = read(path)
        assert len(frames) == 3
        for found, _ in frames:
            np.testing.assert_array_equal(found, expected)

    def test_mirrored_down(self, tmp_path):
        images = pictures(1)
        path = write_video(tmp_path / "v.mov", images, **LOSSLESS, turn=(0, False, True))
        np.testing.assert_array_equal(read(path)[0][0], images[0][::-1])

    @pytest.mark.parametrize("size", [(48, 64), (720, 64)])
    @pytest.mark.parametrize("told", [True, False])
    def test_colours_of_bt709(self, tmp_path, size, told):
        """As the file says; where it does not, as players guess by the number of lines."""
        images = pictures(1, *size)
        path = write_video(tmp_path / "v.mp4", images, colorspace=1)
        if not told:
            path = write_video(tmp_path / "u.mp4", images)  # in those of BT.601
        assert near(read(path)[0][0], images[0], 4) == (told or size[0] < 720)

    def test_square_pixels(self, tmp_path):
        images = pictures(2)
        path = write_video(tmp_path / "v.mp4", images, sample_aspect_ratio=Fraction(2))
        for (image, _), expected in zip(read(path), images, strict=True):
            assert near(image, expected.repeat(2, 1))

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
    def test_time_stamps(self, tmp_path, suffix):
        times = [0, 3600, 7200, 30060, 33660, 90000]
        path = write_video(tmp_path / f"v{suffix}", pictures(6), times=times)
        tick = 1e-3 if suffix == ".mkv" else 1e-9
        assert [float(at) for _, at in read(path)] == pytest.approx(
            [time / 90000 for time in times], abs=tick
        )

    def test_a_change_of_size_and_a_clock_that_is_set_back(self, tmp_path):
        """Two recordings, one behind the other: frames of the first's size, times that go on."""
        small = write_video(tmp_path / "a.ts", pictures(5))
        large = write_video(tmp_path / "b.ts", pictures(5, 96, 80))
        both = tmp_path / "both.ts"
        both.write_bytes(small.read_bytes() + large.read_bytes())
        reader = Reader(Source(str(both)))
        frames = list(reader)
        assert not reader.damaged
        assert len(frames) == 10
        for (image, _), expected in zip(frames, pictures(5) * 2, strict=True):
            assert near(image, expected, 12)
        steps = np.diff([float(at) for _, at in frames])
        assert steps == pytest.approx([0.04] * 9)

    def test_without_time_stamps(self, tmp_path):
        path = write_video(tmp_path / "v.h264", pictures(5), rate=20)
        times = [float(at) for _, at in read(path)]
        assert len(times) == 5
        assert (np.diff(times) > 0).all()

    @pytest.mark.parametrize(
        ("name", "codec", "options"),
        [
            ("v.mp4", "libx264", FASTSTART),
            ("v.mp4", "mpeg4", FASTSTART),
            ("v.mkv", "libx264", {}),
            ("v.avi", "mpeg4", {}),
        ],
    )
    def test_cut_short(self, tmp_path, name, codec, options):
        path = write_video(tmp_path / name, noise(20), codec=codec, options=options)
        whole = Reader(Source(str(path)))
        assert len(list(whole)) == 20
        assert not whole.damaged
        reader = Reader(Source(str(cut(path, 0.6))))
        assert 3 < len(list(reader)) < 20
        assert reader.damaged

    def test_damage_in_the_middle(self, tmp_path):
        """What can be decoded behind it is."""
        path = write_video(tmp_path / "v.mov", pictures(9), **LOSSLESS, options=FASTSTART)
        data = bytearray(path.read_bytes())
        start = [i for i in range(len(data)) if data[i : i + 4] == b"\x89PNG"][4]
        data[start : start + 60] = bytes(60)
        path.write_bytes(data)
        reader = Reader(Source(str(path)))
        assert len(list(reader)) == 8
        assert reader.damaged

    def test_no_video(self, tmp_path):
        with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(1000))
        (tmp_path / "text.txt").write_text("a text\n" * 100)
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "bytes").write_bytes(bytes(5000))
        write_video(tmp_path / "v.mp4", pictures(10))
        cut(tmp_path / "v.mp4", 0.3)  # its index is at the end
        for name, message in {
            "a.wav": "no video, or one cut short",
            "text.txt": "no video, or one cut short",
            "empty.mp4": "no video, or one cut short",
            "bytes": "no video, or one cut short",
            "cut-v.mp4": "no video, or one cut short",
            "none.mp4": "No such file",
        }.items():
            with pytest.raises(UserError, match=message) as raised:
                Reader(Source(str(tmp_path / name)))
            assert str(raised.value).startswith(f"{tmp_path / name}: ")
            assert "\n" not in str(raised.value)

    def test_a_device_that_is_no_camera(self):
        with pytest.raises(UserError, match="/dev/null: cannot be opened"):
            Reader(Source("/dev/null"))

    def test_a_server_that_is_not_there(self):
        with pytest.raises(UserError) as raised:
            Reader(Source("rtsp://user:secret@127.0.0.1:1/street"))
        assert str(raised.value).startswith("rtsp://127.0.0.1:1/street: cannot be opened (")
        assert "secret" not in str(raised.value)

    def test_a_name_with_a_colon(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_video(tmp_path / "v.mp4", pictures(2)).rename(tmp_path / "a:b%d.mp4")
        assert len(read("a:b%d.mp4")) == 2


@pytest.mark.parametrize(
    ("address", "name", "path", "stream"),
    [
        ("a/b.mp4", "a/b.mp4", "a/b.mp4", False),
        ("/dev/video0", "/dev/video0", "/dev/video0", False),
        ("a@b//c.mp4", "a@b//c.mp4", "a@b/c.mp4", False),
        ("rtsp://me:word@host:554/live/cam1?x=1", "rtsp://host:554/live/cam1?x=1", "cam1", True),
        ("rtsp://host", "rtsp://host", "host", True),
        ("rtsp://me:w@rd@host/a@b", "rtsp://host/a@b", "b", True),
        ("udp://@:1234", "udp://:1234", "stream", True),
    ],
)
def test_what_a_source_is_called(address, name, path, stream):
    source = Source(address)
    assert (source.name, str(source.path), source.is_stream) == (name, path, stream)
    assert not source.is_file


class TestKind:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_what_advice_names_can_be_written(self, suffix, tmp_path):
        kind = kind_of(Path(f"v{suffix}"))
        assert kind.pixels == "yuv420p"
        with Writer(tmp_path / "x", Path(f"v{suffix}"), Fraction(25), TICK) as writer:
            for number, image in enumerate(pictures(5)):
                writer.write(image, Fraction(number, 25))
        frames = read(tmp_path / "x")
        assert [float(at) for _, at in frames] == pytest.approx([i / 25 for i in range(5)])
        for (image, _), expected in zip(frames, pictures(5), strict=True):
            assert near(image, expected, 12)

    @pytest.mark.parametrize(
        "name", ["v", "v.txt", "v.png", "v.jpg", "v.mp3", "v.wav", "v.srt", "v.m3u8", "v.h264"]
    )
    def test_what_cannot(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match=f"cannot write a video to {name}: name a file that"):
            kind_of(Path(name))
        assert list(tmp_path.iterdir()) == []

    def test_without_pyav(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(UserError, match=r"pip install 'hmseg\[video\]'"):
            kind_of(Path("v.mp4"))
        with pytest.raises(UserError, match=r"pip install 'hmseg\[video\]'"):
            Reader(Source("v.mp4"))


class TestWriter:
    def test_a_lossless_codec_loses_nothing_at_any_time(self, tmp_path):
        times = [Fraction(i, 100) for i in (0, 4, 5, 33, 80)]
        images = [np.asarray(i)[:47, :63] for i in pictures(5)]  # its pixels may be odd
        with Writer(tmp_path / "x", Path("v.apng"), Fraction(25), TICK) as writer:
            for image, at in zip(images, times, strict=True):
                writer.write(image, at)
        found = read_video(tmp_path / "x")
        assert [at for _, at in found] == times
        for (image, _), expected in zip(found, images, strict=True):
            np.testing.assert_array_equal(image, expected)

    @pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 63), (47, 63), (1, 1)])
    def test_odd_sizes_become_even_by_a_white_line(self, tmp_path, height, width):
        image = np.full((height, width, 3), (200, 30, 60), np.uint8)
        with Writer(tmp_path / "x", Path("v.mp4"), Fraction(25), TICK) as writer:
            writer.write(image, Fraction(0))
        ((found, _),) = read_video(tmp_path / "x")
        assert found.shape == (height + height % 2, width + width % 2, 3)
        if height % 2 and height > 1:
            assert found[-1, 2:-4].min() > 180  # of less colours than pixels, but light
        if height > 1:
            assert near(found[: height - 3, : width - 3], image[: height - 3, : width - 3])

    def test_a_fixed_rate_moves_times_to_the_next_frame(self, tmp_path):
        times = [Fraction(i, 1000) for i in (0, 39, 41, 121, 200)]
        with Writer(tmp_path / "x", Path("v.avi"), Fraction(25), TICK) as writer:
            for image, at in zip(pictures(5), times, strict=True):
                writer.write(image, at)
        assert [float(at) for _, at in read(tmp_path / "x")] == pytest.approx(
            [0, 0.04, 0.08, 0.12, 0.2]
        )

    def test_what_is_written_before_an_error_is_closed(self, tmp_path):
        with (  # noqa: PT012
            pytest.raises(RuntimeError, match="mine"),
            Writer(tmp_path / "x", Path("v.mkv"), Fraction(25), TICK) as writer,
        ):
            writer.write(pictures(1)[0], Fraction(0))
            raise RuntimeError("mine")

    def test_nothing_written_is_no_file(self, tmp_path):
        with Writer(tmp_path / "x", Path("v.mp4"), Fraction(25), TICK):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_frames_that_the_encoder_does_not_take(self, tmp_path):
        with (
            pytest.raises(UserError, match=r"cannot write v\.mpg: mpeg1video does not take"),
            Writer(tmp_path / "x", Path("v.mpg"), Fraction(7), TICK) as writer,
        ):
            writer.write(pictures(1)[0], Fraction(0))

    def test_a_disk_that_is_full(self, tmp_path):
        """It takes 4 KB a file."""
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def write() -> None:
            with Writer(tmp_path / "x", Path("v.mkv"), Fraction(25), TICK) as writer:
                for number, image in enumerate(noise(40)):
                    writer.write(image, Fraction(number, 25))

        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
            with pytest.raises(OSError, match="File too large"):
                write()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
