"""Sentences of records that were never measured, against arithmetic by hand."""

from dataclasses import replace

from deploy.paper import findings
from deploy.paper.claims import (
    of_accuracy,
    of_counts,
    of_machines,
    of_modules,
    of_print_order,
    of_searches,
    timed_rows,
)
from deploy.paper.views import VIEWS
from tests.deploy.paper.fakes import record, setting


def timed(view, on=None, **ms):
    """Rows of a table by their keys (`_` for `-`), each with its milliseconds."""
    rows = {row.key: row for row in VIEWS[view].rows}
    records = {
        key: record(
            rows[key].network, rows[key].sizes[0], classes=rows[key].classes, on=on,
            hmseg=[[ms[key.replace("-", "_")]]],
        )
        for key in rows if key.replace("-", "_") in ms
    }  # fmt: skip
    return timed_rows(records, rows)


ASKED = "Is TinyMRMS the fastest at its accuracy here? "


def test_the_fastest_of_all():
    assert of_accuracy(timed("table1", tiny_mrms=10.0, segnet=100.0)) == [
        f"{ASKED}Yes: none of the 2 is faster, at whatever accuracy."
    ]


def test_an_accuracy_that_is_not_known():
    """Nobody knows TinyMRMS's on Cityscapes; the print's of another network is not ours."""
    (found,) = of_accuracy(timed("table1", tiny_mrms=10.0, dfanet=8.0, tiny_hmseg=5.0, icnet=50.0))
    assert found.startswith(f"{ASKED}That cannot be said")
    assert found.endswith(
        "2 of the 4 are faster: DFANet (125 FPS, mIoU 67.1 (print)), HMSeg, half width (200 FPS)."
    )


def test_a_faster_one_that_is_as_accurate():
    """On CamVid both of ours have released weights: 68.4 and 68.6%."""
    assert of_accuracy(timed("table2", tiny_mrms=10.0, tiny_hmseg=8.0, bisenet=9.0, enet=4.0)) == [
        f"{ASKED}No: faster, at its 68.4% or more, is HMSeg, half width (125 FPS, mIoU 68.6). "
        "Faster, with an mIoU that is not known: ENet (250 FPS)."
    ]


def test_a_faster_one_that_is_less_accurate():
    assert of_accuracy(timed("table2", tiny_mrms=10.0, tiny_hmseg=12.0, bisenet=9.0)) == [
        f"{ASKED}As far as is known, yes: of the 3 whose mIoU is known, none is faster at its "
        "68.4% or more."
    ]


def test_nothing_is_said_of_what_was_not_timed():
    assert of_accuracy(timed("table1", icnet=1.0)) == of_accuracy(timed("table1", tiny_mrms=1.0))
    assert of_accuracy({}) == of_counts({}) == of_modules({}) == of_print_order({}) == []
    emulated = timed("table1", on=setting(emulated=True), tiny_mrms=1.0, icnet=2.0)
    assert emulated == {}


def test_the_prints_order():
    """FPS as printed: Fast-SCNN 106.2, BiSeNet 105.8, ICNet 30.3."""
    assert of_print_order(timed("table1", fast_scnn=9.0, bisenet=8.0, icnet=50.0)) == [
        "Of the 3 pairs of peers whose speed is printed, 2 stand here in the print's order."
    ]
    assert of_print_order(timed("table1", fast_scnn=9.0, tiny_hmseg=1.0, icnet=50.0)) == []


def test_counts_against_time():
    """87.22 GMACs and 66.7 M parameters against 0.622 and 0.622."""
    assert of_counts(timed("table3", ce2p=500.0, tiny_mrms=10.0, mrms=20.0)) == [
        "Against TinyMRMS: CE2P has 140 times its multiply-accumulates and 107 times its "
        "parameters, and takes 50 times as long. The time falls by less than the "
        "multiply-accumulates in 1 of 1."
    ]


def test_modules_each_without_and_with_the_other():
    found = of_modules(timed("table4", a=100.0, b=101.0, c=110.0, d=112.0))
    assert found[0].startswith("LGE adds 0.4% and 0.1% to the multiply-accumulates and +1.0% and ")
    assert found[0].endswith("and +1.8% to the time: nearly free.")
    assert found[1].startswith("LCF adds 15.")
    assert found[1].endswith("and +10.0% and +10.9% to the time: not free.")
    assert of_modules(timed("table4", a=1.0)) == []


def test_what_is_searched():
    """19.6, 22.1 and 21.0% of mIoU: within what seeds differ by."""
    asked = "Is it best to search operators, depth and resolution together? At 21.0%, against "
    rows = timed("table6", hand=2.0, d=2.1, **{"o+d+r": 2.2})
    assert of_searches(rows) == [
        f"{asked}22.1% of the best of the others (depth) and 19.6% by hand, that is not shown here."
    ]
    ours = replace(rows["o+d+r"], row=replace(rows["o+d+r"].row, miou="28.0"))
    (better,) = of_searches({"hand": rows["hand"], "o+d+r": ours})
    assert better.endswith(
        "At 28.0%, against 19.6% of the best of the others (none: MRMS at half width), yes here."
    )
    assert of_searches({"hand": rows["hand"]}) == of_searches({"o+d+r": ours}) == []


def test_machines():
    here, there = timed("table5", mrms=4.0, tiny_mrms=2.0), timed("table5", mrms=1.0, tiny_mrms=2.0)
    assert of_machines({"A": here}) == [
        "On A, the fastest is TinyMRMS (500 FPS).", "No other machine is in the records.",
    ]  # fmt: skip
    assert of_machines({"A": here, "B": there, "C": {}}) == [
        "On A, the fastest is TinyMRMS (500 FPS).",
        "On B, the fastest is MRMS (1000 FPS), 2.00 times as fast as TinyMRMS.",
        "0 of 1 pairs stand on B in the order of A.",
    ]
    assert of_machines({}) == []


def test_findings():
    rows = timed("table1", segnet=10.0, erfnet=4.0)
    assert findings.of_speeds(rows.values()) == [
        "Fastest here, of 2: ERFNet (250 FPS), SegNet (100 FPS)."
    ]
    assert findings.of_speeds([]) == findings.of_spread([]) == findings.of_sizes({}) == []
    assert findings.of_stages({}) == []


def test_who_is_the_fastest_at_each_size():
    """At 1 and 2 megapixels one each, at 3 both the first; at 4 there is only one."""
    points = {
        "A": [(1.0, 5.0), (2.0, 9.0), (3.0, 11.0), (4.0, 20.0)], "B": [(1.0, 4.0), (2.0, 12.0)],
        "C": [(3.0, 12.0)],
    }  # fmt: skip
    assert findings.of_sizes(points) == [
        "Fastest at each size: A at 2 of 3, B at 1 of 3.",
        "A frame takes longer: A 4.0 times for 4.0 times the pixels; B 3.0 times for 2.0 times the "
        "pixels.",
    ]
