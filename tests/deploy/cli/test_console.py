import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from deploy.cli import console
from lut.errors import UserError, WorkError
from lut.table import Measure
from tests.conftest import ROOT
from tests.deploy.cli.conftest import PROGRAM, run_program


def test_nothing_of_a_files_text_is_obeyed_by_the_terminal(capfd):
    name = "a\x1b[31m\udcdf\x07z"
    console.say(name)
    console.print_table(name, ("class",), [(name,)])
    with console.step(name) as step:
        step.at(name)
    out, err = capfd.readouterr()
    assert "\x1b[31m" not in out + err
    assert out.count("a\\x1b[31m\\udcdf\\x07z") == 2
    assert "a\\x1b[31m\\udcdf\\x07z" in err


def test_a_long_step_that_says_much_is_heard_at_times(capfd, monkeypatch):
    """Without a terminal: a line after each ten seconds of silence, else none."""
    at = 0.0
    monkeypatch.setattr(console.time, "perf_counter", lambda: at)
    told: list[str] = []
    step = console.Step("compiling", told.append)
    for at in (3.0, 12.0, 15.0, 30.0):
        step.tell_at_times(f"kernel {at:.0f}")
    assert told == [f"compiling: kernel {i}" for i in (3, 12, 15, 30)]
    assert capfd.readouterr().err.split("\n") == [
        "     12 s  kernel 12", "     30 s  kernel 30", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("bad\nfile"), 2, "error: bad file"),
        (WorkError("it differs"), 1, "error: it differs"),
        (
            UserError("no table", mend=Measure(None, "a b.jsonl")),
            2,
            "error: no table: hmseg-deploy lut build -o 'a b.jsonl'",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (typer.Abort(), 130, "error: interrupted"),
        (MemoryError(), 2, "error: out of memory; choose a smaller resolution"),
        (OSError(28, "No space left on device"), 2, None),
        (typer.Exit(1), 1, None),
    ],
)
def test_exit_codes_and_the_one_line(error, code, line, monkeypatch, capfd):
    app = typer.Typer()

    @app.command()
    def other() -> None:
        """A second command, so that they have names."""

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["program", "fail"])
    monkeypatch.setattr(console, "_discard_stdout", lambda: None)
    with pytest.raises(SystemExit) as ended:
        console.run_program(app)
    assert ended.value.code == code
    out, err = capfd.readouterr()
    assert out == ""
    if line:
        assert err == line + "\n"
    assert "Traceback" not in err


def test_a_mistake_of_ours_is_not_hidden(monkeypatch):
    """A bug shows its traceback: only what a user can mend is one line."""
    app = typer.Typer()

    @app.command()
    def other() -> None:
        """A second command, so that they have names."""

    @app.command()
    def fail() -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(sys, "argv", ["program", "fail"])
    with pytest.raises(AssertionError, match="a bug"):
        console.run_program(app)


def test_tables_are_not_cut_where_they_are_piped(capsys):
    long = "x" * 150
    console.print_table("title", ("name", "value"), [(long, "[red]1[/red]"), ("b", 2)])
    out = capsys.readouterr().out
    assert long in out
    assert "[red]1[/red]" in out  # a name is no markup


def test_steps_speak_on_stderr(capsys):
    with console.step("working") as progress:
        progress.at("a detail")
        progress.result = "7 things"
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("working")
    assert "7 things" in err


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(
        f"{' '.join(PROGRAM)} models -r 64x64 --json | true; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_behind_stdout(options):
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [*PROGRAM, "models", "tiny-mrms", "-r", "64x64", *options], stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_interrupting(artifact_path, graph, tmp_path):
    """Ctrl-C in the middle of a long timing."""
    (tmp_path / "n.onnx").write_bytes(graph.SerializeToString())
    process = subprocess.Popen(
        [*PROGRAM, "bench", "-m", str(tmp_path / "n.onnx"), "--artifact", str(artifact_path),
         "--rounds", "1000000", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell's background jobs ignore the signal, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    # The first step's line says that the imports are over; then the timing goes on for hours.
    assert process.stderr is not None
    try:
        first = process.stderr.readline()
        assert first.startswith("exporting")
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert (out, err.splitlines()[-1]) == ("", "error: interrupted")
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]


@pytest.mark.parametrize("no_color", [{}, {"NO_COLOR": "1"}])
def test_no_color(no_color):
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color", **no_color}
    done = run_program("models", "tiny-mrms", "-r", "64x64", env=env).succeeded()
    assert "tiny-mrms" in done.out
    colours = [code for code in ("\x1b[3", "\x1b[4", "\x1b[9") if code in done.out + done.err]
    assert not colours or not no_color


# A program of ours that prints a name and says something, with nothing heavy in it.
SPEAKS = """
import sys
from deploy.cli.console import run_main, say
def main():
    say("prose")
    print(sys.argv[1])
run_main(main)
"""


def speak(name: bytes, closing: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {closing}', sys.executable, SPEAKS, name]
    return subprocess.run(
        command, capture_output=True, check=False, env=os.environ | environment, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [
        (b"stra\xdfe.png", "utf-8:strict", b"stra\\udcdfe.png\n"),
        ("\u4e2d.png".encode(), "latin-1", b"\\u4e2d.png\n"),
        ("\u4e2d.png".encode(), "utf-8", "\u4e2d.png\n".encode()),
    ],
)
def test_a_name_that_cannot_be_shown_is_escaped(name, encoding, shown):
    done = speak(name, PYTHONIOENCODING=encoding, PYTHONUTF8="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, b"prose\n")


def test_a_closed_stdout_is_said_at_the_end():
    done = speak(b"name", ">&-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"prose\nerror: cannot write the output: Bad file descriptor\n"


def test_a_closed_stderr_keeps_prose_out_of_the_data():
    done = speak(b"name", "2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"name\n", b"")


@pytest.mark.parametrize("to", ["2>/dev/full", "2</dev/null", "2> >(true)"])
def test_no_work_stops_for_a_stderr_that_cannot_be_written_to(to):
    """A full disk, a descriptor to be read from, a reader that has left."""
    call = f'sleep 0.2; exec "$0" -c "$1" name {to}'
    done = subprocess.run(
        ["bash", "-c", call, sys.executable, SPEAKS], capture_output=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"name\n", b"")


LINES = """
import time
from deploy.cli.console import print_line, run_main
def main():
    print_line("first")
    time.sleep(0.3)
    for _ in range(2):
        print_line("more")
    open("done", "w").close()
run_main(main)
"""


def test_a_list_is_done_to_its_end_without_a_reader(tmp_path):
    call = '"$0" -c "$1" | head -1; exit ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", call, sys.executable, LINES], capture_output=True, text=True, check=False,
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (tmp_path / "done").exists()
    assert (done.returncode, done.stdout, done.stderr) == (0, "first\n", "")


def test_no_home_is_one_line(monkeypatch, capfd):
    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    with pytest.raises(SystemExit) as ended:
        console.run_main(no_home)
    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("error: this user has no home folder; name a folder")
    with pytest.raises(RuntimeError, match="something else"):
        console.run_main(lambda: (_ for _ in ()).throw(RuntimeError("something else")))
