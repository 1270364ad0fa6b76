"""Which precision is taken, by made-up times, and how that is said."""

import json

import pytest

from deploy.choice import Kept, choose

MS = 1_000_000


def samples(**rounds_ms):
    return {name: [[round(MS * ms)] for ms in blocks] for name, blocks in rounds_ms.items()}


def test_what_is_faster_in_every_round():
    found = choose(samples(fp32=[4, 4, 4], bf16=[2, 3.9, 2]), {})
    assert found.precision == "bf16"
    assert found.why.startswith("2 ms, fp32 4 ms (2.00 times, [1.03 .. 2.00] over 3 rounds)")
    assert found.ms == {"fp32": 4, "bf16": 2}
    assert found.ratios["bf16"].low == pytest.approx(4 / 3.9)


def test_the_fastest_of_these():
    found = choose(samples(fp32=[4, 4], bf16=[2, 2], int8=[1, 1]), {})
    assert found.precision == "int8"
    found = choose(samples(fp32=[4, 4], bf16=[2, 2], int8=[1, 4.1]), {})
    assert found.precision == "bf16"


def test_one_slow_round_leaves_fp32():
    found = choose(samples(fp32=[4, 4, 4], bf16=[2, 4.1, 2]), {})
    assert str(found) == "precision fp32: bf16 is not faster in every round, 2 ms beside 4 ms"


def test_without_times_the_reason_stands():
    found = choose({}, {"bf16": "no instructions for it"})
    assert str(found) == "precision fp32: bf16: no instructions for it"
    assert json.loads(json.dumps(found.to_json()))["refused"] == {"bf16": "no instructions for it"}


def test_the_table():
    kept = {"fp32": Kept(1, 1, 0.6858), "bf16": Kept(0.994, 0.9995, 0.6856)}
    times = samples(fp32=[4, 4], bf16=[2, 3.2])
    found = choose(times, {"int8": "needs frames"}, kept, "9 frames of F")
    assert found.table()[0].startswith("precision")
    fp32, bf16, int8, below = (
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in found.table()[1:]
    )
    assert fp32 == ["fp32", "4", "-", "100.00%", "100.00%", "68.58", "0.00"]
    assert bf16 == [
        "bf16",
        "2.6",
        "1.62 [1.25..2.00]",
        "99.40%",
        "99.95%",
        "68.56",
        "0.02",
        "taken",
    ]
    assert int8 == ["int8", *"------", "needs frames"]
    assert below == ["labels beside fp32's, on 9 frames of F"]
    columns = [line.index("needs") for line in found.table() if "needs" in line]
    assert [line.index("taken") for line in found.table() if "taken" in line] == columns
    assert json.loads(json.dumps(found.to_json()))["kept"]["bf16"]["miou"] == 0.6856


@pytest.mark.parametrize(
    ("int8", "verdict"), [([2.5, 2.5], "slower than bf16"), ([1, 5], "not faster in every round")]
)
def test_what_the_table_says_of_those_that_are_not_taken(int8, verdict):
    found = choose(samples(fp32=[4, 4], bf16=[2, 2], int8=int8), {})
    assert found.precision == "bf16"
    assert found.table()[-1].endswith(verdict)
