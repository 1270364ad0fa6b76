"""Running the program: in this process, where what it imports is there already, and in one of its
own where that matters."""

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from deploy.cli.hmseg_deploy import main
from tests.deploy.graphs import segmenter, write


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error line; fails where there is none, or more, or a traceback."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert lines[-1] == errors[0], self.err
        assert "Traceback" not in self.err + self.out
        return errors[0]

    def succeeded(self) -> "Done":
        assert self.code == 0, self.err
        assert not [line for line in self.err.splitlines() if line.startswith("error:")]
        return self


Run = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the program in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TVM_NUM_THREADS", "2")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["hmseg-deploy", *map(str, arguments)])
        _collect()
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@cache
def _freeze() -> None:
    gc.freeze()


def _collect() -> None:
    """TVM warns when what an earlier failure left behind is destroyed: not this run's words. What
    was there at first, the modules of torch and TVM, is not looked through every time."""
    gc.collect()
    _freeze()


PROGRAM = [sys.executable, "-m", "deploy.cli.hmseg_deploy"]


def run_program(*arguments: object, env: dict[str, str] | None = None, **options) -> Done:
    """Run the program in a process of its own."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, **(env or {})}, **options,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def hmseg(*arguments: object) -> Done:
    """Run `hmseg` in this process, for fixtures too: torch is imported once."""
    from deploy.cli.hmseg import main

    return run_here(main, "hmseg", *arguments)


def run_here(main: Callable[[], None], name: str, *arguments: object) -> Done:
    """Run a program's main function in this process."""
    import torch

    out, err, threads, code = io.StringIO(), io.StringIO(), torch.get_num_threads(), None
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        patch.setenv("TVM_NUM_THREADS", "2")
        try:
            main()
        except SystemExit as end:
            code = end.code
    torch.set_num_threads(threads)
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def files(folder: Path) -> Sequence[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="session")
def user_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file of two convolutions, 64x64: quick to compile."""
    return write(segmenter(), tmp_path_factory.mktemp("user") / "mine.onnx")
