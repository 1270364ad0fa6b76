"""Which tuning records a table depends on; the records are made up, the specs are the networks'."""

import pytest

from deploy.schedules import schedule_fields
from deploy.cpu.passes.insert_clock import called_functions
from deploy.cpu.pipeline import lower_graph, make_kernels
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.keys import kernels_of
from deploy.graph.kernel_call import SPEC
from deploy.tables.networks import export_genotype
from deploy.tables.schedules import digest, read_spec, schedules_of
from deploy.targets import resolve_target
from deploy.tuning.records import Record, append, kernels_version, load_records
from hmseg.genotype import parse_genotype
from hmseg.operators import Space
from lut.errors import WorkError
from tests.deploy.tables.test_networks import SHALLOW

SPACE, LARGER = Space((64, 128), 0.5), Space((128, 128), 0.5)


@pytest.fixture
def win(tmp_path, monkeypatch):
    """Leaves a record of a schedule that won in the user's folder."""
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))

    def leave(target, threads, text, schedule):
        record = Record(
            target.key, threads, kernels_version(target), text, schedule_fields(schedule),
            (200,), (100,), "", "a machine", {}, "now",
        )  # fmt: skip
        append(record, tmp_path / "tuning" / "records.jsonl")

    return leave


def test_of_a_gpu(win):
    """A record of the space changes the digest; those of another size and of another network, with
    which the user's folder is full after tuning there, do not."""
    target, kernels = resolve_target("cuda", "sm_61"), GpuKernels()
    (mine, *_), (other, *_) = (
        [spec for key in sorted(space.all_keys()) for spec in kernels_of(key)]
        for space in (SPACE, LARGER)
    )
    assert mine != other
    assert digest(schedules_of(SPACE, target, 0)) == "rule"
    win(target, 0, repr(other), kernels.rule(other))
    win(target, 0, "SomethingSpec(channels=3)", kernels.rule(other))
    assert digest(schedules_of(SPACE, target, 0)) == "rule"
    assert list(schedules_of(LARGER, target, 0)) == [repr(other)]
    win(target, 0, repr(mine), kernels.rule(mine))
    assert list(schedules_of(SPACE, target, 0)) == [repr(mine)]
    assert digest(schedules_of(SPACE, target, 0)) not in (
        "rule", digest(schedules_of(LARGER, target, 0))
    )  # fmt: skip


def test_of_a_cpu(win, tmp_path):
    """Every kernel of a network of the space is one of the space's, and none is of a larger one's;
    its text is read back as it was."""
    target = resolve_target("x86-64-v3")
    kernels = make_kernels(target, 2, {})
    paired = parse_genotype(str(SHALLOW).replace("s2 e1k3", "s2 e3k3"))
    module = lower_graph(export_genotype(paired, SPACE), target, kernels=kernels)
    called = {str(module[name].attrs[SPEC]) for name in called_functions(module["main"])}
    assert any("StemPairSpec" in text for text in called)
    for text in called:
        spec = read_spec(text)
        assert spec == kernels.emitted[text]
        win(target, 2, text, kernels.rule(spec))
    win(target, 2, "EndSpec(", kernels.rule(spec))
    assert len(load_records([tmp_path / "tuning"])) == len(called) + 1
    assert set(schedules_of(SPACE, target, 2)) == called
    assert digest(schedules_of(LARGER, target, 2)) == "rule"
    assert digest(schedules_of(SPACE, target, 1)) == "rule"


@pytest.mark.parametrize(
    "text",
    ["", "EndSpec", "EndSpec(", "print(file='x')", "EndSpec(size=3)", "EndSpec(classes=f())"],
)
def test_no_spec(text):
    with pytest.raises(WorkError, match="not the text of a kernel's spec"):
        read_spec(text)
