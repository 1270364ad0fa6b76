from dataclasses import fields

import pytest

from deploy.kernels import emit, module_of, pointwise
from deploy.kernels.isa import AVX2, AVX512
from deploy.kernels.pointwise import PointwiseSpec
from deploy.tuning.candidates import neighbours


@pytest.mark.parametrize("isa", [AVX2, AVX512], ids=lambda isa: isa.name)
def test_neighbours_differ_in_one_field(isa):
    spec = PointwiseSpec(32, 48, 16, 32)
    rule = pointwise.default_schedule(spec, isa, 2)
    found = list(neighbours(rule, isa))
    assert len(found) > 5
    assert len(set(found)) == len(found)
    for schedule in found:
        changed = [f for f in fields(rule) if getattr(rule, f.name) != getattr(schedule, f.name)]
        assert len(changed) == 1


def test_tiles_fit_the_registers():
    spec = PointwiseSpec(32, 48, 16, 32)
    rule = pointwise.default_schedule(spec, AVX2, 2)
    for schedule in neighbours(rule, AVX2):
        tile = schedule.tile
        assert tile.px * tile.ob + tile.ob + 1 <= AVX2.registers
    assert emit(spec, AVX2, schedule=next(iter(neighbours(rule, AVX2)))) is not None
    assert module_of(spec) is pointwise
