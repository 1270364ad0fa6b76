from dataclasses import replace

import pytest

from lut.errors import UserError
from lut.record import EntrySamples
from lut.table import Measure, Merge, merge_tables
from lut.table_file import load_table, save_table
from tests.lut.tables import (
    IDENTITY,
    KEY,
    OTHER,
    PROVENANCE,
    RESIZE_RULE,
    again,
    table,
    visit,
)


def test_entries_are_medians_at_baseline_speed():
    found = table(
        visit("a", {KEY: 10.0}), visit("b", {KEY: 24.0}, reference=200.0),
        visit("c", {KEY: 11.0, OTHER: 3.0}),
        visit("d", {KEY: 500.0}, role="calibration"),
    )  # fmt: skip
    assert found.baseline_us == 100.0
    assert found.entry(KEY).median_us == pytest.approx((10 + 12 + 11) / 3)
    assert found.entry(KEY).rounds == 9
    assert found.entry(OTHER).half_interval_us == 0
    assert not found.entry(OTHER).noisy
    assert table(visit("a", {KEY: 5.0}), visit("b", {KEY: 10.0})).entry(KEY).noisy


def test_a_miss_says_what_to_measure():
    with pytest.raises(UserError, match=r"no entry 'resize .*; measure it") as missing:
        table(visit()).entry(OTHER)
    with pytest.raises(UserError, match=r"t\.jsonl is empty") as empty:
        _ = table().baseline_us
    assert missing.value.mend == empty.value.mend == Measure(IDENTITY, "t.jsonl")


def test_a_table_that_is_not_there_can_be_measured(tmp_path):
    path = tmp_path / "none.jsonl"
    with pytest.raises(UserError, match=r"none\.jsonl: no such table") as caught:
        load_table(path)
    assert caught.value.mend == Measure(None, str(path))


def test_other_networks_are_refused():
    same = ("256x512", 0.5, 19, RESIZE_RULE)
    table(visit()).require(*same)
    for place, (value, name) in enumerate(
        [("512x1024", "resolution"), (1.0, "width"), (11, "num_classes"), ("x", "resize_rule")]
    ):
        other = [*same[:place], value, *same[place + 1 :]]
        with pytest.raises(UserError, match=rf"is for other networks than these: {name} "):
            table(visit()).require(*other)


def test_few_rounds_need_a_wider_interval():
    """scipy.stats.t.interval(0.95, 2, mean, sem) of 9.8, 10, 10.2 is 10 +- 0.497."""
    rounds = [visit("a", {KEY: us}, rounds=1) for us in (9.8, 10.0, 10.2)]
    entry = table(*rounds).entry(KEY)
    assert entry.half_interval_us == pytest.approx(0.497, rel=0.01)


def test_how_much_the_visits_of_a_network_differ():
    """100 and 110 us at the baseline's speed; another network once."""
    first, second = (visit("a", whole=us) for us in (100.0, 110.0))
    (spread,) = table(first, second, visit("b", whole=70.0)).occasions_spread
    assert spread == pytest.approx(50**0.5 / 105)


def test_percentiles_are_of_single_frames():
    """Two rounds of frames at the reference's baseline speed."""
    frames = (tuple(map(float, range(1, 11))), tuple(map(float, range(11, 21))))
    still = ((100.0,) * 10,) * 2
    one = replace(
        visit("n"), reference_us=still, whole_us=still, entries={KEY: EntrySamples(1, frames)}
    )
    entry = table(one).entry(KEY)
    assert (entry.p10_us, entry.median_us, entry.p90_us) == (3.0, 10.5, 18.0)


def test_merge_takes_equal_visits_once():
    merged = merge_tables([table(visit("a"), visit("b")), table(visit("b"), visit("c"))], "m")
    assert [v.network for v in merged.visits] == ["a", "b", "c"]
    assert len(merged.runs) == 1


def test_merging_other_provenance_must_be_forced_and_shows(tmp_path):
    path = tmp_path / "t.jsonl"
    save_table(table(visit("a"), visit("b"), name=str(path)), path)
    other = table(visit("c"), provenance=replace(PROVENANCE, cpu="B"), name="other.jsonl")
    with pytest.raises(UserError, match=r"other.jsonl was measured with another cpu ") as caught:
        merge_tables([load_table(path), other], "m")
    assert caught.value.mend == Merge((str(path), "other.jsonl"))
    merged = merge_tables([load_table(path), other], "m", force=True)
    save_table(merged, path)
    assert [p.cpu for p, _ in load_table(path).runs] == ["A CPU", "B"]
    with pytest.raises(UserError, match=r"differ: resolution '256x512' and '64x64'"):
        merge_tables([other, table(identity=replace(IDENTITY, resolution="64x64"))], "m")


class TestTimedAgain:
    def test_entries_stay_and_calibration_is_the_last(self):
        built = table(visit("e"), visit("n", whole=50.0, role="calibration"))
        later = visit("n", whole=70.0, reference=120.0, role="calibration")
        found = replace(built, retimings=(again(visit("o", role="calibration")), again(later)))
        assert found.entries == built.entries
        assert (found.baseline_us, found.present_us, built.present_us) == (100.0, 120.0, 100.0)
        assert found.calibration == [later]
        assert [v.whole_us[0][0] for v in found.built_calibration] == [50.0]
        assert found.newest == found.retimings[-1].provenance

    def test_merged_tables_keep_what_was_timed_again_in_its_order(self):
        first, second = (
            again(replace(visit(role="calibration"), date=date)) for date in ("2026-02", "2026-01")
        )
        tables = [replace(table(visit("e")), retimings=(first,)),
                  replace(table(visit("f")), retimings=(second, first))]  # fmt: skip
        assert merge_tables(tables, "both").retimings == (second, first)

    def test_its_age(self):
        built = table(replace(visit("e"), date="2026-11-22T10:00:00+00:00"))
        assert built.age("2026-11-22T23:00:00+00:00", "here") is None  # a build names no host
        assert built.age("2026-11-23T00:10:00+00:00", "here") == "was measured on 2026-11-22"
        today = replace(visit(role="calibration"), date="2026-11-23T09:00:00+00:00")
        found = replace(built, retimings=(again(today, host="there"),))
        assert "another machine of this kind" in found.age("2026-11-23", "here")
        assert found.age("2026-11-23", "there") is None
        assert found.age("2026-11-23", "") is None  # a device does not say
        assert table().age("2026-11-23", "here") is None
