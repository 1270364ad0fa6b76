"""Budgets as text, and the cost that each is a budget of."""

from dataclasses import replace

import pytest

from hmseg.mend import NameTable
from hmseg.search.budget import open_cost, parse_budget, show_cost
from lut.errors import UserError
from lut.table import Measure
from tests.lut.tables import IDENTITY, table, visit


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
    with pytest.raises(UserError, match="budget 1ms: it is a latency, which needs a") as caught:
        open_cost(parse_budget("1ms"), None, (256, 512), 0.5, 19)
    assert caught.value.mend == NameTable()


@pytest.mark.parametrize(
    ("size", "width", "classes", "message"),
    [
        ((256, 512), 0.5, 19, "t.jsonl has no entry "),
        ((512, 512), 0.5, 19, "resolution '256x512' and '512x512'"),
        ((256, 512), 1.0, 19, r"width 0\.5 and 1\.0"),
    ],
)
def test_a_table_of_other_networks_says_what_to_measure(
    size: tuple[int, int], width: float, classes: int, message: str
):
    with pytest.raises(UserError, match=message) as caught:
        open_cost(parse_budget("1ms"), table(visit()), size, width, classes)
    mend = caught.value.mend
    assert isinstance(mend, Measure)
    wanted = replace(IDENTITY, resolution=f"{size[0]}x{size[1]}", width=width)
    assert mend.identity == wanted


def test_counts_need_no_table():
    assert open_cost(parse_budget("3GMACs"), None, (256, 512), 0.5, 19).cost.unit == "MACs"
    assert open_cost(parse_budget("0.7M"), None, (256, 512), 0.5, 19).cost.unit == "parameters"
