"""The table of exported files: what is made again, and the pools of the tracing exporter."""

import io

import onnxruntime
import pytest
import torch
import torch.nn.functional as F

from benchmarks import own_files, own_files_exports
from lut.jsonl import read_records


@pytest.mark.parametrize(("size", "grid"), [((8, 16), 3), ((8, 16), (6, 5)), ((4, 4), 2)])
def test_divided_pools_are_torchs(size, grid):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool2d(x, grid)
    with own_files_exports.divided_pools():
        pooled = torch.nn.AdaptiveAvgPool2d(grid)(x)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(F.adaptive_avg_pool2d(x, grid), expected, rtol=0, atol=0)


@pytest.mark.parametrize("opset", [11, 20])
def test_the_tracing_exporter_writes_unpooling(opset):
    class Unpool(torch.nn.Module):
        def forward(self, x):
            y, indices = F.max_pool2d(x, 2, return_indices=True)
            return F.max_unpool2d(y, indices, (2, 2), output_size=(4, 6))

    x, file = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)), io.BytesIO()
    own_files_exports.know_unpooling()
    torch.onnx.export(Unpool(), (x,), file, dynamo=False, opset_version=opset, input_names=["x"])
    (y,) = onnxruntime.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), Unpool()(x), rtol=0, atol=0)


def test_only_what_is_missing_is_made_and_equal_files_are_compiled_once(
    tmp_path, monkeypatch, capsys
):
    made = []

    def in_process(task, _limit):
        made.append(task["step"])
        if task["step"] == "compile":
            failed = {"failed": "gate", "why": "differs"} if "legacy" in task["path"] else {}
            return [failed or {"share_of_tolerance": 0.5}]
        # The newer exporter gives the same file for both opsets.
        return [
            {**file, "runs": True, "error": 1e-6, "sha256": file["exporter"]}
            for file in task["files"]
        ]

    def complete(task, limit):
        return [
            row | {"step": task["step"], "seconds": 1.0, "MB": 100}
            for row in in_process(task, limit)
        ]

    monkeypatch.setattr(own_files, "in_process", complete)
    arguments = ["own_files", "--folder", str(tmp_path), "--networks", "unet", "--opsets"]
    monkeypatch.setattr("sys.argv", [*arguments, "17"])
    assert own_files.main() == 1
    assert made == ["export", "compile", "compile"]
    monkeypatch.setattr("sys.argv", [*arguments, "17", "20"])
    assert own_files.main() == 1
    assert made == ["export", "compile", "compile", "export"]
    table = capsys.readouterr().out.splitlines()[-5:]
    assert [("compiled, 50.0%" in row, "gate: differs" in row) for row in table[:4]] == [
        (True, False), (True, False), (False, True), (False, True),
    ]  # fmt: skip
    assert len(read_records(tmp_path / "rows.jsonl")) == 6
