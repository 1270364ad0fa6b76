"""The commands that the README shows, run as a newcomer would type them."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from deploy.artifact_file import load_artifact
from deploy.cli import hmseg, hmseg_deploy
from deploy.resolution import Resolution
from deploy.street import draw_street
from lut.table_file import save_table
from tests.conftest import ROOT
from tests.deploy.tuning.test_upgrade import BLOCK, record, write
from tests.deploy.videos import pictures, read_video, write_video
from tests.lut.tables import table, visit
from tests.lut.test_upgrade import as_version_1

README = (ROOT / "README.md").read_text()


def table_commands() -> list[str]:
    """The first column of the table of commands."""
    return re.findall(r"^\| `(hmseg-deploy [^`]*)` \|", README, re.MULTILINE)


@dataclass(frozen=True)
class Walk:
    """What the commands said, in the order of the table, and the folder that they ran in."""

    folder: Path
    said: dict[str, subprocess.CompletedProcess[str]]

    def of(self, command: str) -> subprocess.CompletedProcess[str]:
        """Of the one command that begins like this."""
        (done,) = (done for text, done in self.said.items() if text.startswith(command))
        return done


@pytest.fixture(scope="module")
def walk(tmp_path_factory, users_folder) -> Walk:
    """All of them, in order: each may need what one before it has written."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for name in ("street.png", "photos/a.jpg", "photos/b.png"):
        Image.fromarray(draw_street(Resolution(120, 200))).save(folder / name)
    write_video(folder / "street.mp4", pictures(10))
    save_table(table(visit("a")), folder / "TABLE.jsonl")
    as_version_1(folder / "TABLE.jsonl")  # what `upgrade` is for
    write(folder / "RECORDS.jsonl", record(BLOCK))
    said = {
        command: subprocess.run(
            shlex.split(command), cwd=folder, capture_output=True, text=True, check=False
        )
        for command in table_commands()
    }
    return Walk(folder, said)


def test_every_command_of_the_table_works_in_order(walk):
    assert len(walk.said) >= 11
    for command, done in walk.said.items():
        assert done.returncode == 0, f"{command}\n{done.stderr}"


def test_quickstart(walk):
    """The whole walk, with the released weights."""
    done = walk.of("hmseg-deploy quickstart")
    artifact = "out/tiny-hmseg-256x512.hmseg"
    assert done.stdout.splitlines()[-3:] == [artifact, "out/labels.png", "out/overlay.png"]
    assert "onnxruntime / hmseg: " in done.stdout
    steps = [line.split("  ")[0] for line in done.stderr.splitlines()]
    for step in ("exporting tiny-hmseg", "checking against torch", "segmenting"):
        assert step in steps
    assert "trained on camvid" in done.stderr
    with Image.open(walk.folder / "out" / "labels.png") as labels:
        assert labels.size == (512, 256)
        assert labels.getextrema()[1] < 11
    assert (walk.folder / "out" / "overlay.png").stat().st_size > 0
    assert load_artifact(walk.folder / artifact).parity["checked"] is True


def test_compile(walk):
    assert walk.of("hmseg-deploy compile --model").stdout == "tiny.hmseg\n"
    artifact = load_artifact(walk.folder / "tiny.hmseg")
    assert artifact.metadata.classes.name == "camvid"  # its weights
    assert "parity with onnxruntime" in walk.of("hmseg-deploy compile --target cuda").stderr


def test_verify(walk):
    """The artifact by its golden image; the model on all three sides."""
    assert walk.of("hmseg-deploy verify tiny.hmseg").stderr.splitlines()[-1] == "verified"
    table = walk.of("hmseg-deploy verify --model").stdout
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["torch"] * 5 + ["tvm"] * 5
    assert {row[-1] for row in rows} == {"yes"}


def test_what_else_they_leave(walk):
    """Results, and what is measured and carried over."""
    left = ["tiny-hmseg-256x512.onnx", "roofline.png", "out/street-overlay.png", "out/a-labels.png"]
    assert all((walk.folder / name).stat().st_size > 0 for name in left)
    assert len(read_video(walk.folder / "overlay.mp4")) == 10
    assert "rule / records, whole network: " in walk.of("hmseg-deploy tune").stdout
    assert walk.of("hmseg-deploy upgrade").stdout.count("carried over: 1 records") == 2


def commands_with(option: str, command: Any, name: str = "") -> Iterator[str]:
    """Names of the commands in this one, or of itself, that take an option."""
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands_with(option, inner, f"{name} {word}".strip())
    if any(option in parameter.opts for parameter in command.params):
        yield name


def test_json():
    """The list is that of the commands which take it."""
    listed = re.search(r"These take `--json`:(.*?)\. Data", README, re.DOTALL)[1]
    taking = {
        *commands_with("--json", get_command(hmseg_deploy.app)),
        *commands_with("--json", get_command(hmseg.app), "hmseg"),
    }
    assert set(re.findall("`([^`]+)`", listed)) == taking


def test_ci_runs_the_same_test_command():
    command = "pip install -e '.[dev]' && pytest"
    assert command in README
    assert command in (ROOT / ".ci" / "run").read_text()


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
