import pytest

from deploy.noise import UNIT, Deviation
from deploy.precision import BF16, FP16, FP32, PRECISIONS, parse_precision
from lut.errors import UserError


def test_texts():
    assert {parse_precision(str(p)) for p in (BF16, FP16, FP32)} == {BF16, FP16, FP32}
    assert list(PRECISIONS) == ["fp32", "fp16", "bf16"]


@pytest.mark.parametrize("text", ["", "half", "FP16", "fp8", "auto"])
def test_bad_texts(text):
    with pytest.raises(UserError, match=f"unknown precision {text!r}: choose fp32, fp16, bf16"):
        parse_precision(text)


def test_only_the_default_needs_no_words():
    """Titles, files and errors name the others."""
    assert (FP32.note, FP32.suffix, FP32.advice) == ("", "", "")
    for precision in (FP16, BF16):
        assert precision.name in precision.note
        assert precision.name in precision.suffix
        assert "fp32" in precision.advice


def test_units_are_what_rounding_changes_a_number_by():
    """Of 11 and of 8 bits: half of the last one's place."""
    assert FP16.unit / FP32.unit == 2**13
    assert (FP32.unit, BF16.unit) == (UNIT, 2**-8)


def test_bf16_is_allowed_roundings_in_a_row():
    """Some 65 of u / 2 each, independent, are 4 u: the mean of all scores may be four times that,
    the largest of a million six times and some, and two scores are a tie within twice that."""
    average = 65**0.5 * BF16.unit / 2
    assert average == pytest.approx(4 * BF16.unit, rel=0.01)
    assert BF16.rms_tolerance == 4 * 4 * BF16.unit
    assert BF16.relative_tolerance == 64 * BF16.unit > 6 * 4 * BF16.unit
    assert BF16.tie == 2 * 4 * BF16.unit
    for size in (1e-5, 1e3):
        allowed = BF16.allowed(Deviation(1e-9, 1e-9), Deviation(size, 3 * size))
        assert allowed == Deviation(2**-4 * size, 2**-2 * 3 * size)
        assert BF16.tied(allowed, Deviation(size, 3 * size)) == 2**-5 * size


def test_what_has_no_rule_for_ties_ties_within_its_tolerance():
    for precision in (FP32, FP16):
        size = Deviation(1, 2)
        allowed = precision.allowed(Deviation(1e-6, 3e-6), size)
        assert precision.tied(allowed, size) == 2 * allowed.largest
        assert precision.most_unexplained == 0
