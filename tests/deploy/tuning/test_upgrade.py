"""Tuning records of earlier versions; the specs are as those versions printed them."""

import json
from dataclasses import asdict

import pytest

from deploy.cpu.isa import AVX512
from deploy.cpu.kernels import KERNELS_VERSION, CpuKernels
from deploy.schedules import with_fields
from deploy.targets import resolve_target
from deploy.tuning import records
from deploy.tuning.records import SHIPPED, load_records, matching, tuned_schedules
from deploy.tuning.upgrade import operation_of, upgrade_tuning
from lut.errors import UserError
from lut.ops import (
    Convert,
    Depthwise,
    GlobalMean,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Logits,
    Pointwise,
    Resize,
    Stem,
    StemBlock,
    StemPair,
)
from lut.table_file import CarryOver

BLOCK = (
    "InvertedResidualSpec(cin=16, hidden=96, cout=16, height=64, width=128, kernel=3, stride=1, "
    "dilation=1, expand=True, residual=True, act='relu6')"
)
PAIR = (
    "StemPairSpec(first=StemBlockSpec(hidden=16, cout=8, height=256, width=512, kernel=3, stride=1,"
    " dilation=1, source='uint8_nhwc', stem_act='relu6', act='relu6'), second="
    "InvertedResidualSpec(cin=8, hidden=48, cout=16, height=128, width=256, kernel=3, stride=2, "
    "dilation=1, expand=True, residual=False, act='relu6'))"
)
LOCAL_GLOBAL = (
    "LocalGlobalSpec(cin=16, mid=256, cout=128, height=32, width=64, low_height=16, low_width=32, "
    "gate=True, mid_act='relu6', act='relu6')"
)
TVM = "tvm:0123456789abcdef01234567"
SPECS = {
    BLOCK: InvertedResidual(16, 96, 16, 64, 128, residual=True),
    PAIR: StemPair(
        StemBlock(16, 8, 256, 512), InvertedResidual(8, 48, 16, 128, 256, stride=2)
    ),
    LOCAL_GLOBAL: LocalGlobal(16, 256, 128, 32, 64, 16, 32),
    "ConvertSpec(direction='pack', channels=3, height=4, width=5)": Convert("pack", 3, 4, 5),
    "DepthwiseSpec(channels=16, height=32, width=64, kernel=5, stride=2, dilation=1, act='none')":
        Depthwise(16, 32, 64, 5, 2, act="none"),
    "EndSpec(classes=19, height=32, width=64, out_height=256, out_width=512, output='labels')":
        Labels(19, 32, 64, 256, 512),
    "EndSpec(classes=19, height=32, width=64, out_height=256, out_width=512, output='logits')":
        Logits(19, 32, 64, 256, 512),
    "GlobalPoolSpec(cin=16, cout=256, height=32, width=64, act='sigmoid')":
        GlobalPool(16, 256, 32, 64, "sigmoid"),
    "PointwiseSpec(cin=16, cout=24, height=32, width=64, act='relu', add='map')":
        Pointwise(16, 24, 32, 64, "relu", "map"),
    "ResizeSpec(channels=16, height=32, width=64, out_height=16, out_width=32)":
        Resize(16, 32, 64, 16, 32),
    "StemSpec(cout=16, height=256, width=512, source='float32_nchw', act='relu6')":
        Stem(16, 256, 512, "float32_nchw"),
    "UpsampleAddSpec(cin=48, cout=256, height=16, width=32, low_height=8, low_width=16, "
    "act='none')": Pointwise(48, 256, 16, 32, add="low", low_height=8, low_width=16),
    # A GPU's own.
    "GlobalMeanSpec(channels=16, height=32, width=64)": GlobalMean(16, 32, 64),
    "LabelEndSpec(classes=19, height=32, width=64, out_height=256, out_width=512)":
        Labels(19, 32, 64, 256, 512),
    "PointwiseSpec(cin=16, cout=256, height=32, width=64, act='relu6', gate=True, add='low', "
    "low=(16, 32))": Pointwise(16, 256, 32, 64, "relu6", "low", True, 16, 32),
    "PointwiseSpec(cin=16, cout=256, height=32, width=64, act='none', gate=False, add='none', "
    "low=(0, 0))": Pointwise(16, 256, 32, 64),
}  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_is_an_operation(spec):
    assert operation_of(spec) == SPECS[spec]


@pytest.mark.parametrize(
    "spec",
    [
        "", "EndSpec", "EndSpec(", "EndSpec()", "3", "'x'", "print(file='x')", "NewSpec(size=3)",
        "StemSpec(3, height=4, width=5)", "StemSpec(cout=3, height=4)", "StemSpec(cout=3, size=4)",
        "StemSpec(cout=f(), height=4, width=5)", "StemSpec(cout=-3, height=4, width=5)",
        "StemSpec(cout='3 x=', height=4, width=5)", "StemSpec(cout=True, height=4, width=5)",
        "StemSpec(**{'cout': 3}, height=4, width=5)", "StemSpec(cout=[3], height=4, width=5)",
        "StemSpec(cout=3, height=4, width=5, act='swish')", "a.StemSpec(cout=3, height=4, width=5)",
        "StemSpec(cout=3, height=4, width=5)\0", "StemSpec(cout=3,\nheight=4, width=0)",
        "EndSpec(classes=19, height=3, width=6, out_height=25, out_width=51, output='both')",
        "PointwiseSpec(cin=1, cout=1, height=2, width=2, low=3)",
        PAIR.replace("cin=8", "cin=9"), PAIR.replace("second=", "third="),
        "StemSpec(cout=" + "(" * 100_000, "StemSpec(cout=" + "StemSpec(cout=" * 5000,
        str(SPECS[BLOCK]), TVM,
    ],
    ids=lambda spec: spec[:60],
)  # fmt: skip
def test_anything_else_is_no_spec(spec):
    with pytest.raises(UserError, match="is no spec of an earlier version") as e:
        operation_of(spec)
    assert "\n" not in str(e.value)
    assert len(str(e.value)) < 300


def record(spec, **changes):
    values = {
        "target": '{"kind":"llvm"}', "threads": 2, "kernels_version": KERNELS_VERSION, "spec": spec,
        "schedule": {"tasks": 2}, "rule_ns": [200, 210], "candidate_ns": [100, 110], "refused": "",
        "machine": "a machine", "versions": {"apache-tvm": "0"}, "date": "now",
    }  # fmt: skip
    return values | changes


def write(path, *values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def test_records_are_carried_over_once(tmp_path):
    """Also beside records of this version and those of what is left to TVM."""
    path = tmp_path / "my records.jsonl"
    old = [record(spec, date=str(n)) for n, spec in enumerate(SPECS)]
    new = [record(TVM), record(str(SPECS[PAIR]))]
    write(path, *new, *old)
    with pytest.raises(UserError, match=r"record 3: from before operations .*carry it over") as e:
        load_records([tmp_path])
    assert e.value.mend == CarryOver(str(path))
    assert upgrade_tuning(path) == len(SPECS)
    wanted = [*new, *(values | {"spec": str(SPECS[values["spec"]])} for values in old)]
    assert [json.loads(json.dumps(asdict(r))) for r in load_records([tmp_path])] == wanted
    after = path.read_bytes()
    assert upgrade_tuning(path) is None
    assert path.read_bytes() == after


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (record("NewSpec(size=3)"), "'NewSpec.* is no spec of an earlier version"),
        (record(BLOCK.replace("cin=16", "cin=0")), "is no spec of an earlier version"),
        (record("conv 3"), "'conv 3' is no operation"),
        (record(3), "of neither a latency table nor tuning records"),
        (record(BLOCK, extra=1), "of neither a latency table nor tuning records"),
        ({"spec": BLOCK}, "of neither a latency table nor tuning records"),
        ({}, "of neither a latency table nor tuning records"),
    ],
)
def test_anything_else_is_left_as_it_is(tmp_path, values, message):
    path = tmp_path / "r.jsonl"
    write(path, record(BLOCK), values)
    before = path.read_bytes()
    with pytest.raises(UserError, match=message) as e:
        upgrade_tuning(path)
    assert str(e.value).startswith(f"{path}, line 2: ")
    assert path.read_bytes() == before


def test_a_file_without_a_record(tmp_path):
    path = tmp_path / "r.jsonl"
    path.touch()
    with pytest.raises(UserError, match="neither a latency table nor tuning records"):
        upgrade_tuning(path)


SHIPPED_TARGET = '{"kind":"llvm","mcpu":"znver5","mtriple":"x86_64-linux-gnu"}'
# The fastest candidate of each kernel in the shipped records, as the records of the earlier version
# had it; the gain of none is enough to replace the rule.
BEST = {
    PAIR: {
        "stem_tile": {"px": 16, "ob": 1}, "first_depthwise_px": 17,
        "first_project_tile": {"px": 26, "ob": 1}, "strip": 128, "tasks": 2,
        "expand_tile": {"px": 8, "ob": 3}, "depthwise_px": 16, "project_tile": {"px": 26, "ob": 1},
    },
    BLOCK: {
        "mode": "rows", "chunk": 2, "strip": 128, "tasks": 2, "expand_tile": {"px": 8, "ob": 3},
        "depthwise_px": 16, "project_tile": {"px": 26, "ob": 1}, "prefetch": 0, "phases": 1,
    },
    LOCAL_GLOBAL: {
        "segment": 64, "row_tasks": 2, "mid_tile": {"px": 13, "ob": 2},
        "out_tile": {"px": 8, "ob": 3},
    },
}  # fmt: skip


def test_the_shipped_records_are_found_as_before(monkeypatch):
    key, version = resolve_target(SHIPPED_TARGET).key, KERNELS_VERSION
    assert key == SHIPPED_TARGET
    assert tuned_schedules(key, 2, version, [SHIPPED]) == {}
    own = matching(load_records([SHIPPED]), key, 2, version)
    assert [sum(r.spec == str(SPECS[spec]) for r in own) for spec in BEST] == [53, 8, 24]
    monkeypatch.setattr(records, "MIN_GAIN", 0.9)
    found = tuned_schedules(key, 2, version, [SHIPPED])
    assert found == {str(SPECS[spec]): schedule for spec, schedule in BEST.items()}
    kernels = CpuKernels(AVX512, 2, found)
    for op in (SPECS[spec] for spec in BEST):  # their kernels take them
        assert kernels.schedule(op) == with_fields(kernels.rule(op), found[str(op)])
