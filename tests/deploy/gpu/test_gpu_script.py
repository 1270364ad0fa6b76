"""What benchmarks/gpu.sh keeps, whatever happens; its rows are made up, but for one, and the GPU is
the stand-in for a driver: what is written, not how fast."""

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread

import pytest

from benchmarks import gpu, gpu_report, gpu_row
from deploy.tuning.records import load_records
from lut.errors import UserError, WorkError

SIZES = ["--resolutions", "256x512", "768x1536"]


def made_up(model, size, ratio=2.0, over=2.5):
    ratios = (
        {} if ratio is None else {"torch eager": {"median": 3.0}, "TensorRT": {"median": ratio}}
    )
    return {
        "model": model, "model_file": "", "resolution": size, "ratios": ratios,
        "latency": {"hmseg": {"median_ms": 1.0}}, "compute_over_floor": over,
        "differing_labels": {"TensorRT": 0.0005}, "notes": {"TensorRT": "a note"},
    }  # fmt: skip


class Machine:
    """`broken` rows raise; the others are made up. What was measured, and the file then."""

    def __init__(self, path):
        self.path, self.measured, self.files, self.broken = path, [], [], {}

    def measure(self, model, size, *_):
        self.measured.append((model, size))
        self.files.append(json.loads(self.path.read_text()))
        if (model, size) in self.broken:
            raise self.broken[model, size]
        return made_up(model, size)

    def start(self, *options):
        self.measured.clear()
        where = ["--table-minutes", "0", "-o", str(self.path.parent)]
        return gpu.main([*SIZES, *where, *options])

    def read(self):
        return json.loads(self.path.read_text())


@pytest.fixture
def machine(driver_library, monkeypatch, tmp_path):
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    monkeypatch.setattr(gpu, "MODELS", MODELS)
    machine = Machine(tmp_path / "gpu-stand-in.json")
    monkeypatch.setattr(gpu_row, "measure_row", machine.measure)
    return machine


MODELS = ("tiny-mrms", "mrms")
ORDER = [(model, size) for size in ("768x1536", "256x512") for model in MODELS]


def test_order():
    assert gpu.in_order(MODELS, ["256x512", "768x1536", "256x512"]) == ORDER
    assert gpu.in_order(["mrms"], gpu.RESOLUTIONS)[:2] == [
        ("mrms", "768x1536"), ("mrms", "1024x2048")
    ]  # fmt: skip


def test_every_row_is_on_disk(machine):
    assert machine.start() == 0
    assert machine.measured == ORDER
    assert [len(file["rows"]) for file in machine.files] == [0, 1, 2, 3]
    assert machine.files[1]["left_out"][0] == "mrms 768x1536, not begun"
    assert machine.read()["left_out"] == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (WorkError("it differs\nmuch"), "it differs"),
        (RuntimeError("\nCUDA error\nmore"), "RuntimeError: CUDA error"),
    ],
)
def test_a_row_that_fails(machine, capsys, error, line):
    """The others are measured, and the next start tries it again."""
    machine.broken[ORDER[1]] = error
    assert machine.start() == 1
    captured = capsys.readouterr()
    assert captured.out.strip() == str(machine.path)
    assert f"mrms 768x1536 failed: {line}\n" in captured.err
    assert machine.measured == ORDER
    found = machine.read()
    assert [row["resolution"] for row in found["rows"]] == ["768x1536", "256x512", "256x512"]
    assert found["errors"] == [f"mrms 768x1536: {line}"]
    assert found["left_out"] == [f"mrms 768x1536, failed: {line}"]
    machine.broken.clear()
    assert machine.start() == 0
    assert machine.measured == [ORDER[1]]
    assert len(machine.read()["rows"]) == 4
    assert machine.read()["errors"] == []


def test_rows_that_are_made_together(machine, monkeypatch):
    """All are built at once, and each is measured alone; one that fails and one whose process ends
    are named."""
    fork = multiprocessing.get_context("fork")
    together = fork.Barrier(6)

    def measure(model, size, capability, options, end, alone):
        together.wait(20)  # none is measured until all are here
        if size == "256x512":
            if model == "mrms":
                os._exit(7)
            raise WorkError("it differs")
        alone()
        begin = time.monotonic()
        time.sleep(0.1)
        return made_up(model, size) | {"times": (begin, time.monotonic())}

    monkeypatch.setattr(gpu, "CONTEXT", fork)
    monkeypatch.setattr(gpu_row, "measure_row", measure)
    options = ["--models", *MODELS, "tiny-hmseg", "--jobs", "6", "--tune-seconds", "0"]
    assert machine.start(*options) == 1
    found = machine.read()
    assert {row["model"] for row in found["rows"]} == {*MODELS, "tiny-hmseg"}
    assert {row["resolution"] for row in found["rows"]} == {"768x1536"}
    times = sorted(row["times"] for row in found["rows"])
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    assert found["left_out"] == [
        "tiny-mrms 256x512, failed: it differs", "mrms 256x512, failed: its process ended with 7",
        "tiny-hmseg 256x512, failed: it differs",
    ]  # fmt: skip


def test_together_until_the_time_is_up(machine, monkeypatch):
    """Two at a time: the second takes too long, the fourth is not begun."""

    def measure(model, size, *_):
        if model == "mrms":
            time.sleep(60)
        return made_up(model, size)

    monkeypatch.setattr(gpu, "CONTEXT", multiprocessing.get_context("fork"))
    monkeypatch.setattr(gpu_row, "measure_row", measure)
    assert machine.start("--jobs", "2", "--tune-seconds", "0", "--minutes", "0.03") == 0
    assert {row["model"] for row in machine.read()["rows"]} == {"tiny-mrms"}
    assert machine.read()["left_out"] == [
        "mrms 768x1536, the time was up", "mrms 256x512, the time was up"
    ]  # fmt: skip


def test_a_process_for_a_row():
    options = gpu.argparse.Namespace(jobs=2, precision="fp32", tune_seconds=0.0)
    rows = gpu.made_together([("no-such-model", "64x64")], 90, options, time.monotonic() + 100)
    ((row_of, found),) = rows
    assert row_of == ("no-such-model", "64x64")
    assert "no-such-model" in found
    assert found != gpu.UP


def test_no_tuning_together(machine, capsys):
    assert machine.start("--jobs", "2") == 2
    assert "--jobs is for --tune-seconds 0" in capsys.readouterr().err


def test_turns(tmp_path):
    """Whoever measures waits for those that use the GPU, and the next for him."""
    lock, order = tmp_path / "lock", []
    lock.touch()
    entered = Barrier(3)

    def work(number):
        with gpu_row.turn(lock) as alone:
            entered.wait(10)
            time.sleep(0.05 * number)
            order.append(("built", number))
            alone()
            order.append(("begin", number))
            time.sleep(0.05)
            order.append(("end", number))

    workers = [Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [what for what, _ in order] == ["built"] * 3 + ["begin", "end"] * 3
    assert all(order[i][1] == order[i + 1][1] for i in (3, 5, 7))


def test_interrupted(machine):
    machine.broken[ORDER[2]] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        machine.start()
    assert len(machine.read()["rows"]) == 2
    machine.broken.clear()
    machine.start()
    assert machine.measured == ORDER[2:]


@pytest.mark.parametrize("change", ["gpu", "driver", "options", "--again", "no json"])
def test_rows_that_are_not_gone_on_with(machine, monkeypatch, capsys, change):
    """They stay in a file of their own."""
    machine.start()
    before = machine.path.read_bytes()
    options, why = [], change
    if change == "gpu":
        monkeypatch.setenv("STAND_IN_CAPABILITY", "90")
        why = "another capability"
    elif change == "driver":
        monkeypatch.setenv("STAND_IN_VERSION", "12080")
        why = "another driver_cuda"
    elif change == "options":
        options, why = ["--repeat", "7"], "another protocol"
    elif change == "--again":
        options = ["--again"]
    else:
        before = b"{"
        machine.path.write_bytes(before)
        why = "is not of this program"
    capsys.readouterr()
    machine.path.with_name("other.json").write_text("")
    assert machine.start(*options) == 0
    assert why in capsys.readouterr().err
    assert machine.measured == ORDER
    (aside,) = machine.path.parent.glob("gpu-stand-in-*.json")
    assert aside.read_bytes() == before


def test_a_models_own_file(machine, tmp_path):
    """A row is of the file that was measured, not of its name."""
    path = tmp_path / "user.onnx"
    path.write_bytes(b"1")
    row = made_up(str(path), "768x1536") | {"model_file": gpu_row.model_digest(str(path))}
    machine.start()
    found = machine.read()
    machine.path.write_text(json.dumps(found | {"rows": [row]}))
    machine.start("--models", str(path))
    assert machine.measured == [(str(path), "256x512")]
    path.write_bytes(b"2")
    machine.start("--models", str(path))
    assert (str(path), "768x1536") in machine.measured


def test_rows_of_an_unfinished_tables_size_wait(machine, monkeypatch, tmp_path):
    """Rows of its size would change the schedules that it is of."""
    gpu.table_path(tmp_path, "stand-in").write_text("")
    state = {"left_out": "9 visits, the time was up"}
    monkeypatch.setattr(gpu, "measure_table", lambda *_: state)
    assert machine.start("--table-minutes", "1") == 0
    assert machine.measured == ORDER[:2]
    assert machine.read()["left_out"] == [
        *(f"{m} 256x512, its tuning would change what the unfinished table is of"
          for m in ("tiny-mrms", "mrms")),
        "the latency table, 9 visits, the time was up",
    ]  # fmt: skip
    state = {"left_out": "", "file": "t"}
    assert machine.start("--table-minutes", "1") == 0
    assert machine.measured == ORDER[2:]


def test_without_git_and_a_full_disk(machine, monkeypatch, capsys):
    """What does not hold up is known before the first row."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.start() == 0
    provenance = machine.read()["provenance"]
    assert (provenance["commit"], provenance["dirty"]) == ("unknown", "unknown")
    assert machine.start("-o", "/proc/here") == 2
    assert machine.measured == []
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: cannot write /proc/here")


def test_provenance(machine):
    machine.start()
    found = machine.read()["provenance"]
    assert found["versions"]["cuda-nvrtc"]
    assert found["cpu"]
    assert found["onnxruntime_packages"] == ["onnxruntime"]
    assert found["protocol"] == {"tune_seconds": 10.0, "rounds": 5, "repeat": 50}


def test_dirty(monkeypatch, tmp_path):
    """Tracked files alone, and not results."""

    def git(*arguments):
        own = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *own, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(gpu_report, "ROOT", tmp_path)
    git("init")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for path in (tmp_path / "a.py", results / "r.json"):
        path.write_text("1")
    git("add", ".")
    git("commit", "-m", "all")
    (results / "r.json").write_text("2")
    (tmp_path / "new.py").write_text("1")
    assert gpu_report._dirty() == "no"
    (tmp_path / "a.py").write_text("2")
    first = gpu_report._dirty()
    assert first.startswith("yes, ")
    (tmp_path / "a.py").write_text("3")
    assert gpu_report._dirty() not in ("no", first)


def test_bars():
    rows = [
        made_up("tiny-mrms", "768x1536", 1.25), made_up("mrms", "768x1536", 0.5, over=3.5),
        made_up("mrms", "1024x2048", None), made_up("mrms", "256x512", 0.1),
    ]  # fmt: skip
    lines = [gpu_report.bar_line(bar) for bar in gpu_report.bars(rows)]
    assert lines[0] == (
        "the fastest peer's time / ours at 768x1536, at least 1: MISSED (tiny-mrms 1.25, mrms 0.50)"
    )
    assert lines[1].endswith("at 1024x2048, at least 1: not measured (mrms no peer ran)")
    assert lines[2].startswith("compute / memory floor, at most 3: MISSED (tiny-mrms 768x1536 2.50")
    good = gpu_report.bars([rows[0], made_up("mrms", "1024x2048", 1.0, over=3.0)])
    assert [bar["met"] for bar in good] == [True, True, True]


def test_what_is_said_of_a_row():
    assert gpu.row_lines(made_up("mrms", "768x1536")) == [
        "mrms 768x1536: 1.000 ms (torch eager 3.00x, TensorRT 2.00x), compute 2.50x the memory "
        "floor",
        "mrms 768x1536: labels that differ from hmseg's: TensorRT 0.0500%",
        "mrms 768x1536: TensorRT: a note",
    ]


KERNELS = 4  # of `gpu_graph`: one network is tuned
ROOT = Path(__file__).parents[3]


def test_everything_in_one_command(any_driver, gpu_graph, monkeypatch, tmp_path, capsys):
    """The network is tuned, and the artifact is built and gated anew, on the machine's GPU; the
    next start has nothing left to do."""
    monkeypatch.setattr(gpu_row, "COPIED_BYTES", 1 << 20)
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    model = tmp_path / "graph.onnx"
    model.write_bytes(gpu_graph.SerializeToString())
    options = ["--models", str(model), "--resolutions", "64x64", "--rounds", "1"]
    options += ["--tune-seconds", "0.1", "--table-minutes", "0"]
    assert gpu.main([*options, "--repeat", "1", "-o", str(tmp_path)]) == 0
    path = tmp_path / "gpu-stand-in.json"
    assert capsys.readouterr().out.strip() == str(path)
    result = json.loads(path.read_text())
    (row,) = result["rows"]
    assert len(row["parity"]) == 5
    assert all(comparison["passed"] for comparison in row["parity"])
    assert len(row["kernels_ms"]) == KERNELS
    assert row["memory_floor_ms"] > 0
    assert row["copy_gb_per_s"] > 0
    assert row["tuning"]["records"] == len(load_records([tmp_path / "tuning"])) == KERNELS
    assert row["tuning"]["schedules"]
    assert row["tuning"]["seconds"] > 0
    assert result["provenance"]["gpu"] == "Stand-in"
    assert result["provenance"]["precision"] == "fp32"
    assert result["left_out"] == result["errors"] == []
    work = row["parts_ms"]["compute_ms"]
    assert row["compute_over_floor"] == pytest.approx(work / row["memory_floor_ms"])
    monkeypatch.setattr(gpu_row, "measure_row", None)  # not called
    assert gpu.main([*options, "--repeat", "1", "-o", str(tmp_path)]) == 0
    assert f"goes on with {path}, which has {model} 64x64" in capsys.readouterr().err
    assert json.loads(path.read_text())["rows"] == [row]


def test_time_is_up(driver_library, monkeypatch, tmp_path):
    """The bars' sizes would have been first."""
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    assert gpu.main(["--models", "tiny-mrms", "--minutes", "-1", "-o", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "gpu-stand-in.json").read_text())
    assert result["rows"] == []
    assert result["left_out"] == [
        *(f"tiny-mrms {size}, the time was up"
          for size in ("768x1536", "1024x2048", "256x512", "512x1024")),
        "the latency table, the time was up",
    ]  # fmt: skip
    assert result["table"]["left_out"] == "the time was up"
    assert [bar["met"] for bar in result["bars"]] == [None, None, None]


def test_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
    assert gpu.main([]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: no NVIDIA driver on this machine")
    assert captured.err.count("\n") == 1
    with pytest.raises(UserError, match="no NVIDIA driver"):
        gpu.run(gpu.argparse.Namespace(minutes=1))


def test_the_script():
    """It runs from any folder and hands its options on."""
    script = ROOT / "benchmarks" / "gpu.sh"
    done = subprocess.run(
        [str(script), "--help"], capture_output=True, text=True, check=True, cwd="/",
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert "--minutes" in done.stdout
