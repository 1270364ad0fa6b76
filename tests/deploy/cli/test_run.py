import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from deploy.cli.hmseg_deploy import main
from deploy.images import resize_labels
from deploy.resolution import Resolution
from deploy.runtime import load
from tests import conditions
from tests.deploy import videos
from tests.deploy.cli.conftest import PROGRAM, files, hmseg, run_here, run_program
from tests.deploy.graph.ends.files import network, node
from tests.deploy.graphs import photo, write
from tests.deploy.videos import FASTSTART, cut, read_video, write_video
from tests.hmseg.data.folders import make_camvid


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(photo()).save(folder / "a.png")
    Image.fromarray(photo((40, 90))).save(folder / "b.jpg")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder(cli, artifact_path, pictures, tmp_path):
    done = cli("run", artifact_path, "in").succeeded()
    names = ("a-labels", "a-overlay", "b-labels", "b-overlay")
    assert done.out.split() == [f"out/{name}.png" for name in names]
    assert files(tmp_path / "out") == [
        "a-labels.png", "a-overlay.png", "b-labels.png", "b-overlay.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "a-labels.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), load(artifact_path)(photo()))
    with Image.open(tmp_path / "out" / "b-labels.png") as labels:
        assert labels.size == (90, 40)


def test_json_without_overlay(cli, artifact_path, pictures, tmp_path):
    done = cli("run", artifact_path, "in/a.png", "-o", "x", "--json", "--no-overlay").succeeded()
    assert json.loads(done.out) == [{"image": "in/a.png", "labels": "x/a-labels.png"}]
    assert files(tmp_path / "x") == ["a-labels.png"]


def test_equal_names(cli, artifact_path, pictures, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "a.png")
    done = cli("run", artifact_path, "in/a.png", "a.png").succeeded()
    names = ("1-labels", "1-overlay", "2-labels", "2-overlay")
    assert done.out.split() == [f"out/a-png-{name}.png" for name in names]


def test_in_a_process_of_its_own_without_torch(artifact_path, pictures, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "onnx.py").write_text("raise SystemExit('onnx was imported')")
    import os

    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run_program(
        "run", artifact_path, "in", cwd=tmp_path, env={"PYTHONPATH": path}
    ).succeeded()
    assert len(done.out.splitlines()) == 4


def test_an_image_that_a_result_would_overwrite(cli, artifact_path, pictures, tmp_path):
    """A ground truth beside its image, say, and --out the same folder."""
    Image.fromarray(photo()).save(pictures / "a-labels.png")
    before = (pictures / "a-labels.png").read_bytes()
    done = cli("run", artifact_path, "in", "--out", "in")
    assert (done.code, done.out) == (2, "")
    assert "in/a-labels.png" in done.error
    assert (pictures / "a-labels.png").read_bytes() == before


@pytest.fixture(scope="module")
def masks_path(tmp_path_factory):
    """A user's network of grey images and three classes that do not exclude each other."""
    folder = tmp_path_factory.mktemp("masks")
    model = network([node("Sigmoid", "scores", "p")], ["p"], classes=3, channels=1, stride=2)
    helper.set_model_props(model, {"names": '["lane", "../kerb", "Lane"]'})
    write(model, folder / "n.onnx")
    arguments = ("-m", folder / "n.onnx", "-o", folder / "n.hmseg", "--threads", 1)
    done = run_here(main, "hmseg-deploy", "compile", *arguments)
    assert "n.onnx: 3 classes that do not exclude each other" in done.succeeded().err
    return folder / "n.hmseg"


def test_masks(cli, masks_path, pictures, tmp_path):
    done = cli("run", masks_path, "in/a.png", "--threads", 1).succeeded()
    kinds = ["lane", "kerb", "Lane-1"]
    assert done.out.split() == [f"out/a-{kind}.png" for kind in [*kinds, "overlay"]]
    compiled = load(masks_path, threads=1)
    with Image.open(pictures / "a.png") as picture:
        grey = picture.convert("L").resize((80, 64), Image.Resampling.BILINEAR)
    found = compiled(np.asarray(grey)[..., None])
    assert (found.dtype, found.shape) == (np.uint8, (3, 64, 80))
    for kind, mask in zip(kinds, found, strict=True):
        with Image.open(tmp_path / "out" / f"a-{kind}.png") as image:
            values = np.asarray(image)
        np.testing.assert_array_equal(values, 255 * resize_labels(mask, Resolution(64, 64)))
    assert (tmp_path / "out" / "a-overlay.png").exists()
    cli("verify", masks_path, "--threads", 1).succeeded()
    done = cli("run", masks_path, "in/a.png", "--no-overlay", "--json", "-o", "x").succeeded()
    masks = [f"x/a-{kind}.png" for kind in kinds]
    assert json.loads(done.out) == [{"image": "in/a.png", "masks": masks}]


def test_masks_are_not_evaluated(masks_path, tmp_path):
    data = make_camvid(tmp_path / "camvid")
    done = hmseg("eval", masks_path, "--data", data)
    assert done.code == 2
    assert "finds a mask of each class, and these may overlap" in done.error


BROKEN = {"empty": b"", "text": b"text", "cut": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_images(cli, artifact_path, case, tmp_path):
    (tmp_path / "i.png").write_bytes(BROKEN[case])
    done = cli("run", artifact_path, "i.png")
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("error: i.png: ")
    assert files(tmp_path) == ["i.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ARTIFACT", "none.png"], "no such file or folder"),
        (["ARTIFACT", "empty"], "no PNG, JPEG, WebP, BMP or TIFF files"),
        (["none.hmseg", "in"], "no such file"),
        (["in/a.png", "in"], "not an hmseg artifact"),
        (["ARTIFACT", "in", "--out", "in/a.png"], "it is a file"),
        (["ARTIFACT", "in", "--out", "/proc/x"], "cannot write"),
        (["ARTIFACT", "in/a.png", "--out", "o2.png"], "name a folder, such as --out o2; what is"),
        (["ARTIFACT", "in", "--threads", "0"], "--threads 0"),
        (["ARTIFACT", "in", "--live"], "--live is for videos"),
    ],
)
def test_bad_input(cli, artifact_path, pictures, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    done = cli("run", *(artifact_path if a == "ARTIFACT" else a for a in arguments))
    assert (done.code, done.out) == (2, "")
    assert message in done.error
    assert files(tmp_path) == before


def test_broken_images_do_not_stop_the_others(cli, artifact_path, pictures, tmp_path):
    """Each is named; the exit code is that of failed work."""
    (tmp_path / "in" / "aa.png").write_bytes(BROKEN["cut"])
    (tmp_path / "bad.jpg").write_bytes(BROKEN["text"])
    done = cli("run", artifact_path, "bad.jpg", "in", "--no-overlay")
    assert done.code == 1
    assert done.out == "out/a-labels.png\nout/b-labels.png\n"
    assert done.error == "error: 2 of 4 inputs failed"
    lines = done.err.splitlines()
    assert "1/4 bad.jpg failed: not a PNG, JPEG, WebP, BMP or TIFF image" in lines
    assert [line for line in lines if line.startswith("3/4 in/aa.png failed: cannot be decoded")]
    assert files(tmp_path / "out") == ["a-labels.png", "b-labels.png"]
    done = cli("run", artifact_path, "bad.jpg", "in/a.png", "--json", "--no-overlay")
    assert (done.code, done.error) == (1, "error: 1 of 2 inputs failed")
    assert json.loads(done.out) == [{"image": "in/a.png", "labels": "out/a-labels.png"}]


@pytest.fixture
def street(tmp_path):
    """A video of 12 frames."""
    return write_video(tmp_path / "street.mp4", videos.pictures(12))


@conditions.PYAV.mark
class TestVideos:
    def test_one(self, cli, artifact_path, street, tmp_path):
        done = cli("run", artifact_path, "street.mp4", "--out", "new/o.mkv").succeeded()
        assert done.out == "new/o.mkv\n"
        (line,) = done.err.splitlines()
        for words in ("1/1 street.mp4", "12 frames, ", " FPS, latency ", " ms (network "):
            assert words in line
        assert len(read_video(tmp_path / "new" / "o.mkv")) == 12
        assert files(tmp_path) == ["new", "new/o.mkv", "street.mp4"]

    def test_json(self, cli, artifact_path, street):
        done = cli("run", artifact_path, "street.mp4", "--out", "o.mp4", "--json").succeeded()
        (entry,) = json.loads(done.out)
        assert entry.pop("fps") > 0
        assert entry.pop("latency_ms") > entry.pop("network_ms") > 0
        assert entry == {
            "video": "street.mp4", "overlay": "o.mp4", "frames": 12, "expected": 12, "dropped": 0,
            "interrupted": False,
        }  # fmt: skip

    def test_among_images_and_broken_ones(self, artifact_path, street, pictures, tmp_path):
        (tmp_path / "street.mkv").write_text("text")
        (tmp_path / "none.avi").touch()
        cut(write_video(tmp_path / "short.mp4", videos.noise(12), options=FASTSTART), 0.6)
        done = run_program(
            "run", artifact_path, "street.mkv", "in/a.png", "street.mp4", "none.avi",
            "cut-short.mp4", "--out", "o", cwd=tmp_path,
        )  # fmt: skip
        assert (done.code, done.error) == (1, "error: 2 of 5 inputs failed")
        results = [
            "o/a-labels.png",
            "o/a-overlay.png",
            "o/street-mp4-overlay.mp4",
            "o/cut-short-overlay.mp4",
        ]
        assert done.out.split() == results
        said = [line for line in done.err.splitlines() if "failed: no video" in line]
        assert [line.partition(" failed")[0] for line in said] == [
            "1/5 street.mkv", "4/5 none.avi",
        ]  # fmt: skip
        damaged = [line for line in done.err.splitlines() if "cut short or damaged" in line]
        assert [line.partition(": cut short")[0] for line in damaged] == ["warning: cut-short.mp4"]
        assert len(read_video(tmp_path / "o" / "street-mp4-overlay.mp4")) == 12
        assert 0 < len(read_video(tmp_path / "o" / "cut-short-overlay.mp4")) < 12
        assert not [name for name in files(tmp_path / "o") if ".hmseg" in name]

    def test_beside_one_that_is_not_there(self, cli, artifact_path, street, tmp_path):
        done = cli("run", artifact_path, "none.png", "street.mp4", "--out", "o")
        assert (done.code, done.error) == (1, "error: 1 of 2 inputs failed")
        assert done.out == "o/street-overlay.mp4\n"
        assert "2/2 street.mp4" in done.err
        done = cli("run", artifact_path, "none.png", "street.mp4", "--out", "one.mp4")
        assert done.code == 2
        assert "there are several inputs; name a folder" in done.error

    def test_live(self, cli, artifact_path, tmp_path):
        """Frames too large to be drawn 500 times a second."""
        write_video(tmp_path / "v.mp4", videos.pictures(100, 480, 640), rate=500)
        done = cli("run", artifact_path, "v.mp4", "--out", "o.mp4", "--live", "--json").succeeded()
        (entry,) = json.loads(done.out)
        assert entry["dropped"] > 0
        assert entry["frames"] + entry["dropped"] == 100
        assert len(read_video(tmp_path / "o.mp4")) == entry["frames"]
        assert f"{entry['dropped']} dropped" in done.err

    def test_an_address(self, cli, artifact_path, street, tmp_path):
        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{server.server_port}"
            done = cli("run", artifact_path, f"{address}/street.mp4", "--out", "o.mp4").succeeded()
            missing = cli("run", artifact_path, f"{address}/none.mp4", "--out", "x.mp4")
            server.shutdown()
        assert done.out == "o.mp4\n"
        assert len(read_video(tmp_path / "o.mp4")) == 12
        assert missing.code == 2
        assert "none.mp4: cannot be opened (" in missing.error
        assert files(tmp_path) == ["o.mp4", "street.mp4"]

    def test_interrupting(self, artifact_path, tmp_path):
        """Ctrl-C in a video that would take a minute more."""
        write_video(tmp_path / "v.mp4", videos.pictures(1500))
        process = subprocess.Popen(
            [*PROGRAM, "run", str(artifact_path), "v.mp4", "-o", "o.mp4", "--live"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob(".hmseg-*")) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, out) == (130, "o.mp4\n")
        assert err.splitlines()[-1] == "error: interrupted"
        assert "Traceback" not in err
        times = [float(at) for _, at in read_video(tmp_path / "o.mp4")]
        assert 2 < len(times) < 1500
        assert f"{len(times)} frames, " in err
        assert files(tmp_path) == ["o.mp4", "v.mp4"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["street.mp4"], "name the video to write with --out, such as --out street-overlay"),
            (["rtsp://me:word@host/cam"], "such as --out cam-overlay.mp4"),
            (["street.mp4", "--out", "o"], "name a file that ends in .mp4, .mkv"),
            (["street.mp4", "--out", "o.txt"], "cannot write a video to o.txt"),
            (["street.mp4", "--out", "in"], "cannot write a video to in"),
            (["street.mp4", "--out", "/proc/o.mp4"], "cannot write"),
            (["street.mp4", "--out", "street.mp4"], "street.mp4 would be overwritten"),
            (["street.mp4", "in", "--out", "o.mp4"], "--out o.mp4: there are several inputs"),
            (["street.mp4", "--out", "o.mp4", "--no-overlay"], "leave --no-overlay out"),
            (["none.mp4", "--out", "o.mp4"], "none.mp4: no such file or folder"),
            (["in/notes.txt", "--out", "o.mp4"], "in/notes.txt: no video, or one cut short"),
            (["in/notes.txt", "--out", "o"], "before its index, and no PNG or JPEG image"),
            (["/dev/null", "--out", "o.mp4"], "/dev/null: cannot be opened"),
            (["rtsp://127.0.0.1:1/x", "--out", "o.mp4"], "rtsp://127.0.0.1:1/x: cannot be opened"),
        ],
    )
    def test_bad_input(self, cli, artifact_path, street, pictures, tmp_path, arguments, message):
        before = files(tmp_path)
        done = cli("run", artifact_path, *arguments)
        assert (done.code, done.out) == (2, "")
        assert message in done.error
        assert "word" not in done.error
        assert files(tmp_path) == before

    def test_without_pyav(self, cli, artifact_path, street, pictures, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        done = cli("run", artifact_path, "street.mp4", "--out", "o.mp4")
        assert done.code == 2
        assert done.error == "error: videos need PyAV: pip install 'hmseg[video]'"
        done = cli("run", artifact_path, "in/a.png", "street.mp4")
        assert (done.code, done.error) == (1, "error: 1 of 2 inputs failed")
        assert "2/2 street.mp4 failed: videos need PyAV: pip install 'hmseg[video]'" in done.err
        assert "out/a-labels.png" in files(tmp_path)

    def test_without_torch(self, artifact_path, street, tmp_path):
        (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        run_program(
            "run", artifact_path, "street.mp4", "-o", "o.mp4", cwd=tmp_path,
            env={"PYTHONPATH": path},
        ).succeeded()  # fmt: skip
