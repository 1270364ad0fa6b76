"""Which entry each kernel call belongs to; test_networks.py asks it of compiled networks."""

from dataclasses import replace

import pytest

from deploy.cpu.kernels import has_kernel
from deploy.gpu.kernels import GpuKernels
from deploy.tables.entries import entries_of
from hmseg.operators import Space
from lut.errors import WorkError
from lut.ops import (
    Context,
    Convert,
    InvertedResidual,
    Labels,
    Resize,
    expand,
    parse_operation,
    with_dtype,
)
from tests.deploy.tables.fakes import SHALLOW, SPACE

FIRST, SECOND = Resize(16, 8, 8, 4, 4), Resize(48, 4, 4, 2, 2)
CONTEXT, LABELS = Context(160, 256, 2, 2), Labels(19, 8, 8, 64, 64)
POOL, LOCAL = (str(part) for part in CONTEXT.parts())


def small(operation):
    """A backend without kernels for what has parts, but for the pool."""
    return not operation.parts() or str(operation) == POOL


def test_an_entry_is_one_call_or_several_in_a_row():
    calls = [str(FIRST), POOL, LOCAL, str(LABELS)]
    assert entries_of(calls, [FIRST, CONTEXT, LABELS], small) == [
        (FIRST, 1), (CONTEXT, 2), (LABELS, 1)
    ]  # fmt: skip


def test_they_come_in_the_order_of_the_calls_each_once():
    calls = [str(SECOND), POOL, LOCAL, str(FIRST), str(SECOND)]
    entries = [FIRST, SECOND, SECOND, CONTEXT]
    found = entries_of(calls, entries, small)
    assert found == [(SECOND, 1), (CONTEXT, 2), (FIRST, 1), (SECOND, 1)]


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([str(FIRST), POOL, LOCAL, str(SECOND)], f"no entry for the kernel '{SECOND}'"),
        ([str(FIRST), str(FIRST), POOL, LOCAL], f"no entry for the kernel '{FIRST}'"),
        ([str(FIRST), POOL, "fused_add"], f"no entry for the kernel '{POOL}'"),
        ([str(FIRST), LOCAL, POOL], f"no entry for the kernel '{LOCAL}'"),
        ([str(FIRST)], f"calls nothing for its entry '{CONTEXT}'"),
        ([], f"calls nothing for its entry '{FIRST}'"),
    ],
)
def test_calls_that_are_not_the_entries(calls, message):
    with pytest.raises(WorkError) as caught:
        entries_of(calls, [FIRST, CONTEXT], small)
    assert message in str(caught.value)


def test_types_and_what_bytes_do_are_the_table_s():
    """A conversion belongs to what it is made for; in 8 bits alone an activation may be missing."""
    pool = parse_operation(POOL)
    block = next(op for op in SPACE.keys(SHALLOW) if isinstance(op, InvertedResidual))
    narrow = replace(block, act="none", dtype="int8", wide=True)
    widen = Convert("widen", 160, 2, 2, "int8")
    calls = [str(narrow), str(widen), str(pool), str(with_dtype(FIRST, "bfloat16"))]
    expected = [(block, 1), (pool, 2), (FIRST, 1)]
    assert entries_of(calls, [FIRST, pool, block], has_kernel) == expected
    with pytest.raises(WorkError, match="no entry for the kernel"):
        entries_of([str(replace(block, act="none"))], [block], has_kernel)


@pytest.mark.parametrize("has", [has_kernel, GpuKernels().has], ids=["cpu", "gpu"])
def test_every_entry_of_the_space_has_its_kernels(has):
    """No kernel is begun by two entries, so that the calls of a frame are cut in one way only."""
    entries = Space((256, 512), 0.5).all_keys()
    for entry in entries:
        parts = expand(entry, has)
        assert 1 <= len(parts) <= 6
        assert all(has(part) for part in parts)
    calls = [str(part) for entry in SPACE.keys(SHALLOW) for part in expand(entry, has)]
    assert [entry for entry, _ in entries_of(calls, SPACE.keys(SHALLOW), has)] == SPACE.keys(
        SHALLOW
    )
