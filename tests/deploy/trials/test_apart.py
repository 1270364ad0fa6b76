"""A candidate that crashes or writes outside of its buffers is refused, and tuning goes on."""

from dataclasses import replace

import pytest
import tvm

from deploy.cpu.candidate import candidate_library
from deploy.cpu.kernels import emit, inverted_residual
from deploy.cpu.pipeline import isa_of
from deploy.trials.apart import run_apart
from lut.ops import InvertedResidual
from tests.conditions import KERNELS

BLOCK = InvertedResidual(48, 288, 48, 16, 32, dilation=2, residual=True)


def candidate(cpu, schedule_of):
    isa = isa_of(cpu)
    KERNELS.require()
    rule = inverted_residual.default_schedule(BLOCK, isa, 2)
    function = emit(BLOCK, isa, schedule=schedule_of(rule))
    return candidate_library(function, cpu), function


def test_the_rule_stays_in_its_buffers(cpu):
    run_apart(*candidate(cpu, lambda rule: rule))


def test_strips_wider_than_the_image_are_refused(cpu):
    """Such a schedule once ended the tuner: it writes past buffers that no caller sees."""
    with pytest.raises(ValueError, match="strips of 33 columns in rows of 32"):
        candidate(cpu, lambda rule: replace(rule, strip=BLOCK.output[2] + 1))


@pytest.mark.parametrize(
    ("last", "message"), [(16, "outside of its buffers"), (1 << 40, r"crashes \(SIGSEGV\)")]
)
def test_writes_past_the_end_are_found(cpu, last, message):
    source = f"""
# from tvm.script import tirx as T
@T.prim_func(s_tir=True)
def main(x: T.Buffer((16,), "float32"), y: T.Buffer((16,), "float32")):
    T.func_attr({{"global_symbol": "main"}})
    for i in range(17):
        with T.sblock("copy"):
            vi = T.axis.spatial(17, i)
            y[T.Cast("int64", vi) * T.int64({last // 16})] = T.float32(1)
"""
    function = tvm.script.from_source(source)
    library = candidate_library(function, cpu)
    with pytest.raises(RuntimeError, match=message):
        run_apart(library, function)
