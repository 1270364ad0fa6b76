"""hmseg-deploy lut on tables and devices that are made up; tests/deploy/tables has real ones, and
test_gpu.py the commands for a GPU."""

import csv
import io
import json
import random
import re
from dataclasses import replace
from itertools import count
from statistics import median

import pytest

from deploy.measure.local import LocalDevice
from deploy.measure.rounds import VisitProtocol
from deploy.tables.build import provenance_of
from deploy.tables.schedules import schedules_of
from hmseg.genotype import random_genotype
from hmseg.operators import Space
from lut.errors import WorkError
from lut.table_file import load_table, save_table
from tests.deploy.cli.conftest import run_program
from tests.deploy.tables.fakes import SPACE as FAKES
from tests.deploy.tables.fakes import FakeArtifact, FakeDevices, FakeFactory, entry_ns
from tests.deploy.tables.test_check import measured
from tests.lut.tables import IDENTITY, PROVENANCE, table, visit

SPACE = Space((256, 512), 0.5)


def cost_us(key):
    return 1 + key.macs / 1e5


def whole(genotype):
    return 50 + sum(map(cost_us, SPACE.keys(genotype)))


@pytest.fixture
def path(tmp_path):
    """A complete table in which an entry takes what its MACs say."""
    keys = SPACE.all_keys()
    rng = random.Random(9)
    calibration = []
    for genotype in (random_genotype(rng) for _ in range(6)):
        entries = {key: cost_us(key) for key in SPACE.keys(genotype)}
        us = whole(genotype)
        calibration.append(visit(str(genotype), entries, whole=us, role="calibration"))
    path = tmp_path / "t.jsonl"
    save_table(table(visit("e", {key: cost_us(key) for key in keys}), *calibration), path)
    return path


def test_show(cli, path):
    done = cli("lut", "show", path, "-o", "heat.png").succeeded()
    assert "368 of 368 entries" in done.out
    assert "A CPU" in done.out
    assert "inverted_residual cin=16 hidden=96 cout=16 height=64 width=128 residual=yes" in done.out
    assert (path.parent / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_show_while_it_is_built(cli, path):
    """Calibration networks may come before the entries that they need; a header stands alone."""
    whole = load_table(path)
    save_table(table(*whole.calibration), path)
    done = cli("lut", "show", path).succeeded()
    assert "0 of 368 entries, 6 visits, reference" in done.out
    assert json.loads(cli("lut", "show", path, "--json").succeeded().out)["calibration"] is None
    for runs in ((), ((PROVENANCE, ()),)):
        save_table(replace(whole, runs=runs), path)
        assert "0 of 368 entries, 0 visits" in cli("lut", "show", path).succeeded().out
        assert json.loads(cli("lut", "show", path, "--json").succeeded().out)["baseline_us"] is None
        done = cli("lut", "show", path, "-o", "heat.png")
        assert done.code == 2
        assert "nothing to draw" in done.error


def test_show_json(cli, path):
    data = json.loads(cli("lut", "show", path, "--json").succeeded().out)
    assert len(data["entries"]) == 368
    assert data["missing"] == 0
    assert data["provenance"][0]["cpu"] == "A CPU"
    assert data["calibration"]["networks"] == 6


def test_export(cli, path):
    out = cli("lut", "export", path, "--csv").succeeded().out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 368
    assert all(float(row["median_us"]) >= 1 for row in rows)
    cli("lut", "export", path, "--csv", "-o", "t.csv").succeeded()
    assert (path.parent / "t.csv").read_text() == out
    assert "--csv" in cli("lut", "export", path).error


def test_merge(cli, path, tmp_path):
    cli("lut", "merge", path, path, "-o", "both.jsonl").succeeded()
    assert (tmp_path / "both.jsonl").read_bytes() == path.read_bytes()
    other = table(visit("z"), provenance=replace(PROVENANCE, cpu="B"))
    save_table(other, tmp_path / "other.jsonl")
    done = cli("lut", "merge", path, "other.jsonl", "-o", "mixed.jsonl")
    assert done.code == 2
    assert "another cpu" in done.error
    assert not (tmp_path / "mixed.jsonl").exists()
    done = cli("lut", "merge", path, "other.jsonl", "-o", "mixed.jsonl", "--force").succeeded()
    assert "mixes 2 provenances" in done.err
    assert len(load_table(tmp_path / "mixed.jsonl").runs) == 2
    assert "B, now" in cli("lut", "show", "mixed.jsonl").succeeded().out
    assert cli("lut", "merge", path, "-o", "x.jsonl").code == 2


def _edit(path, old, new, count=1):
    path.write_text(path.read_text().replace(old, new, count))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"unit": "us"', '"unit": "ms"', "line 1: the unit is 'ms'"),
        ('"format_version": 2', '"format_version": 4', "newer than this program's 3"),
        (
            '"format_version": 2',
            '"format_version": 1',
            "carry it over first: hmseg-deploy upgrade ",
        ),
        ('"threads": 2', '"threads": 2, "x": 1', "unknown field 'x'"),
        ('"samples_us": [[', '"samples_us": [[-1, ', "line 3: .*the sample -1"),
        ('"samples_us": [[', '"samples_us": [[NaN, ', "line 3: .*the sample nan"),
        ('"samples_us"', '"samples_ms"', "'samples_us' is missing"),
        ('"256x512"', '"512x1024"', "no entry of the space at 512x1024"),
        ('"width": 0.5', '"width": 1.0', "no entry of the space at 256x512, width 1"),
        ('{"kind": "visit"', '{"kind": "visit', "line 3: not JSON"),
        ('"resolution": "256x512"', '"resolution": "big"', "HEIGHTxWIDTH"),
    ],
)
def test_a_wrong_table_is_one_line_and_exit_2(cli, path, old, new, message):
    _edit(path, old, new)
    before = path.read_bytes()
    for command in (["show"], ["check"], ["export", "--csv"]):
        done = cli("lut", *command, path)
        assert done.code == 2
        assert re.search(message, done.error)
    assert path.read_bytes() == before


def test_a_torn_last_line_is_dropped(cli, path):
    with path.open("a") as file:
        file.write('{"kind": "visit", "net')
    with pytest.warns(UserWarning, match="cut short"):
        done = cli("lut", "show", path)
    assert "368 of 368" in done.succeeded().out
    done = run_program("lut", "show", path).succeeded()
    (line,) = done.err.splitlines()
    assert line == f"warning: {path}: the last line was cut short and is dropped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "--width", "0.75"], "--width 0.75: choose 0.5 or 1.0"),
        (["build", "-r", "256"], "HEIGHTxWIDTH"),
        (["build", "--stage", "s9"], "unknown stage 's9'"),
        (["build", "--target", "x86-64-v2"], "no kernels for x86-64-v2"),
        (["build", "-o", "/dev/null"], "not a regular file"),
        (
            ["build", "--target", "arm"],
            "target arm is aarch64, .*perhaps --device or --rpc-key is missing",
        ),
        (["show", "none.jsonl"], "no such table"),
        (["check", "none.jsonl"], "no such table"),
        (["merge", "none.jsonl", "x.jsonl", "-o", "m.jsonl"], "no such table"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(cli, arguments, message, monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    done = cli("lut", *arguments)
    assert done.code == 2
    assert re.search(message, done.error)
    assert not list(tmp_path.rglob("*.jsonl"))  # nothing that blocks the right command


def _today(cpu, threads=2):
    schedules = schedules_of(SPACE, cpu, threads)
    return provenance_of(LocalDevice(threads).info, cpu, schedules, VisitProtocol())


def test_check_needs_the_tables_target_and_all_its_entries(cli, path, cpu):
    assert "is for the target" in cli("lut", "check", path).error
    partial = table(visit("e"), identity=replace(IDENTITY, target=cpu.key), provenance=_today(cpu))
    save_table(partial, path)
    done = cli("lut", "check", path)
    assert done.code == 2
    assert "hmseg-deploy lut build --target cpu" in done.error
    assert "'--networks': Input should be" in cli("lut", "check", path, "--networks", "1").error
    assert "unknown stage 's9'" in cli("lut", "check", path, "--stage", "s9").error


def test_check_refuses_a_table_of_another_cpu(cli, path, cpu):
    """tests/deploy/tables/test_check.py has what else it refuses."""
    provenance = replace(_today(cpu), cpu="A CPU")
    identity = replace(IDENTITY, target=cpu.key)
    save_table(table(visit("e"), identity=identity, provenance=provenance), path)
    done = cli("lut", "check", path)
    assert done.code == 2
    assert re.search(r"cannot be checked here and now.*: cpu 'A CPU', now '", done.error)


class TestOnDevicesThatAreMadeUp:
    """Whose frames are the sum of their entries; what is compiled is made up too."""

    @pytest.fixture(autouse=True)
    def devices(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HMSEG_HOME", str(tmp_path / "home"))
        monkeypatch.setattr("deploy.tables.build.factory_of", FakeFactory)
        monkeypatch.setattr("deploy.tables.calibrate.factory_of", FakeFactory)
        monkeypatch.setattr("deploy.tables.check._compile", lambda g, *_: FakeArtifact(g))
        monkeypatch.setattr("deploy.backends.cpu.LocalDevice", lambda threads: FakeDevices())

    BUILD = ("lut", "build", "-t", "x86-64-v3", "-r", "64x64", "--width", "0.5", "--stage", "s1")

    def test_build(self, cli, tmp_path):
        done = cli(*self.BUILD, "--threads", "2").succeeded()
        made = tmp_path / "home" / "lut" / "x86-64-v3-64x64-width0.5-2threads.jsonl"
        assert done.out == f"{made}\n"
        found = load_table(made)
        assert done.err.startswith(f"the table: {made}\n")
        assert "measuring 64x64, width 0.5, 2 threads" in done.err
        assert f"{len(found.entries)} entries from {len(found.visits)} visits" in done.err
        assert found.identity.target_name == "x86-64-v3"
        assert cli("lut", "show", made).succeeded().out.startswith("x86-64-v3 (A CPU), 64x64")

    def test_it_goes_on(self, cli, tmp_path, monkeypatch):
        visits = count()

        def stop(_genotype):
            if next(visits) == 3:
                raise WorkError("the device is lost")

        monkeypatch.setattr(
            "deploy.backends.cpu.LocalDevice", lambda threads: FakeDevices(before_visit=stop)
        )
        done = cli(*self.BUILD, "-o", "t.jsonl")
        assert (done.code, "the device is lost" in done.error) == (1, True)
        assert len(load_table(tmp_path / "t.jsonl").visits) == 2
        monkeypatch.setattr("deploy.backends.cpu.LocalDevice", lambda threads: FakeDevices())
        cli(*self.BUILD, "-o", "t.jsonl").succeeded()
        again = cli(*self.BUILD, "--threads", "1", "-o", "t.jsonl")
        assert again.code == 2
        assert "something else: threads 1 and 2" in again.error

    def test_check(self, cli, tmp_path):
        """One that is right passes; of one that is not the error says by how much."""
        save_table(measured(), tmp_path / "right.jsonl")
        what = ("--networks", "8")
        done = cli("lut", "check", "right.jsonl", "--target", "x86-64-v3", *what).succeeded()
        assert "Kendall tau 1.000; 8 of 8 within the upper bound" in done.out
        wrong = measured(
            lambda op: entry_ns(op) / 1000 * (10 if getattr(op, "kernel", 0) == 7 else 1)
        )
        save_table(wrong, tmp_path / "wrong.jsonl")
        done = cli("lut", "check", "wrong.jsonl", "--target", "x86-64-v3", *what, "--json")
        assert done.code == 1
        assert "mean error" in done.error
        data = json.loads(done.out)
        assert (data["networks"], data["passed"], data["table"]) == (8, False, "wrong.jsonl")
        assert all(row["measured_us"] == median(row["occasions_us"]) > 0 for row in data["rows"])
        assert not {row["network"] for row in data["rows"]} & {v.network for v in wrong.visits}

    def test_calibrate(self, cli, tmp_path, monkeypatch):
        save_table(measured(), tmp_path / "t.jsonl")
        slower = FakeDevices(slower=1.25)
        monkeypatch.setattr("deploy.backends.cpu.LocalDevice", lambda threads: slower)
        calibrate = ("lut", "calibrate", "t.jsonl", "--target", "x86-64-v3")
        done = cli(*calibrate, "-o", "new.jsonl").succeeded()
        assert "the machine is 25.0% slower; beside its reference network entries take x 1.0" in (
            done.out
        )
        assert done.out.endswith("new.jsonl\n")
        assert not load_table(tmp_path / "t.jsonl").retimings
        assert "calibrated 20" in cli("lut", "show", "new.jsonl").succeeded().out
        data = json.loads(cli(*calibrate, "--json").succeeded().out)
        assert (data["table"], data["moved"]) == ("t.jsonl", [])
        assert data["speed"] == pytest.approx(1.25, rel=1e-3)
        assert len(load_table(tmp_path / "t.jsonl").retimings) == 1
        done = cli("lut", "check", "t.jsonl", "--target", "x86-64-v3", "--networks", "8")
        assert "Kendall tau 1.000; 8 of 8 within" in done.succeeded().out

    def test_a_table_that_cannot_be_calibrated_stays_as_it_is(self, cli, tmp_path, monkeypatch):
        path = tmp_path / "t.jsonl"
        save_table(measured(), path)
        before = path.read_bytes()
        moved = {key: [2.0] for key in FAKES.all_keys() if getattr(key, "kernel", 0) == 7}
        odd = FakeDevices(noise=moved)
        monkeypatch.setattr("deploy.backends.cpu.LocalDevice", lambda threads: odd)
        done = cli("lut", "calibrate", "t.jsonl", "--target", "x86-64-v3")
        assert done.code == 1
        assert re.search(r"entries moved, not only the scale: '.*kernel=7", done.error)
        assert "hmseg-deploy lut build --target" in done.error
        assert path.read_bytes() == before
        save_table(measured(), tmp_path / "p.jsonl.xz")
        done = cli("lut", "calibrate", "p.jsonl", "--target", "x86-64-v3")
        assert (done.code, "packed, and cannot grow" in done.error) == (2, True)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_table_of_a_low_precision(cli, path, precision):
    whole = load_table(path)
    low = replace(IDENTITY, target=f'{{"kind":"llvm","precision":"{precision}"}}')
    save_table(replace(whole, identity=low), path)
    done = cli("lut", "show", path).succeeded()
    assert f"width 0.5, {IDENTITY.threads} threads, {precision}" in done.out


def test_a_table_of_a_gpu(cli, path):
    """It has no threads; its precision stands in their place."""
    whole = load_table(path)
    gpu = replace(IDENTITY, target='{"kind":"cuda"}', target_name="cuda", threads=0)
    save_table(replace(whole, identity=gpu), path)
    done = cli("lut", "show", path).succeeded()
    assert "cuda (A CPU), 256x512, width 0.5, fp32" in done.out
    half = replace(gpu, target='{"kind":"cuda","precision":"fp16"}')
    save_table(replace(whole, identity=half), path)
    assert "width 0.5, fp16" in cli("lut", "show", path).succeeded().out
    assert "inverted_residual" in cli("lut", "export", path, "--csv").succeeded().out
