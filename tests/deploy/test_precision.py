import pytest

from deploy.precision import FP16, FP32, PRECISIONS, parse_precision
from lut.errors import UserError


def test_texts():
    assert {parse_precision(str(precision)) for precision in (FP16, FP32)} == {FP16, FP32}
    assert list(PRECISIONS) == ["fp32", "fp16"]


@pytest.mark.parametrize("text", ["", "half", "FP16", "fp8"])
def test_bad_texts(text):
    with pytest.raises(UserError, match=f"unknown precision {text!r}: choose fp32 or fp16"):
        parse_precision(text)


def test_only_the_default_needs_no_words():
    """Titles, files and errors name the other."""
    assert (FP32.note, FP32.suffix, FP32.advice) == ("", "", "")
    assert all(("fp16" in FP16.note, "fp16" in FP16.suffix, "fp32" in FP16.advice))
