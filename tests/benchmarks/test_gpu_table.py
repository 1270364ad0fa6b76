"""The latency table within the minutes of benchmarks/gpu.sh, on a GPU that is made up."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks import gpu_table
from deploy.tables import build
from hmseg.genotype import parse_genotype
from lut.errors import WorkError
from lut.table_file import load_table
from tests.deploy.tables.fakes import INFO, SHALLOW, SPACE, FakeDevices, FakeFactory

OTHER = parse_genotype(str(SHALLOW).replace("s5b e1k3", "s5b e1k5"))
GPU = replace(INFO, cpu="A GPU", architecture="sm_61")
VISITS = 2 * build.OCCASIONS


@pytest.fixture
def on(monkeypatch):
    """Makes the machine's GPU this one; two networks cover the space."""
    monkeypatch.setattr(gpu_table, "RESOLUTION", "64x64")
    monkeypatch.setattr(build, "factory_of", FakeFactory)
    monkeypatch.setattr(build, "covering_networks", lambda *_: [SHALLOW, OTHER])
    monkeypatch.setattr(build, "random_networks", lambda *_: [])
    driver = SimpleNamespace(architecture="sm_61")
    monkeypatch.setattr("deploy.gpu.driver.Driver", lambda: driver)

    def use(**changes):
        devices = FakeDevices(info=replace(GPU, **changes))
        monkeypatch.setattr("deploy.backends.cuda.GpuDevice", lambda: devices)
        return devices

    use()
    return use


@pytest.fixture
def measure(on, tmp_path, monkeypatch):
    """Measure within ten seconds; its clock's readings, the last again and again."""
    path = gpu_table.table_path(tmp_path, "a")

    def run(*clock):
        seconds = iter(clock)
        monkeypatch.setattr(gpu_table, "monotonic", lambda: next(seconds, clock[-1]))
        return gpu_table.measure_table("fp32", path, end=10)

    run.path = path
    return run


def test_its_time_may_be_up_before_it_begins(measure, tmp_path):
    assert measure(11) == {"left_out": "the time was up"}
    assert not list(tmp_path.iterdir())


def test_it_goes_on_where_its_time_was_up(measure):
    first = measure(9, 11)  # after a visit
    assert first["visits"] == 1
    assert first["left_out"] == f"{VISITS - 1} visits, the time was up"
    assert first["file"] == "lut-a-64x64-width0.5.jsonl"
    rest = measure(9)
    assert (rest["visits"], rest["left_out"], rest["note"]) == (VISITS, "", "")
    assert rest["entries"] == len({*SPACE.keys(SHALLOW), *SPACE.keys(OTHER)})
    assert measure(11) == rest | {"note": "the time was up"}
    assert len(load_table(measure.path).visits) == VISITS


def test_a_table_of_another_gpu_is_left_as_it_is(measure, on):
    """And still named where it is complete."""
    measure(9, 11)
    partial = measure.path.read_bytes()
    on(cpu="Another GPU")
    assert "measured with another cpu" in measure(9)["left_out"]
    assert measure.path.read_bytes() == partial
    on()
    whole = measure(9)
    on(cpu="Another GPU")
    last = measure(9)
    assert "measured with another cpu" in last["note"]
    assert last == whole | {"note": last["note"]}


@pytest.mark.parametrize(
    ("error", "said"),
    [(WorkError("the GPU failed"), "the GPU failed"), (KeyError("a bug"), "KeyError: 'a bug'")],
)
def test_a_failure_leaves_out_what_was_not_measured(measure, on, error, said):
    """The other results are not lost with it."""

    def fail(_genotype):
        raise error

    on().before_visit = fail
    assert measure(9)["left_out"] == said
