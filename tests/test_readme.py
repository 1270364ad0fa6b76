"""The commands that the README shows, run as a newcomer would type them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from deploy.resolution import Resolution
from deploy.street import draw_street

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def table_commands():
    """The first column of the table of commands."""
    return re.findall(r"^\| `(hmseg-deploy [^`]*)` \|", README, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the images that the commands name."""
    from PIL import Image

    path = tmp_path_factory.mktemp("readme")
    (path / "photos").mkdir()
    for name in ("street.png", "photos/a.jpg", "photos/b.png"):
        Image.fromarray(draw_street(Resolution(120, 200))).save(path / name)
    return path


def test_every_command_of_the_table_works_in_order(folder):
    commands = table_commands()
    assert len(commands) >= 8
    for command in commands:
        done = subprocess.run(
            shlex.split(command), cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (folder / "out" / "labels.png").stat().st_size > 0
    assert (folder / "out" / "street-overlay.png").stat().st_size > 0
    assert (folder / "out" / "a-labels.png").stat().st_size > 0


def test_ci_runs_the_same_test_command():
    command = "pip install -e '.[dev]' && pytest"
    assert command in README
    assert command in (ROOT / ".ci" / "run").read_text()


def test_every_link_of_the_readme_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
