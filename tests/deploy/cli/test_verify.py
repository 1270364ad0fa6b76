import json
from dataclasses import replace

import pytest

from deploy.artifact_file import save_artifact


def test_an_artifact(cli, artifact_path):
    done = cli("verify", artifact_path).succeeded()
    assert "yes" in done.out
    assert done.err.splitlines()[-1] == "verified"


def test_a_model(cli, user_onnx):
    data = json.loads(cli("verify", "-m", user_onnx, "--json").succeeded().out)
    # The graph against the file, what its ends add, then the binary.
    assert sorted(c["side"] for c in data) == ["ends"] * 2 + ["file"] * 2 + ["tvm"] * 5
    assert all(c["passed"] for c in data)


def test_an_artifact_that_differs_is_exit_1(cli, artifact, tmp_path):
    golden = replace(artifact.golden, logits=artifact.golden.logits + 1)
    save_artifact(replace(artifact, golden=golden), tmp_path / "a.hmseg")
    done = cli("verify", "a.hmseg")
    assert done.code == 1
    assert "NO" in done.out
    assert "does not match onnxruntime" in done.error
    done = cli("verify", "a.hmseg", "--json")
    assert done.code == 1
    assert json.loads(done.out)[0]["passed"] is False


def damaged(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    return {
        "empty": b"",
        "text": b"hello",
        "cut": content[: len(content) // 2],
        "last byte": content[:-1],
        "flipped": bytes(flipped),
    }


@pytest.mark.parametrize("case", ["empty", "text", "cut", "last byte", "flipped"])
def test_damaged_artifacts(cli, artifact_path, tmp_path, case):
    (tmp_path / "a.hmseg").write_bytes(damaged(artifact_path.read_bytes())[case])
    done = cli("verify", "a.hmseg")
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith("error: a.hmseg: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an artifact, or a model"),
        (["a.hmseg", "-m", "mrms"], "not both"),
        (["none.hmseg"], "no such file"),
        (["-m", "mrms", "-r", "1x1"], "between 64"),
        (["-m", "mrms", "-t", "nonsense"], "unknown target 'nonsense'"),
        (["-m", "mrms", "--threads", "0"], "--threads 0"),
    ],
)
def test_bad_input(cli, arguments, message):
    done = cli("verify", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.error


def test_for_another_machine(cli, artifact, tmp_path):
    other = replace(artifact, target=replace(artifact.target, architecture="riscv64"))
    save_artifact(other, tmp_path / "a.hmseg")
    done = cli("verify", "a.hmseg")
    assert done.code == 2
    assert "compiled for riscv64, this machine is x86_64" in done.error
