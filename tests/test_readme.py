"""The commands that README.md, docs/cli.md and the guides show, run as a newcomer would type them.

Each line of theirs is in `RUN`, and is run; or the first pattern of `NOT_RUN` that finds it says
why it is not. Then its program reads its options all the same, without running.
"""

import io
import lzma
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deploy.artifact_file import load_artifact
from deploy.cli import hmseg as hmseg_program
from deploy.cli import hmseg_deploy
from deploy.resolution import DEFAULT_RESOLUTION, Resolution
from deploy.street import draw_street
from docs.cli_page import PAGE
from lut.table_file import save_table
from tests.conftest import ROOT
from tests.deploy.graphs import SIZE, segmenter
from tests.deploy.graphs import write as write_onnx
from tests.deploy.tuning.test_upgrade import BLOCK, record, write
from tests.deploy.videos import pictures, read_video, write_video
from tests.documents import (
    MANUAL,
    README,
    all_lines,
    inline_commands,
    parse,
    programs,
    without_file,
)
from tests.hmseg.data.folders import make_camvid
from tests.lut.tables import table, visit
from tests.lut.test_upgrade import as_version_1

RESULTS = ROOT / "docs" / "results.md"
SMALL = Resolution(64, 128)
# In this order, as each may need what one before it has written; and what is run instead, where the
# line itself would cost much or hang on the machine's speed: a small resolution, one trial, the
# small network that the guides call my-network.onnx.
RUN = {
    "pip install -e . && hmseg-deploy quickstart": "hmseg-deploy quickstart",
    "hmseg-deploy quickstart": "true",  # the same
    "hmseg-deploy models": "",
    "hmseg-deploy export --model tiny-hmseg --resolution 256x512": "",
    "hmseg-deploy compile --model tiny-hmseg --target cpu -o tiny.hmseg":
        f"hmseg-deploy compile --model tiny-hmseg --target cpu -o tiny.hmseg -r {SMALL}",
    "hmseg-deploy compile --model tiny-hmseg --resolution 256x512 --format c -o tiny/":
        "hmseg-deploy compile --model my-network.onnx --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5"
        " --format c -o tiny/",
    "cc tiny/example.c tiny/libtiny.a -Itiny -lm -pthread -o example": "",
    "c++ segment.cpp tiny/libtiny.a -Itiny -lm -pthread -o segment"
    " && ./segment < street.rgb > labels": "",
    "hmseg-deploy compile --target cuda --arch sm_61,sm_90 -o tiny-gpu.hmseg":
        "hmseg-deploy compile --model my-network.onnx --target cuda --arch sm_61,sm_90"
        " -o tiny-gpu.hmseg",
    "hmseg-deploy verify tiny.hmseg": "",
    "hmseg-deploy verify --model tiny-hmseg": f"hmseg-deploy verify --model tiny-hmseg -r {SMALL}",
    "hmseg-deploy bench --resolution 256x512 --fail-below 1.2 --profile":
        "hmseg-deploy bench --model my-network.onnx --fail-below 0.01 --profile",
    "hmseg-deploy profile tiny.hmseg -o roofline.png": "",
    "hmseg-deploy tune --trials 4": f"hmseg-deploy tune --trials 1 --resolution {SMALL}",
    "hmseg-deploy run tiny.hmseg street.png photos/ --out out": "",
    "hmseg-deploy run tiny.hmseg street.png --out out": "",
    "hmseg-deploy run tiny.hmseg street.mp4 --out overlay.mp4": "",
    "hmseg-deploy compile --model my-network.onnx --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5"
    " -o my-network.hmseg": "",
    "hmseg-deploy verify my-network.hmseg": "",
    "hmseg-deploy bench --model my-network.onnx --artifact my-network.hmseg": "",
    "hmseg-deploy run my-network.hmseg street.mp4 --out overlay.mp4":
        "hmseg-deploy run my-network.hmseg street.mp4 --out my-overlay.mp4",
    "mkdir results": "",
    "hmseg-deploy compile --model tiny-hmseg --resolution 256x512 -o tiny.hmseg": "true",  # small
    "hmseg-deploy bench --resolution 256x512 --artifact tiny.hmseg --json > results/bench.json":
        f"hmseg-deploy bench -r {SMALL} --artifact tiny.hmseg --json > results/bench.json",
    "hmseg-deploy profile tiny.hmseg --json > results/profile.json": "",
    "hmseg-deploy report results -o report.html": "",
    "hmseg-deploy lut show tiny.jsonl -o heatmap.png": "",
    "hmseg-deploy lut merge a.jsonl b.jsonl -o both.jsonl": "",
    "hmseg-deploy lut export tiny.jsonl --csv -o tiny.csv": "",
    "hmseg-deploy upgrade TABLE.jsonl RECORDS.jsonl": "",
    "hmseg eval tiny-hmseg --data CAMVID": "",
    "hmseg-deploy compile --model tiny-hmseg --precision auto -o tiny-auto.hmseg":
        f"hmseg-deploy compile --model tiny-hmseg --precision auto -o tiny-auto.hmseg -r {SMALL}",
    "hmseg-deploy cache": "",
    "hmseg-deploy cache --clear": "",
}  # fmt: skip
NOT_RUN = {
    r"^pip install|^python3.11 -m venv|/bin/activate": "installs; .ci/run does, from nothing",
    r"--device (adb|ssh)|--adb|--rpc-key": "a device; tests/deploy/devices has one on loopback",
    r"^hmseg-deploy device (tracker|serve|emulate)": "runs until it is interrupted; the same tests",
    r"^(ssh|scp|adb|python -m deploy.devices.server) ": "concerns another machine",
    r"^benchmarks/gpu.sh|^hmseg-deploy (tune|bench|lut build|lut check) .*(cuda|gpu)": "a GPU",
    r"rtsp://|/dev/video0": "a camera",
    r"^hmseg-deploy compile .*(768x1536|fp16|int8|adreno|android)":
        "a minute each; tests/deploy/backends, cli, gpu and cpu compile for these",
    r"^hmseg-deploy compile --model tiny-mrms|^hmseg (eval|adjust) runs/|eval tiny.hmseg"
    r"|export --model runs/":
        "needs what was trained, or its frames' size; tests/deploy/cli/test_train_and_eval.py",
    r"^hmseg-deploy paper": "half an hour a table; tests/deploy/cli/test_paper.py makes small ones",
    r"^hmseg-deploy lut (build|check|calibrate)":
        "up to an hour; tests/deploy/tables does it with small ones",
    r"^hmseg (train|search) |^torchrun": "hours; tests/deploy/cli does a few small steps",
    r"^hmseg-deploy upgrade .*~": "the user's own files",
    r"^cmake": "tests/deploy/cpu/test_package.py, where cmake is installed",
    r"bf16|low.hmseg": "a CPU that has it; tests/deploy/cli/test_precision.py where there is one",
    r"^python (-m |)benchmarks": "hours, or peers that are not installed",
}  # fmt: skip


def reason(line: str) -> str:
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), "")


def test_every_line_is_run_or_it_is_said_why_not():
    lines = all_lines()
    assert [line for line in RUN if line not in lines] == []
    assert [f"{lines[at]}: {at}" for at in lines if at not in RUN and not reason(at)] == []
    left = [line for line in lines if line not in RUN]
    unused = [p for p, why in NOT_RUN.items() if why not in map(reason, left)]
    assert unused == []


def test_their_programs_know_every_option():
    """In sentences too, of every page that is written by hand and is no record of what was done."""
    pages = {*MANUAL, *(ROOT / "docs").glob("*.md")} - {PAGE, RESULTS}
    within = [line for page in pages for line in inline_commands(page.read_text())]
    assert len(within) > 10
    read = [parse(words) for line in (*all_lines(), *within) for words in programs(line)]
    assert len(read) > 80


@pytest.mark.parametrize("line", sorted(line for line in all_lines() if line.startswith("python ")))
def test_what_measures_knows_its_options(line, monkeypatch):
    """The scripts of benchmarks/, by what their own help says."""
    _, *words = shlex.split(line)
    name = words.pop(0) if words[0] != "-m" else words.pop(1)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    run = runpy.run_path if name.endswith(".py") else runpy.run_module
    said = io.StringIO()
    with redirect_stdout(said), pytest.raises(SystemExit) as ended:
        run(str(ROOT / name) if name.endswith(".py") else name, run_name="__main__")
    assert ended.value.code == 0
    for word in words:
        if word.startswith("--"):
            assert re.search(rf"{word}\b", said.getvalue()), word


@pytest.mark.parametrize(
    "wrong", ["hmseg-deploy compole", "hmseg-deploy compile --modle x", "hmseg train --lr fast"]
)
def test_what_a_program_does_not_know_is_seen(wrong):
    with pytest.raises(Exception, match=r"compole|modle|number"):
        parse(wrong.split())


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Walk:
    """What the lines said that were run, the folder that they ran in, and what the README's Python
    found before, in the same folder."""

    folder: Path
    said: dict[str, Said]
    labels: NDArray[np.uint8]


def run_here(words: list[str], main: Callable[[], None]) -> Said:
    """In this process, which has imported torch and TVM already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def run_line(line: str) -> Said:
    """Ours in this process; the quickstart, which says what a newcomer sees first, and what is not
    ours by the shell."""
    ours, file = without_file(line)
    words = shlex.split(ours)
    mains = {"hmseg-deploy": hmseg_deploy.main, "hmseg": hmseg_program.main}
    if words[0] in mains and words[1] != "quickstart":
        said = run_here(words, mains[words[0]])
        if file:
            Path(file).write_text(said.out)
        return said
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def walk(tmp_path_factory, users_folder) -> Walk:
    """All of `RUN`, in order, in a folder that has what they name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for name in ("street.png", "photos/a.jpg", "photos/b.png"):
        Image.fromarray(draw_street(Resolution(120, 200))).save(folder / name)
    (folder / "street.rgb").write_bytes(draw_street(SIZE).tobytes())
    guide = (ROOT / "docs" / "guides" / "embed.md").read_text()
    source = re.search(r"```cpp\n(.*?)```", guide, re.DOTALL)
    assert source
    (folder / "segment.cpp").write_text(source[1])
    write_video(folder / "street.mp4", pictures(10))
    write_onnx(segmenter(), folder / "my-network.onnx")
    shipped = ROOT / "lut" / "data" / "zen5-256x512-width0.5-2threads.jsonl.xz"
    for name in ("tiny.jsonl", "a.jsonl", "b.jsonl"):
        (folder / name).write_bytes(lzma.decompress(shipped.read_bytes()))
    save_table(table(visit("a")), folder / "TABLE.jsonl")
    as_version_1(folder / "TABLE.jsonl")  # what `upgrade` is for
    write(folder / "RECORDS.jsonl", record(BLOCK))
    make_camvid(folder / "CAMVID", train=1, val=1)
    said = {}
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    python: dict[str, Any] = {"image": draw_street(DEFAULT_RESOLUTION)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TVM_NUM_THREADS", "2")
        for line, instead in RUN.items():
            said[line] = done = run_line(instead or line)
            assert done.code == 0, f"{line}\n{done.err}"
            if "labels" not in python:
                exec(example, python)  # behind the first line, which has compiled the kernels
    return Walk(folder, said, python["labels"])


def test_quickstart(walk):
    """The whole walk, with the released weights."""
    done = walk.said["pip install -e . && hmseg-deploy quickstart"]
    artifact = "out/tiny-hmseg-256x512.hmseg"
    assert done.out.splitlines()[-3:] == [artifact, "out/labels.png", "out/overlay.png"]
    assert "onnxruntime / hmseg: " in done.out
    steps = [line.split("  ")[0] for line in done.err.splitlines()]
    for step in ("exporting tiny-hmseg", "checking against torch", "segmenting"):
        assert step in steps
    assert "trained on camvid" in done.err
    assert load_artifact(walk.folder / artifact).parity["checked"] is True


def test_the_readmes_picture_is_what_the_quickstart_draws(walk):
    """On every CPU up to roundings, which may move an edge by a pixel."""
    shown = np.asarray(Image.open(ROOT / "docs" / "street.png").convert("RGB"))
    drawn = np.asarray(Image.open(walk.folder / "out" / "overlay.png").convert("RGB"))
    assert (shown[:256] != drawn[:256]).any(-1).mean() < 0.01
    with Image.open(walk.folder / "out" / "labels.png") as labels:
        assert labels.size == (512, 256)
        assert labels.getextrema()[1] < 11


def test_compile(walk):
    assert walk.said["hmseg-deploy compile --model tiny-hmseg --target cpu -o tiny.hmseg"].out == (
        "tiny.hmseg\n"
    )
    artifact = load_artifact(walk.folder / "tiny.hmseg")
    assert artifact.metadata.classes.name == "camvid"  # its weights
    (gpu,) = (done for line, done in walk.said.items() if "sm_61" in line)
    assert "parity with onnxruntime" in gpu.err


def test_verify(walk):
    """The artifact by its golden image; the model on all three sides."""
    assert walk.said["hmseg-deploy verify tiny.hmseg"].err.splitlines()[-1] == "verified"
    table = walk.said["hmseg-deploy verify --model tiny-hmseg"].out
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["torch"] * 5 + ["tvm"] * 5
    assert {row[-1] for row in rows} == {"yes"}


def test_what_else_they_leave(walk):
    """Results, and what is measured and carried over."""
    left = [
        "tiny-hmseg-256x512.onnx", "roofline.png", "heatmap.png", "tiny.csv", "both.jsonl",
        "example", "out/street-overlay.png", "out/a-labels.png",
    ]  # fmt: skip
    assert all((walk.folder / name).stat().st_size > 0 for name in left)
    for video in ("overlay.mp4", "my-overlay.mp4"):
        assert len(read_video(walk.folder / video)) == 10
    labels = np.frombuffer((walk.folder / "labels").read_bytes(), np.uint8).reshape(SIZE)
    kept = load_artifact(walk.folder / "my-network.hmseg").golden  # of the same drawing
    assert (labels == kept.labels).all()
    assert "rule / records, whole network: " in walk.said["hmseg-deploy tune --trials 4"].out
    page = (walk.folder / "report.html").read_text()
    assert all(f"<code>{name}</code>" in page for name in ("bench.json", "profile.json"))
    upgraded = walk.said["hmseg-deploy upgrade TABLE.jsonl RECORDS.jsonl"].out
    assert upgraded.count("carried over: 1 records") == 2
    assert "mean " in walk.said["hmseg eval tiny-hmseg --data CAMVID"].out


def test_the_python_of_the_readme(walk):
    """It finds what the quickstart does, which sees the same drawing."""
    with Image.open(walk.folder / "out" / "labels.png") as labels:
        np.testing.assert_array_equal(np.asarray(labels), walk.labels)


def test_ci_runs_the_same_test_command():
    command = "pip install -e '.[dev]' && pytest"
    assert command in README.read_text()
    assert command in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    ("shown", "measured"),
    [
        ("| `tiny-hmseg` | 68.6% | 0.47 M | 1.52 ms |", "| tiny-hmseg | 68.58 |"),
        ("| 0.47 M |", "| tiny-hmseg | 0.473 |"),
        ("| 1.52 ms | onnxruntime 2.80 |", "| 1.524 [1.494..1.529] |"),
        ("| onnxruntime 2.80 |", "| 2.80 [2.65..3.01] |"),
        ("| 1.90 ms (1024x2048) | 1.78 |", "| 1024x2048 | 1.899 | 2.92 [2.87..2.93] | 1.78 "),
        ("| `tiny-mrms` | 68.4% | 0.62 M |", "| tiny-mrms | 68.44 |"),
        ("| 0.62 M |", "| tiny-mrms | 0.622 |"),
        ("| `mrms` | 71.8% | 2.06 M |", "| mrms | 71.84 |"),
        ("| 1.59 ms | LiteRT 2.38, onnxruntime 2.71 |",
         "| labels | 2 | 1.59 | 74.3% | litert | 2.38 [2.26..2.54] | 2.71 |"),
        ("| 1.20 ms (768x1536) | 1.91 |", "| 768x1536 | 1.197 | 2.96 [2.94..2.98] | 1.91 "),
        ("| 4.01 ms | LiteRT 1.78, onnxruntime 2.07 |",
         "| labels | 2 | 4.01 | 78.6% | litert | 1.78 [1.74..1.78] | 2.07 |"),
        ("| 1.97 ms (768x1536) | 1.88 |", "| 768x1536 | 1.966 | 2.30 [2.29..2.31] | 1.88 "),
    ],
)  # fmt: skip
def test_its_figures_are_those_of_the_results(shown, measured):
    """Rounded; where a figure is measured anew, both places change."""
    assert shown in README.read_text()
    assert measured in RESULTS.read_text()


def test_the_readme_is_short():
    assert len(README.read_text().split()) < 600
