import matplotlib as mpl
import pytest

from deploy.tables.heatmap import _ink, draw_heatmap, heatmap_columns, operator_in_words
from hmseg.operators import OPERATORS, Space
from lut.errors import UserError
from lut.ops import StemBlock
from tests.lut.tables import table, visit


def test_every_operator_entry_has_its_place_once():
    space = Space((256, 512), 0.5)
    columns = heatmap_columns(space)
    assert len(columns) == 35
    assert all(len(keys) == len(OPERATORS) for keys in columns.values())
    cells = [key for keys in columns.values() for key in keys]
    assert len(cells) == len(set(cells)) == 315
    assert set(cells) == space.operator_keys()
    for keys in columns.values():
        for op, key in zip(OPERATORS, keys, strict=True):
            assert key.kernel == op.kernel
            assert isinstance(key, StemBlock) or key.hidden == key.cin * op.expansion


def test_what_is_not_measured_stays_white(tmp_path):
    path = tmp_path / "heat.png"
    draw_heatmap(table(visit()), Space((256, 512), 0.5), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_table_without_entries(tmp_path):
    with pytest.raises(UserError, match=r"t.jsonl has no entries yet: there is nothing to draw"):
        draw_heatmap(table(), Space((256, 512), 0.5), tmp_path / "heat.png")
    assert not list(tmp_path.iterdir())


def test_a_figure_can_be_read_on_every_colour():
    """4.5 is what WCAG 2 asks of small text."""

    def luminance(colour):
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
                            for c in colour)  # fmt: skip
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    inks = {"w": 1.0, "k": 0.0}
    for colour in mpl.colormaps["viridis"].colors:
        low, high = sorted([luminance(colour), inks[_ink(*colour)]])
        assert (high + 0.05) / (low + 0.05) > 4.5


def test_rows_are_in_words():
    assert operator_in_words(OPERATORS[0]) == "expansion 1, 3x3"
    assert len({operator_in_words(op) for op in OPERATORS}) == 9
