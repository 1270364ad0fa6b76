import json
from pathlib import Path

import pytest

from deploy.artifact_file import load_artifact
from deploy.object_cache import default_cache, key_of
from tests.deploy.cli.conftest import run_program


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HMSEG_CACHE_MB", raising=False)
    return tmp_path / "home"


def fill(count):
    for number in range(count):
        default_cache().put(key_of(str(number)), bytes(100_000 - 32))


def test_an_empty_one(cli, home):
    lines = cli("cache").succeeded().out.splitlines()
    assert [line.split() for line in lines] == [
        ["folder", str(home / "objects")],
        ["entries", "0"],
        ["size", "0.0", "MB", "of", "at", "most", "512", "MB", "(HMSEG_CACHE_MB)"],
    ]
    assert not home.exists()


def test_what_is_in_it(cli, home):
    fill(3)
    data = json.loads(cli("cache", "--json").succeeded().out)
    assert data == {
        "folder": str(home / "objects"), "entries": 3, "bytes": 300_000,
        "limit_bytes": 512_000_000,
    }  # fmt: skip


def test_clearing(cli, home):
    fill(3)
    done = cli("cache", "--clear", "--json").succeeded()
    assert "removed 3 entries" in done.err
    assert json.loads(done.out)["entries"] == 0
    assert list((home / "objects").iterdir()) == []
    assert "removed 0 entries" in cli("cache", "--clear").succeeded().err


def test_a_bad_limit(cli, monkeypatch):
    monkeypatch.setenv("HMSEG_CACHE_MB", "much")
    done = cli("cache")
    assert (done.code, done.out) == (2, "")
    assert "HMSEG_CACHE_MB much: write a whole number of MB" in done.error


def test_compiling_fills_it_and_reads_it(cli, home, user_onnx, monkeypatch):
    cli("compile", "-m", user_onnx, "--no-cache", "-o", "plain.hmseg").succeeded()
    assert not home.exists()
    cli("compile", "-m", user_onnx, "-o", "first.hmseg").succeeded()
    entries = json.loads(cli("cache", "--json").succeeded().out)["entries"]
    assert entries > 1

    def refuse(*_arguments):
        raise AssertionError("compiled again")

    monkeypatch.setattr("deploy.cpu.machine_code.compile_kernel", refuse)
    cli("compile", "-m", user_onnx, "-o", "second.hmseg", "--dump-passes", "passes").succeeded()
    assert json.loads(cli("cache", "--json").succeeded().out)["entries"] == entries
    libraries = [load_artifact(Path(f"{name}.hmseg")).code.members()
                 for name in ("plain", "first", "second")]  # fmt: skip
    assert libraries[0] == libraries[1] == libraries[2]
    assert Path("passes/00-import.py").exists()


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, user_onnx):
    (tmp_path / "home").write_text("")
    done = run_program(
        "compile", "-m", user_onnx, "-o", tmp_path / "out.hmseg",
        env={"HMSEG_HOME": str(tmp_path / "home"), "HMSEG_CACHE_MB": "512"},
    ).succeeded()  # fmt: skip
    warned = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 1
    assert warned[0].startswith("warning: nothing new is cached: cannot write ")
