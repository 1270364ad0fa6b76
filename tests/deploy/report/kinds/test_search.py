import json

import pytest

from deploy.report.kinds.search import CANDIDATES, KIND, LAYERS
from hmseg.genotype import MRMS_GENOTYPE
from hmseg.network_file import write_network
from lut.errors import UserError
from tests.deploy.report.kinds.reading import result, section

ROWS = [[1.0] + [0.0] * (len(CANDIDATES) - 1)] * (len(LAYERS) + 2)
WARM = {"step": 20, "loss": 3.5, "most_probable": {"estimate": 900.0, "upper": 950.0},
        "probabilities": ROWS, "time": "2026-11-23T03:48:59+0000"}  # fmt: skip
MOVING = WARM | {"step": 40, "architecture": {"loss": 2.25, "expected": 975.0}}


def found(tmp_path, **search):
    write_network(tmp_path / "genotype.json", MRMS_GENOTYPE, 0.5, 11, search=search)
    return json.loads((tmp_path / "genotype.json").read_text())


def test_a_log():
    text = section(KIND, WARM, MOVING, name="found/log.jsonl")
    for words in (
        "<h3>found</h3>", "expected, step 40: 975", "most probable network, upper bound, step 20",
        "architecture&#x27;s half, step 40: 2.25", "at step 40, in %", "s1.0, e1k3: 100.00%",
        "medium ratio: 0.4 100.0%",
    ):  # fmt: skip
        assert words in text, words
    assert text.count('class="cell ') == len(LAYERS)


def test_before_the_architecture_moves():
    assert "<figure" in section(KIND, WARM)


def test_the_network_found(tmp_path):
    record = found(
        tmp_path, estimate={"value": 1500.0, "upper": 1600.0, "unit": "us"},
        measured={"measured_us": 1450.0}, versions={"hmseg": "0.1.0"}, date="2026-11-23",
        computed_on=[{"device": "a GPU", "torch": "2.13"}],
    )  # fmt: skip
    text = section(KIND, record, name="found/genotype.json")
    for words in (
        "1.500", "1.600", "1.450", str(MRMS_GENOTYPE), "a GPU", "hmseg 0.1.0, torch 2.13",
    ):  # fmt: skip
        assert words in text, words


def test_a_network_that_no_search_found_is_no_result(tmp_path):
    from deploy.report.content import Content

    assert not KIND.recognises(Content("a.json", (found(tmp_path),)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": [[0.5]]}, "line 2: the probabilities are not of this search space"),
        ({"probabilities": [["x"] * 10] * 24}, "'p' is 'x', not a number"),
        ({"most_probable": {"upper": 0}}, "line 2: most_probable: 'upper' is 0, not above 0"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError, match=message):
        result(KIND, WARM, WARM | change)
