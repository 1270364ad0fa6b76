"""What the pictures are made of."""

import re

import pytest

from deploy.report.charts.heat import SHADES, heat_chart
from deploy.report.charts.rows import Mark, Row, rows_chart
from deploy.report.charts.xy import MOST_POINTS, Guide, Point, Series, thinned, xy_chart


def tips(text):
    return re.findall(r'data-tip="([^"]*)"', text)


def numbers(text, pattern):
    return [float(value) for value in re.findall(pattern, text)]


def test_points_and_lines():
    series = [Series("a", [Point(n, n * n, f"a{n}") for n in (1, 2, 3)]),
              Series("b", [Point(2, 1, "b2")], joined=False)]  # fmt: skip
    text = xy_chart("caption", series, "across", "up", guides=[Guide((1, 1), (3, 9), "guide")])
    assert tips(text) == ["a1", "a2", "a3", "b2"]
    assert text.count("<polyline") == 1
    assert re.findall(r"<li>.*?</svg>(\w)</li>", text) == ["a", "b"]
    for words in ("caption", "across", "up", ">guide<"):
        assert words in text


def test_higher_is_up_and_more_is_right():
    text = xy_chart("c", [Series("a", [Point(1, 1, "low"), Point(9, 5, "high")])], "x", "y")
    places = dict(
        (tip, (float(x), float(y)))
        for x, y, tip in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"[^>]*data-tip="(\w+)"', text)
    )
    assert places["high"][0] > places["low"][0]
    assert places["high"][1] < places["low"][1]


def test_long_lines_are_thinned_and_keep_their_ends():
    points = [Point(n, n, str(n)) for n in range(10 * MOST_POINTS + 7)]
    found = thinned(points)
    assert len(found) <= MOST_POINTS + 1
    assert (found[0], found[-1]) == (points[0], points[-1])
    assert thinned(points[:5]) == points[:5]


def test_rows():
    rows = [Row("one", [Mark(0, 2.0, "two", 1.0, 3.0), Mark(1, 4.0, "four")], tick=3.0),
            Row("a name that is longer than any picture has room for, by far, even here",
                [Mark(0, 5.0, "five")])]  # fmt: skip
    dots = rows_chart("caption", ["x", "y"], rows, "label", line=1.0)
    assert tips(dots) == ["two", "four", "five"]
    assert dots.count('class="range') == 1
    assert dots.count('class="goal"') == dots.count('class="guide"') == 1
    assert "…<title>a name that is longer" in dots
    bars = rows_chart("caption", [], rows, "label", bars=True)
    widths = numbers(bars, r'<rect [^>]*width="([\d.]+)"')
    assert [width / widths[0] for width in widths] == pytest.approx([1, 2, 2.5], rel=0.01)


def test_heat():
    text = heat_chart("caption", ["r"], ["a", "b", "c"], [[1.0, None, 1000.0]],
                      [["low", "", "high"]], log_scale=True)  # fmt: skip
    assert tips(text) == ["low", "high"]
    assert re.findall(r'class="cell q(\d)"', text) == ["0", str(SHADES - 1)]
    same = heat_chart("caption", ["r"], ["a"], [[0.0]], [["zero"]], log_scale=True)
    assert 'class="cell q0"' in same
    assert "<figure" in heat_chart("caption", ["r"], ["a"], [[None]], [[""]], log_scale=True)
