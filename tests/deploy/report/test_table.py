import re

from deploy.measure.statistics import Ratio
from deploy.report.table import number, ratio_cell, share, table


def test_cells():
    assert (number(1234.5678, 1).text, number(1234.5678, 1).value) == ("1,234.6", 1234.5678)
    assert share(0.1234).text == "12.3%"
    cell = ratio_cell(Ratio(2.5, 2.0, 3.0, 7))
    assert (cell.text, cell.value) == ("2.50 [2.00..3.00]", 2.5)
    assert cell.tip == "median and range over 7 rounds"


def test_a_column_of_figures_is_known_by_one():
    text = table(["a", "b", "c"], [["x", "", "y"], ["<", number(2, 0), ""]], "of it")
    assert "<caption>of it</caption>" in text
    assert re.findall(r'<th scope="col"( class="number")?>', text) == ["", ' class="number"', ""]
    assert re.findall(r"<td[^>]*>.*?</td>", text) == [
        "<td>x</td>", "<td></td>", "<td>y</td>",
        "<td>&lt;</td>", '<td class="number" data-value="2.0">2</td>', "<td></td>",
    ]  # fmt: skip
    assert text.count('<button type="button">') == 3
