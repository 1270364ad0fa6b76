"""The full schedule: its plan, what it does when runs fail or time is over, and how it goes on.

Runs are played by a script of a few lines that keeps time, but for one test of the commands.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import full_schedule, full_schedule_jobs
from benchmarks.full_schedule import Schedule, main
from benchmarks.full_schedule_jobs import Pace, pace_of
from deploy.cli.console import run_main
from hmseg.network_file import read_network
from lut.errors import UserError, WorkError
from lut.jsonl import read_records
from tests.deploy.cli.conftest import hmseg
from tests.hmseg.data.folders import make_camvid

ROOT = Path(__file__).parents[2]
TABLES = {
    width: str(ROOT / f"lut/data/zen5-256x512-width{factor}-2threads.jsonl")
    for width, factor in (("tiny", "0.5"), ("full", "1.0"))
}
SEARCHES = ("--tiny-cost", TABLES["tiny"], "--tiny-budget", "1.56ms",
            "--full-cost", TABLES["full"], "--full-budget", "3.9ms")  # fmt: skip
# PLAYED, in the environment, says by the name of a run how long its steps are, at which it fails
# (once or always) and whether it hangs and is deaf. Nothing fails in a probe.
PLAYER = """
import json, os, signal, sys, time
from pathlib import Path
sys.path.insert(0, os.getcwd())
what, *options = sys.argv[1:]
value = lambda name: options[options.index(name) + 1]
folder = Path(value("-o"))
steps, every = int(value("--stage").split(":")[2]), int(value("--log-every"))
evaluate = int(value("--evaluate-every")) if what == "train" else 0
mine = json.loads(os.environ["PLAYED"]).get(folder.name, {})
probing = folder.parent.name == "probe"
folder.mkdir(exist_ok=True)
with (folder.parent / "calls.txt").open("a") as calls:
    calls.write(json.dumps([folder.name, *sys.argv[1:]]) + "\\n")
last, log = folder / "last.safetensors", (folder / "log.jsonl").open("a")
begin = int(last.read_text()) if "--resume" in options else 0
last.write_text(str(begin))
for step in range(begin + 1, steps + 1):
    time.sleep(mine.get("step_s", 0.004))
    if not probing and step == mine.get("fails_at") and (mine.get("always") or not begin):
        sys.exit("error: the loss is nan")
    if not probing and mine.get("hangs"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        time.sleep(1000)
    if step % every == 0 or step == steps:
        log.write(json.dumps({"step": step, "loss": 1.0}) + "\\n")
        last.write_text(str(step))
    if evaluate and (step % evaluate == 0 or step == steps):
        log.write(json.dumps({"step": step, "miou": 0.5 - abs(step / steps - 0.75)}) + "\\n")
    log.flush()
if what == "search":
    from hmseg.genotype import MRMS_GENOTYPE
    from hmseg.network_file import write_network
    search = {"config": {"budget": value("--budget")}, "estimate": {"upper": 1500.0, "unit": "us"}}
    width = 0.5 if value("--model") == "tiny-mrms" else 1.0
    write_network(folder / "genotype.json", MRMS_GENOTYPE, width, 11, search)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"))


@pytest.fixture
def start(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Start a schedule whose runs are played; the exit code."""
    player = tmp_path / "player.py"
    player.write_text(PLAYER)
    monkeypatch.setattr(full_schedule_jobs, "HMSEG", (sys.executable, str(player)))
    monkeypatch.setattr(full_schedule_jobs, "GRACE_S", 0.5)
    monkeypatch.setattr(full_schedule_jobs, "SAY_EVERY_S", 1.0)
    monkeypatch.setattr(full_schedule, "ENDING_S", 1.0)

    def run(minutes: float, *options: str, **played: dict) -> int:
        monkeypatch.setenv("PLAYED", json.dumps(played))
        where = ("--data", str(data), "--batch", "2", "-o", str(tmp_path / "out"))
        return main([*where, "--minutes", str(minutes), *options])

    return run


def calls(out: Path) -> list[list[str]]:
    return [json.loads(line) for line in (out / "calls.txt").read_text().splitlines()]


def plan(out: Path) -> dict:
    return json.loads((out / "plan.json").read_text())


def test_all_runs_are_planned_and_reported(start, tmp_path: Path, capsys):
    out, began = tmp_path / "out", time.monotonic()
    mrms = {"step_s": 0.01}  # the slowest decides
    assert start(0.25, *SEARCHES, "--search-share", "0.4", mrms=mrms) == 0
    assert 0.3 * 15 < time.monotonic() - began < 20  # of 15, and what a busy machine adds
    planned = plan(out)
    steps = planned["train"]["steps"]
    pace = planned["train"]["pace"]["mrms"]
    assert 0.01 < pace["step_s"] < 0.05
    assert set(planned["search"]) == {"search-tiny", "search-full"}
    names = ["tiny-mrms", "mrms", "tiny-found", "full-found"]
    by_name = {name: words for name, *words in calls(out)}
    for name in names:
        records = read_records(out / name / "log.jsonl")
        assert records[-1]["step"] == steps
        assert 8 <= sum("miou" in record for record in records) <= 9
        assert f"360x480:2:{steps}" in by_name[name]
    assert "--pretrained" in by_name["search-tiny"]
    assert "--pretrained" not in by_name["search-full"]
    assert str(out / "search-full" / "genotype.json") in by_name["full-found"]
    report = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in report["networks"]] == names
    assert {row["images_seen"] for row in report["networks"]} == {2 * steps}
    row = report["networks"][-1]
    assert row["best_step"] < row["last_step"] == steps
    assert row["budget"] == "3.9ms"
    assert report["not_ended"] == {}
    assert {"date", "device", "torch"} <= set(report["provenance"])
    assert not (out / "probe").exists()
    told = capsys.readouterr()
    assert "full-found" in told.out
    assert "1.5ms" in told.out
    assert f"mrms for {steps} steps" in told.err
    assert "minutes left" in told.err


def test_a_run_that_fails_is_resumed_once_and_then_named(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(full_schedule, "MARGIN", 0.4)  # a second start takes time, too
    once, always = {"fails_at": 30}, {"fails_at": 30, "always": True}
    assert start(0.2, **{"tiny-mrms": once, "mrms": always}) == 1
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text())
    assert report["not_ended"] == {"mrms": "exit code 1: error: the loss is nan"}
    assert report["networks"][0]["name"] == "tiny-mrms"
    steps = plan(out)["train"]["steps"]
    assert read_records(out / "tiny-mrms" / "log.jsonl")[-1]["step"] == steps
    assert [call[-1] for call in calls(out)].count("--resume") == 2
    told = capsys.readouterr().err
    assert "tiny-mrms: exit code 1: error: the loss is nan; it goes on" in told
    assert "did not end: mrms, exit code 1" in told


def test_what_is_not_ready_in_time_is_stopped_and_goes_on_by_the_same_plan(
    start, tmp_path: Path, capsys
):
    out, began = tmp_path / "out", time.monotonic()
    assert start(0.15, mrms={"hangs": True}) == 1  # it does not listen to SIGINT either
    assert time.monotonic() - began < 16
    first = plan(out)
    assert "interrupted near step 0 of" in capsys.readouterr().err
    before = len(calls(out))
    assert start(1) == 0
    assert plan(out) == first
    (again,) = calls(out)[before:]
    assert (again[0], again[-1]) == ("mrms", "--resume")
    assert {row["last_step"] for row in json.loads((out / "report.json").read_text())["networks"]} \
        == {first["train"]["steps"]}  # fmt: skip
    with pytest.raises(UserError, match=r"plan.json: another schedule \(lr: 0.002 there, 0.1 here"):
        start(1, "--lr", "0.1")
    (out / "plan.json").unlink()
    with pytest.raises(UserError, match="holds runs but no plan"):
        start(1)


def test_a_killed_start_takes_its_runs_with_it_and_goes_on(start, data: Path, tmp_path: Path):
    out, player = tmp_path / "out", tmp_path / "player.py"
    code = (
        "import sys; from benchmarks import full_schedule, full_schedule_jobs as jobs\n"
        f"jobs.HMSEG = (sys.executable, {str(player)!r}); full_schedule.main()"
    )
    options = ("--data", data, "--batch", "2", "-o", out, "--minutes", "1")
    environment = {**os.environ, "PLAYED": "{}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, options)]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        log = out / "mrms" / "log.jsonl"
        until = time.monotonic() + 60
        while not log.exists() or len(log.read_bytes()) < 100:
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    time.sleep(0.3)
    first, size = plan(out), log.stat().st_size
    time.sleep(0.3)
    assert log.stat().st_size == size  # nothing writes any more
    assert start(0.1) == 1  # too short for a plan of a minute
    assert plan(out) == first
    assert log.stat().st_size > size
    assert calls(out)[-1][-1] == "--resume"


def test_a_search_that_cannot_be_probed_costs_only_itself(start, tmp_path: Path, capsys):
    slow = {"step_s": 100}
    assert start(0.25, *SEARCHES[:4], **{"search-tiny": slow}) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["name"] for row in report["networks"]] == ["tiny-mrms", "mrms"]
    assert report["not_ended"] == {"search-tiny": "its probe failed, or there is no time for it"}
    assert "search-tiny in its probe: too few steps" in capsys.readouterr().err


def test_too_few_minutes_for_anything(start):
    with pytest.raises(WorkError, match="no time for training: 0 steps would fit in"):
        start(0.05, mrms={"step_s": 100}, **{"tiny-mrms": {"step_s": 100}})


def test_a_pace_is_of_the_time_together_and_without_evaluations():
    seen = [
        (3.0, {"step": 10}), (4.0, {"step": 20}), (6.0, {"step": 30}),
        (9.0, {"step": 30, "miou": 0.1}), (11.0, {"step": 40}), (12.0, {"step": 40, "miou": 0.1}),
    ]  # fmt: skip
    pace = pace_of(seen, 1.0, 4.0)
    assert pace == Pace(2.0, 0.2, (3.0, 1.0))
    assert pace.steps_in(20.0, 1) == 75
    assert pace.steps_in(20.0, 6) == 50
    assert pace.steps_in(1.0, 6) == 0
    assert pace_of(seen[:2], 1.0, 4.0) is None
    assert pace_of([], 1.0, 4.0) is None


def test_the_commands_are_those_of_hmseg(data: Path, tmp_path: Path):
    """The real thing, two steps each: a search's probe, a search, and what is to be trained."""
    small = ("--crop", "64x64", "--search-crop", "64x64", "--batch", "2", *SEARCHES)
    schedule = Schedule(["--data", str(data), "-o", str(tmp_path), "--minutes", "1", *small])
    schedule.keep("train", {"steps": 2})
    probed, searched = schedule.search_job("tiny", None), schedule.search_job("tiny", 2)
    probed.command = [word.replace(f":{probed.steps}", ":2") for word in probed.command]
    for job in (probed, searched):
        done = hmseg(*job.command, "-o", job.folder)
        assert done.code == 0, done.err
    assert read_network(schedule.genotype("tiny"))[1:] == (0.5, 11)
    assert list(schedule.models()) == ["tiny-mrms", "mrms", "tiny-found"]
    job = schedule.train_job("tiny-found", 2)
    done = hmseg(*job.command, "-o", job.folder)
    assert done.code == 0, done.err
    schedule.report()
    (network,) = json.loads((tmp_path / "report.json").read_text())["networks"]
    assert (network["name"], network["last_step"]) == ("tiny-found", 2)
    assert network["estimate"]["upper"] <= 1560


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--minutes", "0"), "--minutes 0: it must be above 0"),
        (("--search-share", "1"), "--search-share 1: it must be between"),
        (("--batch", "1"), "--batch 1: batch norm needs"),
        (("--batch", "5"), "--batch 5: half of the training split has 4 frames"),
        (("--data", "nowhere"), "nowhere/train: no such folder"),
        (("--crop", "9"), "resolution '9': write HEIGHTxWIDTH"),
        (("--search-crop", "9x9"), "both sides must lie between"),
        (("--lr", "0"), "learning rate 0: must be a number above 0"),
        (("--precision", "int8"), "unknown precision 'int8'"),
        (("--device", "tpu"), "device tpu: choose cpu or cuda"),
        (("--tiny-cost", TABLES["tiny"]), "--tiny-cost and --tiny-budget belong together"),
        (("--full-budget", "4ms"), "--full-cost and --full-budget belong together"),
        (("--tiny-cost", TABLES["full"], "--tiny-budget", "2ms"), "of width 1, tiny-mrms has 0.5"),
        (("--tiny-cost", "t.jsonl", "--tiny-budget", "2ms"), "t.jsonl"),
        (("--tiny-cost", TABLES["tiny"], "--tiny-budget", "2s"), "write a latency, MACs"),
        (("--tiny-cost", TABLES["tiny"], "--tiny-budget", "0.01ms"), "nothing in this space meets"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_before_anything_starts(start, tmp_path: Path, options, message):
    with pytest.raises(UserError) as caught:
        start(1, *options)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, monkeypatch, capsys):
    options = ("--data", "nowhere", "--minutes", "1", "-o", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["full_schedule", *options])
    with pytest.raises(SystemExit) as ended:
        run_main(main)
    told = capsys.readouterr()
    assert (ended.value.code, told.err.count("\n"), told.out) == (2, 1, "")
