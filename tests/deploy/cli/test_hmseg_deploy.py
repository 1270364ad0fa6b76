import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

from lut.errors import WorkError
from tests.deploy.cli.conftest import PROGRAM, hmseg, run_program

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


def test_no_description_is_cut(cli):
    for group in ([], ["lut"], ["device"]):
        assert "..." not in cli(*group, "--help").succeeded().out.split("Commands:")[1]
    assert "..." not in hmseg("--help").out.split("Commands:")[1]


def test_precision_speaks_of_a_commands_own_options(cli):
    for command in ("paper", "verify", "bench", "compile"):
        words = " ".join(cli(command, "--help").succeeded().out.split())
        assert ("auto, the fastest" in words) == ("--calibrate" in words) == (command == "compile")


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["run", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime", "numpy", "PIL"} & imported


@pytest.mark.parametrize("command", ["compile", "export", "bench", "tune", "verify"])
def test_a_file_is_read_before_the_memory_is_taken(command, tmp_path):
    """What a hostile file takes comes on top of what the program holds."""
    (tmp_path / "n.onnx").write_bytes(b"no network")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PROGRAM[1:], command, "--model", tmp_path / "n.onnx"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert "n.onnx: it is no ONNX file" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "deploy.reading" in imported
    assert not {"torch", "tvm", "tvm_ffi"} & imported


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


def test_version(cli):
    done = cli("--version").succeeded()
    assert (done.out, done.err) == (f"hmseg-deploy {version('hmseg')}\n", "")
    assert hmseg("--version").out == f"hmseg {version('hmseg')}\n"


REFUSED = {
    "compile -r 64": "resolution '64': write HEIGHTxWIDTH",
    "lut build -r 1x1": "resolution 1x1: both sides",
    "compile --model nonsense": "unknown model 'nonsense'",
    "quickstart -m tiny-mrsm": "did you mean tiny-mrms?",
    "verify -m none.onnx": "none.onnx: no such file",
    "compile -t nonsense": "unknown target 'nonsense'",
    "tune -t znver": "did you mean znver5?",
    "bench -t {": "target: not JSON",
    "lut check TABLE --target riscv": "unknown target 'riscv'",
    "compile --precision fp8": "unknown precision 'fp8'",
    "export --mean 3,3,3": "--mean 3,3,3: the numbers must lie in 0..1",
    "export --std a": "--std 'a': write one number",
    "compile --threshold nan": "--threshold nan",
    "profile none --threads 0": "--threads 0",
    "device list --rpc-tracker 127.0.0.1:1": "no tracker answers at 127.0.0.1:1",
    "device list --adb": "adb is not installed",
    "compile --device adb": "adb is not installed",
    "device doctor --device adb:a": "adb is not installed",
    "bench --device nonsense": "--device nonsense: write ssh:HOST",
    "compile --rpc-key a --rpc-tracker 127.0.0.1:1": "no tracker answers at 127.0.0.1:1",
}
IN_TURN = """
import json, sys
from deploy.cli.hmseg_deploy import main
heavy = {"torch", "tvm", "tvm_ffi", "onnx", "onnxruntime", "numpy", "PIL"}
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words.split()
    try:
        main()
    except SystemExit as end:
        print(end.code, *heavy & set(sys.modules))
"""


def test_what_is_wrong_is_refused_before_anything_heavy_is_imported(tmp_path):
    """All in one process: what one imports, the others show."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(list(REFUSED))], capture_output=True, text=True,
        check=False, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
    )  # fmt: skip
    assert done.stdout.split("\n") == ["2"] * len(REFUSED) + [""], done.stderr
    for words, line in zip(REFUSED, done.stderr.splitlines(), strict=True):
        assert line.startswith("error: "), words
        assert REFUSED[words] in line


@pytest.mark.parametrize("command", ["quickstart", "compile", "verify", "bench", "tune"])
def test_whatever_compiles_a_users_file_compares_with_it(cli, user_onnx, monkeypatch, command):
    """Before anything is compiled."""

    def refuse(own, *_):
        raise WorkError(f"{own.output} was compared")

    monkeypatch.setattr("deploy.build.check_reading", refuse)
    done = cli(command, "--model", user_onnx)
    assert done.code == 1
    assert "scores was compared" in done.error
