import re

import pytest

from deploy.report.kinds.paper import KIND
from lut.errors import UserError
from tests.deploy.paper.fakes import DATE, record, setting
from tests.deploy.report.kinds.reading import result, section


def line(network="enet", **given):
    return record(network, **given).to_json()


def test_ratios_are_those_of_the_rounds():
    text = section(KIND, line(hmseg=[[2, 2], [4, 4]], onnxruntime=[[4, 4], [6, 6]]))
    assert re.findall(r'data-tip="([^"]*)"', text) == [": onnxruntime / hmseg 1.75 [1.50..2.00]"]
    assert "Chip 1" in text


def test_the_last_line_of_a_network_counts():
    first, last = (line(hmseg=[[ms]], onnxruntime=[[6]]) for ms in (3, 2))
    (compared,) = result(KIND, first, last).compared
    assert compared.ratios["onnxruntime"].median == 3
    other = line(hmseg=[[1]], on=setting(cpu="Chip 2"))
    assert len(result(KIND, first, other).compared) == 2


def test_where_it_is_from():
    on = [setting(versions={"torch": "2", "onnxruntime": each}) for each in ("1.32", "1.33")]
    source = result(KIND, *(line(hmseg=[[1]], on=each) for each in on)).source
    assert source.versions == {"torch": "2", "onnxruntime": "1.32 and 1.33"}
    assert (source.date, source.emulated) == (DATE, False)
    assert "EMULATED" in section(KIND, line(hmseg=[[1]], on=setting(emulated=True)))


def test_what_did_not_run_says_why():
    text = section(KIND, line(hmseg=[[2]]), line("segnet", failed="out of memory"))
    assert 'title="out of memory" class="bad">failed' in text


def test_what_is_wrong_is_named():
    with pytest.raises(UserError, match="there is no side 'hmseg'"):
        result(KIND, line(onnxruntime=[[2]]))
    with pytest.raises(UserError, match="has other rounds"):
        result(KIND, line(hmseg=[[2]], onnxruntime=[[2], [3]]))
