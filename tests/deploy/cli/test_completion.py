"""What a shell offers, and that it does not wait for torch or TVM."""

import subprocess
import sys

import pytest

from deploy.cli import completion
from deploy.graph.source import check_model
from deploy.resolution import parse_resolution
from deploy.targets import check_target
from hmseg import zoo


def test_what_is_offered_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert completion.networks("") == zoo.list_models()
    for name in completion.models(""):
        check_model(name)
    for begun in ("", "z", "cortex", "x86"):
        for target in completion.targets(begun):
            check_target(target)
    for size in completion.resolutions(""):
        parse_resolution(size)


def test_what_is_begun_counts():
    assert set(completion.networks("tiny-m")) == {n for n in zoo.list_models() if "tiny-m" in n}
    assert completion.targets("znver")[0] == "znver1"
    assert completion.targets("cu") == ["cuda"]
    assert "znver1" not in completion.targets("")
    assert completion.resolutions("25") == ["256x512"]


def test_files_of_the_users(tmp_path, monkeypatch):
    (tmp_path / "nets" / "old").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    for name in ("nets/a.onnx", "nets/b.txt", "own.onnx"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert completion.models("")[len(zoo.list_models()) :] == ["nets/", "own.onnx"]
    assert completion.models(".h") == [".hidden/"]
    assert completion.models("nets/") == ["nets/a.onnx", "nets/old/"]
    assert completion.models(f"{tmp_path}/o") == [f"{tmp_path}/own.onnx"]
    assert completion.models("none/x") == []


@pytest.mark.parametrize(
    ("program", "line", "offered"),
    [
        ("hmseg-deploy", "compile --model tiny-h", "tiny-hmseg"),
        ("hmseg-deploy", "compile --model nonsense -r 25", "256x512"),  # not yet refused
        ("hmseg-deploy", "bench -t cortex-x1", "cortex-x1 cortex-x1c"),
        ("hmseg", "train -m tiny-h", "tiny-hmseg"),
    ],
)
def test_as_a_shell_asks(program, line, offered):
    words, name = f"{program} {line}".split(), program.replace("-", "_")
    code = (
        f"import atexit, sys; from deploy.cli.{name} import main\n"
        "heavy = {'torch', 'tvm', 'onnx', 'onnxruntime', 'numpy', 'rich'}\n"
        "atexit.register(lambda: print(*heavy & set(sys.modules), file=sys.stderr))\n"
        "main()"
    )
    asked = {
        f"_{name.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": ":".join(sys.path), **asked},
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (offered.split(), "\n")
