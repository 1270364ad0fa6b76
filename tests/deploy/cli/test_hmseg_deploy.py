import statistics
import subprocess
import sys
import time

import pytest

from lut.errors import WorkError
from tests.deploy.cli.conftest import PROGRAM, run_program

COMMANDS = (
    "quickstart", "models", "export", "compile", "verify", "bench", "profile", "tune", "lut", "run",
    "device", "cache", "upgrade", "paper",
)  # fmt: skip


def test_help_lists_the_commands():
    done = run_program("--help").succeeded()
    assert all(command in done.out for command in COMMANDS)
    assert run_program().succeeded().out == done.out  # nothing asked: the same


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(cli, command):
    done = cli(command, "--help").succeeded()
    assert f"hmseg-deploy {command}" in done.out
    assert done.err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime", "numpy", "PIL"} & imported


def test_help_answers_at_once():
    """Against an empty Python: the limit of 0.5 s is a ratio, which a busy machine keeps."""

    def seconds(command: list[str]) -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    python, helped = [], []
    for _ in range(3):
        python.append(seconds([sys.executable, "-c", "pass"]))
        helped.append(seconds([*PROGRAM, "--help"]))
    assert statistics.median(helped) < 25 * statistics.median(python)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["compile", "--nonsense"], "No such option: --nonsense"),
        (["run"], "Missing argument"),
        (["run", "only-an-artifact"], "Missing argument"),
        (["bench", "--repeat", "many"], "--repeat"),
        (["compile", "surplus"], "surplus"),
    ],
)
def test_usage(cli, arguments, message):
    done = cli(*arguments)
    assert done.code == 2
    assert message in done.error
    assert done.out == ""


@pytest.mark.parametrize("command", ["quickstart", "compile", "verify", "bench", "tune"])
def test_whatever_compiles_a_users_file_compares_with_it(cli, user_onnx, monkeypatch, command):
    """Before anything is compiled."""

    def refuse(own, *_):
        raise WorkError(f"{own.output} was compared")

    monkeypatch.setattr("deploy.build.check_reading", refuse)
    done = cli(command, "--model", user_onnx)
    assert done.code == 1
    assert "scores was compared" in done.error
