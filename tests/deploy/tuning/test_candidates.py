import json
from dataclasses import fields

import pytest

from deploy.kernels import emit, ends, inverted_residual, module_of, pointwise
from deploy.kernels.choice import schedule_fields, with_fields
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


@pytest.mark.parametrize("isa", [AVX2, AVX512], ids=lambda isa: isa.name)
def test_switches_are_turned_not_counted(isa):
    """A bool is an int to Python: it must not be halved or doubled."""
    spec = ends.EndSpec(19, 8, 16, 64, 128)
    rule = ends.default_schedule(spec, isa, 2)
    found = [s for s in neighbours(rule, isa) if s.fill_cells is not rule.fill_cells]
    (turned,) = found
    assert turned.fill_cells is (not rule.fill_cells)
    assert all(isinstance(s.fill_cells, bool) for s in neighbours(rule, isa))
    assert emit(spec, isa, schedule=turned) is not None
    fields_of_record = json.loads(json.dumps(schedule_fields(turned)))
    assert with_fields(rule, fields_of_record) == turned


def test_modes_are_those_of_the_kernel():
    spec = inverted_residual.InvertedResidualSpec(16, 96, 16, 32, 64)
    rule = inverted_residual.default_schedule(spec, AVX2, 2)
    (other,) = [s for s in neighbours(rule, AVX2) if s.mode != rule.mode]
    assert {rule.mode, other.mode} == {"rows", "hid"}
