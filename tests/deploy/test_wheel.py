"""The wheel: everything is in it, and it works where the checkout is not."""

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy
import pytest

from tests.conditions import SETUPTOOLS
from tests.conftest import ROOT

PACKAGES = ("lut", "hmseg", "deploy")
pytestmark = SETUPTOOLS.mark


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel, built from a copy, without a network, and unpacked as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    command = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(folder), str(source)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"hmseg-{version('hmseg')}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def files(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for name in PACKAGES
        for path in (root / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_every_file_of_the_packages_is_in_it(unpacked):
    assert files(unpacked) == files(ROOT)
    kinds = {Path(name).suffix for name in files(unpacked)}
    assert {".c", ".h", ".safetensors", ".json", ".jsonl", ".xz", ".typed"} <= kinds


def outside(code: str, *arguments: object, path: list[Path], options=()) -> str:
    """What Python prints in a folder that is not the checkout, with these on its path alone."""
    done = subprocess.run(
        [sys.executable, *options, "-c", code, *map(str, arguments)], capture_output=True,
        text=True, check=False, cwd=path[0].parent,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


RUN = """
import sys, hmseg
from deploy.verify import replay_golden
network = hmseg.load(sys.argv[1], threads=2)
print(hmseg.__file__, network(network.artifact.golden.image).shape, replay_golden(network).passed)
"""


def test_it_loads_and_runs_a_network_with_numpy_alone(unpacked, artifact_path, tmp_path):
    """Without site-packages: only numpy's own folders are there."""
    for path in Path(numpy.__file__).parent.parent.glob("numpy*"):
        (tmp_path / path.name).symlink_to(path)
    said = outside(RUN, artifact_path, path=[unpacked, tmp_path], options=["-S"])
    assert said == f"{unpacked / 'hmseg' / '__init__.py'} (64, 64) True"


PROGRAM = """
import sys, hmseg.packages
sys.argv = ["hmseg-deploy", *sys.argv[1:]]
hmseg.packages.run_hmseg_deploy()
"""


def test_its_program_starts(unpacked):
    assert outside(PROGRAM, "--version", path=[unpacked]) == f"hmseg-deploy {version('hmseg')}"
