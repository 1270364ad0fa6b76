"""What is worth measuring: neighbours of a schedule, and the ways to share the work."""

import json
from dataclasses import fields, replace

import pytest

from deploy.cpu.isa import AVX2, AVX512
from deploy.cpu.kernels import CpuKernels, emit
from deploy.cpu.neighbours import neighbours
from deploy.schedules import schedule_fields, with_fields
from lut.ops import InvertedResidual, Labels, Pointwise

ISAS = pytest.mark.parametrize("isa", [AVX2, AVX512], ids=lambda isa: isa.name)


def rule(op, isa):
    return CpuKernels(isa, 2).rule(op)


def alternatives(op, best, isa):
    return list(CpuKernels(isa, 2).alternatives(op, best))


@ISAS
def test_neighbours_differ_in_one_field(isa):
    op = Pointwise(32, 48, 16, 32)
    best = rule(op, isa)
    found = list(neighbours(best, isa))
    assert len(found) > 5
    assert len(set(found)) == len(found)
    for schedule in found:
        changed = [f for f in fields(best) if getattr(best, f.name) != getattr(schedule, f.name)]
        assert len(changed) == 1


def test_tiles_fit_the_registers():
    op = Pointwise(32, 48, 16, 32)
    best = rule(op, AVX2)
    for schedule in neighbours(best, AVX2):
        tile = schedule.tile
        assert tile.px * tile.ob + tile.ob + 1 <= AVX2.registers
    assert emit(op, AVX2, schedule=next(iter(neighbours(best, AVX2)))) is not None


@ISAS
def test_switches_are_turned_not_counted(isa):
    """A bool is an int to Python: it must not be halved or doubled."""
    op = Labels(19, 8, 16, 64, 128)
    best = rule(op, isa)
    found = [s for s in neighbours(best, isa) if s.by_cells is not best.by_cells]
    (turned,) = found
    assert turned.by_cells is (not best.by_cells)
    assert all(isinstance(s.by_cells, bool) for s in neighbours(best, isa))
    assert emit(op, isa, schedule=turned) is not None
    fields_of_record = json.loads(json.dumps(schedule_fields(turned)))
    assert with_fields(best, fields_of_record) == turned


def test_modes_are_those_of_the_kernel():
    op = InvertedResidual(16, 96, 16, 32, 64)
    best = rule(op, AVX2)
    (other,) = [s for s in neighbours(best, AVX2) if s.mode != best.mode]
    assert {best.mode, other.mode} == {"rows", "hid"}


def ways(schedules):
    return {(s.mode, s.phases, s.tasks) for s in schedules}


def test_every_way_to_share_the_work_is_offered():
    op = InvertedResidual(32, 192, 32, 16, 32, dilation=2, residual=True)
    best = rule(op, AVX512)
    assert (best.mode, best.phases, best.tasks) == ("rows", 2, 1)
    found = alternatives(op, best, AVX512)
    assert {("rows", 1, 2), ("rows", 2, 1), ("hid", 1, 2)} <= ways(found[:3])
    (hid,) = [s for s in found[:3] if s.mode == "hid"]
    assert hid.chunk != best.chunk
    assert (192 // 16) % (2 * hid.chunk) == 0
    assert best in found[:3]
    assert set(neighbours(best, AVX512)) <= set(found)
    for schedule in found[:3]:
        assert emit(op, AVX512, schedule=schedule) is not None


def test_classes_of_rows_are_offered_where_the_rule_has_none():
    op = InvertedResidual(96, 576, 160, 8, 16, dilation=4)
    best = rule(op, AVX512)
    assert best.mode == "hid"
    assert ("rows", 4, 1) in ways(alternatives(op, best, AVX512))


def test_other_kernels_have_their_neighbours_only():
    for op in (
        Pointwise(32, 48, 16, 32),
        InvertedResidual(16, 16, 8, 16, 32, expand=False),
    ):
        best = rule(op, AVX2)
        assert alternatives(op, best, AVX2) == list(neighbours(best, AVX2))


@ISAS
def test_prefetching_is_turned_off_and_on(isa):
    op = InvertedResidual(24, 144, 24, 256, 512, residual=True)
    on = rule(op, isa)
    assert on.prefetch
    off = replace(on, prefetch=0)
    assert off in neighbours(on, isa)
    assert on in neighbours(off, isa)
