"""What is timed is the user's command; the record has bytes, seconds, machine and date."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import int8_compile
from lut.errors import WorkError


def run(monkeypatch, tmp_path: Path, code: int = 0, size: int = 888_000) -> tuple[int, list]:
    """`main` with a compiler that writes a file of so many bytes, and the commands that it saw."""
    commands = []

    def compiler(command, **_):
        commands.append(command)
        Path(command[-1]).write_bytes(bytes(size))
        return subprocess.CompletedProcess(command, code, "", "error: no frames")

    monkeypatch.setattr(int8_compile.subprocess, "run", compiler)
    arguments = ["--data", str(tmp_path), "-o", str(tmp_path / "record.json")]
    monkeypatch.setattr(sys, "argv", ["int8_compile", *arguments])
    return int8_compile.main(), commands


def test_a_record(monkeypatch, tmp_path, capsys):
    result, commands = run(monkeypatch, tmp_path)
    assert result == 0
    assert [command[command.index("--resolution") + 1] for command in commands] == [
        *int8_compile.RESOLUTIONS
    ]
    assert all("--no-cache" in command and "int8" in command for command in commands)
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["bytes"] for row in record["rows"]] == [888_000, 888_000]
    assert record["machine"]
    assert record["date"]
    assert "888,000" in capsys.readouterr().out


def test_bars(monkeypatch, tmp_path):
    assert run(monkeypatch, tmp_path, size=int8_compile.MOST_BYTES + 1)[0] == 1
    rows = [{"bytes": 1, "seconds": 59}, {"bytes": 1_000_000, "seconds": 61}]
    assert not int8_compile.passed(rows)
    assert int8_compile.passed(rows[:1])  # bytes are the first size's to hold


def test_a_failure_is_told_and_leaves_no_record(monkeypatch, tmp_path):
    with pytest.raises(WorkError, match="not compiled: error: no frames"):
        run(monkeypatch, tmp_path, code=2)
    assert not (tmp_path / "record.json").exists()
