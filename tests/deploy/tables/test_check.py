"""Estimates beside networks on devices that are made up; test_for_real.py checks a table here."""

from collections import Counter
from dataclasses import replace
from math import isnan

import pytest

from deploy.object_cache import ObjectCache
from deploy.tables import check
from deploy.tables.build import provenance_of
from deploy.tables.check import (
    OCCASIONS,
    CheckResult,
    Row,
    check_networks,
    kendall_tau,
    require_measurable,
    unseen_networks,
)
from deploy.targets import resolve_target
from hmseg.genotype import MRMS_GENOTYPE
from lut.errors import UserError
from tests.deploy.tables.fakes import (
    INFO,
    PROTOCOL,
    SPACE,
    FakeArtifact,
    FakeDevices,
    entry_ns,
    frame_ns,
)
from tests.lut.tables import IDENTITY, table, visit

TARGET = resolve_target("x86-64-v3")
BASELINE_US = frame_ns(MRMS_GENOTYPE) / 1000


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))


@pytest.fixture
def compiled(monkeypatch):
    """Nothing is; what was asked for."""
    asked = []

    def compile_(genotype, *how):
        asked.append((genotype, *how))
        return FakeArtifact(genotype)

    monkeypatch.setattr(check, "_compile", compile_)
    return asked


def measured(us=lambda entry: entry_ns(entry) / 1000, **changes):
    """A complete table of the devices that are made up; `us` is what it says of an entry, `changes`
    are of its provenance."""
    entries = {key: us(key) for key in SPACE.all_keys()}
    wholes = [_whole(genotype, entries) for genotype in unseen_networks(table(), 5)]
    provenance = provenance_of(INFO, TARGET, {}, PROTOCOL)
    identity = replace(IDENTITY, target=TARGET.key, resolution="64x64")
    return table(
        visit("all", entries, reference=BASELINE_US), *wholes, identity=identity,
        provenance=replace(provenance, **changes),
    )  # fmt: skip


def _whole(genotype, entries):
    """A calibration network; an entry may be called several times."""
    calls = Counter(SPACE.keys(genotype))
    found = visit(
        str(genotype), {key: entries[key] for key in calls}, whole=frame_ns(genotype) / 1000,
        reference=BASELINE_US, role="calibration",
    )  # fmt: skip
    counted = {key: replace(found.entries[key], calls=calls[key]) for key in calls}
    return replace(found, entries=counted)


class TestNetworks:
    def test_estimates_are_exact_where_a_frame_is_the_sum_of_its_entries(self, compiled):
        lut, told, rows = measured(), [], []
        networks = unseen_networks(lut, 3)
        result = check_networks(
            lut, TARGET, FakeDevices(), networks, protocol=PROTOCOL, on_progress=told.append,
            on_row=rows.append,
        )  # fmt: skip
        assert result.rows == tuple(rows)
        assert [row.network for row in rows] == list(map(str, networks))
        for row, genotype in zip(rows, networks, strict=True):
            assert row.occasions_us == pytest.approx((frame_ns(genotype) / 1000,) * OCCASIONS)
            assert row.estimate_us == pytest.approx(row.measured_us)
            assert row.upper_us >= row.estimate_us
        assert (result.mean_error, result.worst_error) == pytest.approx((0, 0), abs=1e-9)
        assert result.tau == 1
        assert result.passed
        assert [genotype for genotype, *_ in compiled] == [MRMS_GENOTYPE, *networks]
        cache = compiled[0][-1]  # one for all: most networks share most kernels
        assert cache == ObjectCache(None)
        assert all(how[:-1] == [SPACE, TARGET, 2] for _, *how in compiled)
        assert all(how[-1] is cache for how in compiled)
        assert told == [
            *(f"compiled {n + 1} of 3" for n in range(3)),
            *(f"timed {n + 1} of {3 * OCCASIONS}" for n in range(3 * OCCASIONS)),
        ]

    def test_each_is_measured_on_occasions_with_all_the_others_between(self, compiled):
        opened, networks = [], unseen_networks(measured(), 2)
        devices = FakeDevices(before_visit=opened.append)
        check_networks(measured(), TARGET, devices, networks, protocol=PROTOCOL)
        assert opened == [MRMS_GENOTYPE, *networks * OCCASIONS]

    def test_a_device_at_another_speed_is_scaled_to_the_baseline(self, compiled, monkeypatch):
        monkeypatch.setattr(
            "tests.deploy.tables.fakes.frame_ns",
            lambda genotype, space: 2 * frame_ns(genotype, space),
        )
        (genotype,) = networks = unseen_networks(measured(), 1)
        result = check_networks(measured(), TARGET, FakeDevices(), networks, protocol=PROTOCOL)
        assert result.rows[0].measured_us == pytest.approx(frame_ns(genotype) / 1000)

    def test_a_wrong_table_does_not_pass(self, compiled):
        """It says of the largest windows that they take ten times as long."""

        def wrong(entry):
            return entry_ns(entry) / 1000 * (10 if getattr(entry, "kernel", 0) == 7 else 1)

        lut = measured(wrong)
        networks = unseen_networks(lut, 8)
        result = check_networks(lut, TARGET, FakeDevices(), networks, protocol=PROTOCOL)
        assert len(result.rows) == 8
        assert not result.passed
        assert result.mean_error > 0.05

    def test_a_missing_entry_is_named_before_anything_is_compiled(self, compiled):
        partial = table(visit("e"), identity=measured().identity, provenance=measured().runs[0][0])
        with pytest.raises(UserError, match=r"t.jsonl has no entry '.*'; measure it"):
            check_networks(partial, TARGET, FakeDevices(), unseen_networks(partial, 2))
        assert not compiled


def test_unseen_networks_are_new_and_the_same_each_time():
    lut = measured()
    found = unseen_networks(lut, 20)
    assert len(set(found)) == 20
    assert not {str(genotype) for genotype in found} & {v.network for v in lut.visits}
    assert found == unseen_networks(lut, 20)


def test_unseen_networks_of_stages_differ_there_alone():
    lut = measured()
    found = unseen_networks(lut, 5, ["s3"])
    assert len(set(found)) == 5
    assert {len(set(ops)) for ops in zip(*(g.ops for g in found), strict=True)} == {1, 5}
    with pytest.raises(UserError, match="not 50 networks of these stages"):
        unseen_networks(lut, 50, ["s1"])


class TestMeasurable:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"cpu": "B"}, r"cannot be checked here and now, it says: cpu 'B', now 'A CPU'"),
            ({"kernels_version": 1}, r"kernels_version 1, now \d+"),
            ({"schedules": "other"}, r"schedules 'other', now 'rule'"),
            ({"cpu": "B", "schedules": "x"}, r"cpu 'B', now 'A CPU'; schedules 'x', now 'rule'"),
        ],
    )
    def test_a_table_of_another_cpu_or_other_kernels(self, changes, message):
        with pytest.raises(UserError, match=message):
            require_measurable(measured(**changes), TARGET, FakeDevices())

    def test_what_is_noise_at_most_is_no_hindrance(self):
        lut = measured(versions={"torch": "0"}, pinning="none", protocol="another")
        require_measurable(lut, TARGET, FakeDevices())

    def test_another_target(self):
        with pytest.raises(UserError, match=r"for the target .*x86-64-v3.*, this is .*x86-64-v4"):
            require_measurable(measured(), resolve_target("x86-64-v4"), FakeDevices())


def row(estimate, *measured_us, upper=None):
    return Row("n", estimate, estimate if upper is None else upper, measured_us)


class TestResult:
    def test_a_row(self):
        assert row(110, 100, 90, 300).measured_us == 100  # a disturbed occasion is an outlier
        assert row(110, 100).error == pytest.approx(0.1)
        assert row(90, 100).error == pytest.approx(-0.1)

    @pytest.mark.parametrize(
        ("rows", "passed"),
        [
            ([row(104, 100), row(208, 200)], True),
            ([row(106, 100), row(212, 200)], False),  # the mean is beyond 5%
            ([row(100, 100), row(178, 200), row(300, 300)], False),  # one is beyond 10%
            ([row(102, 100), row(101, 101)], False),  # in another order
        ],
    )
    def test_three_bars(self, rows, passed):
        result = CheckResult(tuple(rows))
        assert result.passed is passed
        assert result.to_json()["passed"] is passed

    def test_what_it_says(self):
        result = CheckResult((row(90, 100, upper=101), row(204, 200, upper=199)))
        said = result.to_json()
        assert said["networks"] == 2
        assert said["mean_error"] == pytest.approx(0.06)
        assert said["worst_error"] == pytest.approx(0.1)
        assert (said["kendall_tau"], said["within_upper"]) == (1, 1)
        assert said["rows"][0]["measured_us"] == 100


@pytest.mark.parametrize(
    ("second", "tau"), [([1, 2, 3, 4], 1), ([4, 3, 2, 1], -1), ([1, 2, 4, 3], 4 / 6)]
)
def test_kendall_tau(second, tau):
    assert kendall_tau([1, 2, 3, 4], second) == pytest.approx(tau)
    assert isnan(kendall_tau([1], [2]))
