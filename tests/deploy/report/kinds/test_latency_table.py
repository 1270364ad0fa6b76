from dataclasses import replace

import pytest

from deploy.report.content import read_content
from deploy.report.kinds.latency_table import KIND
from lut.errors import UserError
from lut.table_file import save_table
from tests.deploy.report.samples import TABLE
from tests.lut.tables import IDENTITY, KEY, PROVENANCE, table, visit


def read(tmp_path, found):
    save_table(found, tmp_path / "t.jsonl")
    content = read_content(tmp_path / "t.jsonl", "t.jsonl")
    assert KIND.recognises(content)
    return KIND.read(content)


def test_a_table_that_ships():
    found = KIND.read(read_content(TABLE, "t.jsonl.xz"))
    text = KIND.draw([found])
    assert "368 of 368 entries" in text
    assert text.count('class="cell ') == 315
    assert found.source.device == "AMD EPYC"
    assert found.source.date_text == "2026-11-22 18:50"
    entry = found.table.entries[KEY]
    assert f"inverted residual 16→96→16, 3x3, plus its input, 64x128; {entry.median_us:.1f}" in text


def test_a_table_that_is_being_built(tmp_path):
    found = read(tmp_path, table(visit()))
    text = KIND.draw([found, found])
    assert "1 of 368 entries" in text
    assert text.count('class="cell ') == 2  # of both files
    empty = KIND.draw([read(tmp_path, table())])
    assert "0 of 368 entries" in empty
    assert "<figure" not in empty


def test_an_emulated_machine_is_marked(tmp_path):
    emulated = replace(PROVENANCE, emulated=True)
    assert "<strong>EMULATED" in KIND.draw([read(tmp_path, table(visit(), provenance=emulated))])


def test_a_table_of_other_networks(tmp_path):
    other = table(visit(), identity=replace(IDENTITY, resolution="64x128"))
    with pytest.raises(UserError, match="is no entry of the space at 64x128"):
        read(tmp_path, other)
