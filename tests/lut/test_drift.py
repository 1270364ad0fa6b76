"""What changed since a table's day: the machine's speed, the scale, or single entries."""

from dataclasses import replace

import pytest

from lut.drift import MOST_MOVED, MOVED, drift_of
from lut.errors import UserError
from lut.ops import InvertedResidual
from tests.lut.tables import again, table, visit

KEYS = [InvertedResidual(16, 16 * n, 16, 64, 128, residual=True) for n in range(1, 21)]
US = {key: 10.0 + n for n, key in enumerate(KEYS)}


def measured(us=US, *, reference=100.0, network="n"):
    return visit(network, us, reference=reference, role="calibration")


def test_a_machine_that_is_slower_in_all_has_only_another_speed():
    slower = {key: 1.25 * us for key, us in US.items()}
    found = drift_of(table(measured()), again(measured(slower, reference=125.0)))
    assert found.reference_us == (100.0, 125.0)
    assert (found.speed, found.scale) == pytest.approx((1.25, 1.0))
    assert (found.moved, found.moved_share, found.holds) == ([], 0, True)
    assert sum(entry.share for entry in found.entries) == pytest.approx(1)


def test_entries_that_change_alike_beside_the_reference_are_a_scale():
    found = drift_of(table(measured()), again(measured({k: 1.3 * us for k, us in US.items()})))
    assert (found.speed, found.scale, found.holds) == pytest.approx((1.0, 1.3, True))
    assert not found.moved


def test_entries_that_change_by_themselves_have_moved():
    changed = US | {KEYS[3]: 1.5 * US[KEYS[3]], KEYS[7]: 0.6 * US[KEYS[7]]}
    found = drift_of(table(measured()), again(measured(changed)))
    assert [m.entry for m in found.moved] == [KEYS[7], KEYS[3]]  # the dearest change first
    assert [m.change for m in found.moved] == pytest.approx([-0.4, 0.5])
    whole = sum(US.values())
    share = (0.4 * US[KEYS[7]] + 0.5 * US[KEYS[3]]) / whole
    assert found.moved_share == pytest.approx(share)
    assert share > MOST_MOVED
    assert not found.holds


def test_one_small_entry_does_not_spoil_a_table():
    found = drift_of(table(measured()), again(measured(US | {KEYS[0]: 1.3 * US[KEYS[0]]})))
    assert [m.entry for m in found.moved] == [KEYS[0]]
    assert found.holds


def test_what_its_noise_explains_has_not_moved():
    """Rounds of 1.0, 1.0 and 1.9 of the same entry: the median is 1.0, the interval wide."""
    noisy = measured()
    samples = noisy.entries[KEYS[5]]
    wild = tuple(tuple(f * us for us in r) for f, r in zip((1.5, 1.5, 0.4), samples.samples_us,
                                                           strict=True))  # fmt: skip
    entries = noisy.entries | {KEYS[5]: replace(samples, samples_us=wild)}
    found = drift_of(table(measured()), again(replace(noisy, entries=entries)))
    (entry,) = [e for e in found.entries if e.entry == KEYS[5]]
    assert entry.change > MOVED
    assert entry.noise > entry.change
    assert found.holds


def test_an_entry_is_compared_in_the_same_networks():
    """In another network it has other neighbours, and so another time."""
    there = measured({key: 2 * us for key, us in US.items()}, network="other")
    found = drift_of(table(measured(), there), again(measured()))
    assert found.scale == pytest.approx(1)
    with pytest.raises(UserError, match="nothing in common with what was timed again"):
        drift_of(table(measured()), again(measured(network="other")))
