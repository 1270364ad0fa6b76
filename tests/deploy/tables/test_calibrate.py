"""A table beside machines that are made up: as it was, slower, and with other entries.
test_for_real.py calibrates one here."""

import json
from dataclasses import replace

import pytest

from deploy.tables import calibrate
from deploy.tables.build import provenance_of
from deploy.tables.calibrate import OCCASIONS, calibrate_table
from deploy.tables.check import require_measurable, unseen_networks
from deploy.targets import resolve_target
from hmseg.genotype import MRMS_GENOTYPE
from lut.errors import UserError, WorkError
from lut.estimate import LatencyCost
from lut.record import EntrySamples
from lut.table import Measure, Retime
from lut.table_file import add_retiming, load_table, save_table
from tests.deploy.tables.fakes import (
    INFO,
    PROTOCOL,
    SPACE,
    FakeDevices,
    FakeFactory,
    entry_ns,
    frame_ns,
)
from tests.deploy.tables.test_check import measured
from tests.lut.tables import table

TARGET = resolve_target("x86-64-v3")
NETWORKS = unseen_networks(table(), 5)  # those that calibrate the table that is made up


@pytest.fixture(autouse=True)
def made_up(monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    monkeypatch.setattr(calibrate, "factory_of", FakeFactory)


def calibrated(lut, devices=None, **how):
    return calibrate_table(lut, TARGET, devices or FakeDevices(), protocol=PROTOCOL, **how)


def test_a_machine_as_it_was_changes_nothing():
    told, opened = [], []
    lut = measured()
    found = calibrated(
        lut, FakeDevices(info=replace(INFO, host="h1"), before_visit=opened.append),
        on_progress=lambda *now: told.append(now[:2]),
    )  # fmt: skip
    assert opened == [MRMS_GENOTYPE, *NETWORKS * OCCASIONS]
    assert told == [(n + 1, 5 * OCCASIONS) for n in range(5 * OCCASIONS)]
    assert found.retiming.host == "h1"
    assert found.retiming.provenance == provenance_of(INFO, TARGET, {}, PROTOCOL)
    assert (found.drift.speed, found.drift.scale) == pytest.approx((1, 1), abs=1e-3)
    assert not found.drift.moved
    assert found.error_before == pytest.approx(0, abs=1e-3)
    for name in ("overhead_us", "factor"):
        assert getattr(found.after, name) == pytest.approx(getattr(found.before, name), rel=1e-2)
    assert found.table.retimings == (found.retiming,)
    assert not lut.retimings
    timed = {m.entry for m in found.drift.entries}
    assert timed == {key for genotype in NETWORKS for key in SPACE.keys(genotype)}
    said = json.loads(json.dumps(found.to_json()))
    assert (said["entries_timed"], said["moved"], said["networks"]) == (len(timed), [], 5)


def test_estimates_of_a_slower_machine_are_those_of_today():
    found = calibrated(measured(), FakeDevices(slower=1.25))
    assert found.drift.speed == pytest.approx(1.25, rel=1e-3)
    assert found.drift.scale == pytest.approx(1, rel=1e-2)
    cost = LatencyCost(found.table)
    for genotype in unseen_networks(found.table, 4):
        total = sum(cost.entry(key) for key in SPACE.keys(genotype))
        assert cost.network(total).value == pytest.approx(1.25 * frame_ns(genotype) / 1e3, rel=2e-3)


def test_kernels_of_another_version_are_what_is_timed():
    """After it the table can be checked here; before, the error says what helps."""
    lut = measured(kernels_version=1)
    with pytest.raises(UserError, match=r"kernels_version 1, now \d+; calibrate it") as caught:
        require_measurable(lut, TARGET, FakeDevices())
    assert caught.value.mend == Retime("t.jsonl")
    require_measurable(calibrated(lut).table, TARGET, FakeDevices())


def test_entries_that_moved_are_named_and_nothing_is_kept():
    """All windows of 7 take half as long again; the whole frames are what they were."""
    moved = {key: [1.5] for key in SPACE.all_keys() if getattr(key, "kernel", 0) == 7}
    with pytest.raises(WorkError) as caught:
        calibrated(measured(), FakeDevices(noise=moved))
    message = str(caught.value)
    assert "t.jsonl: entries moved, not only the scale: '" in message
    assert message.count("kernel=7") == 3
    assert "(+5" in message or "(+4" in message
    assert "more of" in message
    assert isinstance(caught.value.mend, Measure)


def test_networks_that_are_no_sum_of_their_entries_are_refused(monkeypatch):
    """Every other network takes 40% longer, its kernels as long as ever."""
    slow = set(NETWORKS[::2])
    monkeypatch.setattr(
        "tests.deploy.tables.fakes.frame_ns",
        lambda genotype, space: round(frame_ns(genotype, space) * (1 + 0.4 * (genotype in slow))),
    )
    with pytest.raises(WorkError, match=r"off the sum of their entries, bar 5%; calibrate again"):
        calibrated(measured())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cpu": "B"}, "it says: cpu 'B', now 'A CPU'; check it on its device, or build"),
        ({"schedules": "other"}, "it says: schedules 'other', now 'rule'"),
    ],
)
def test_a_table_of_another_kind_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        calibrated(measured(**changes))


def test_it_needs_networks_and_entries():
    lut = measured()
    ((provenance, (entries, *networks)),) = lut.runs
    few = replace(lut, runs=((provenance, (entries, *networks[:3])),))
    with pytest.raises(UserError, match="has 3 calibration networks of at least 4; measure"):
        calibrated(few)
    bare = replace(lut, runs=((provenance, tuple(networks)),))
    with pytest.raises(UserError, match="has no entry '"):
        calibrated(bare)


def test_on_disk_it_is_the_same(tmp_path):
    lut, path = measured(), tmp_path / "t.jsonl"
    save_table(lut, path)
    found = calibrated(load_table(path), FakeDevices(slower=2))
    written = add_retiming(path, found.retiming, path)
    assert load_table(path) == written
    assert LatencyCost(load_table(path)).calibration == found.after
    again = calibrated(load_table(path), FakeDevices(slower=4))  # beside the build, not the last
    assert again.drift.speed == pytest.approx(4, rel=1e-3)
    assert again.before == found.after


def test_samples_are_of_single_calls():
    (first, *_) = calibrated(measured()).retiming.visits
    for key, samples in first.entries.items():
        assert isinstance(samples, EntrySamples)
        assert samples.samples_us[0][0] == pytest.approx(entry_ns(key) / 1e3, rel=1e-2)
