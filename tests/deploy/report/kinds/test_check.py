import pytest

from deploy.report.kinds.check import KIND
from deploy.tables.check import CheckResult, Row
from lut.errors import UserError
from tests.deploy.report.kinds.reading import result, section

RESULT = CheckResult((Row("a", 1100.0, 1200.0, (1000.0,)), Row("b", 2000.0, 2100.0, (2500.0,))))
WRITTEN = {"table": "t.jsonl", **RESULT.to_json()}


def test_estimates_beside_measurements():
    text = section(KIND, WRITTEN)
    assert "2 networks: mean error 15.00%, worst 20.00%" in text
    assert "tau 1.000; failed." in text
    assert "estimate 1.100 ms, measured 1.000 ms, +10.0%; a" in text
    assert text.count("<circle") == 2
    assert "of t.jsonl" in text or ">t.jsonl<" in text


def test_without_a_network():
    assert "<figure" not in section(KIND, WRITTEN | {"rows": []})


def test_what_is_wrong_is_named():
    with pytest.raises(UserError, match="rows 1: 'network' is missing"):
        result(KIND, WRITTEN | {"rows": [{}]})
