"""Budgets as text, and the cost that each is a budget of."""

import pytest

from hmseg.search.budget import open_cost, parse_budget, show_cost
from lut.errors import UserError
from tests.lut.tables import table, visit


def test_budgets_are_read_in_their_units():
    assert (parse_budget("12ms").limit, parse_budget("12ms").unit) == (12e3, "us")
    assert (parse_budget("3.0GMACs").limit, parse_budget("3.0GMACs").unit) == (3e9, "MACs")
    assert (parse_budget("0.7M").limit, parse_budget(" 0.7 M ").unit) == (7e5, "parameters")
    assert [str(parse_budget(text)) for text in ("1.7310ms", "3.0GMACs", "0.7M")] == [
        "1.731ms", "3GMACs", "0.7M",
    ]  # fmt: skip
    assert show_cost(1631.0, "us") == "1.631ms"


@pytest.mark.parametrize("text", ["", "12", "ms", "-1ms", "0ms", "1e3ms", "nanms", "12s", "3 GB"])
def test_other_texts_are_refused(text: str):
    with pytest.raises(UserError, match="write a latency, MACs or parameters: 12ms"):
        parse_budget(text)


def test_a_latency_needs_its_table():
    with pytest.raises(UserError, match=r"name its table with --cost TABLE\.jsonl"):
        open_cost(parse_budget("1ms"), None, (256, 512), 0.5, 19)


@pytest.mark.parametrize(
    ("size", "width", "classes", "message"),
    [
        ((256, 512), 0.5, 19, r"has no entry .*lut build .*--resolution 256x512 --width 0\.5"),
        ((512, 512), 0.5, 19, r"resolution '256x512' and '512x512'.*lut build .*-r?.*512x512"),
        ((256, 512), 1.0, 19, r"width 0\.5 and 1\.0.*lut build .*--width 1 "),
    ],
)
def test_a_table_of_other_networks_names_the_command(
    size: tuple[int, int], width: float, classes: int, message: str
):
    with pytest.raises(UserError, match=message):
        open_cost(parse_budget("1ms"), table(visit()), size, width, classes)


def test_counts_need_no_table():
    assert open_cost(parse_budget("3GMACs"), None, (256, 512), 0.5, 19).cost.unit == "MACs"
    assert open_cost(parse_budget("0.7M"), None, (256, 512), 0.5, 19).cost.unit == "parameters"
