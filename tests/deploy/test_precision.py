import pytest

from deploy.noise import UNIT, Deviation
from deploy.precision import (
    BF16,
    FP16,
    FP32,
    INT8,
    PRECISIONS,
    check_precision_or_auto,
    parse_precision,
)
from lut.errors import UserError


def test_texts():
    assert {parse_precision(str(p)) for p in (BF16, FP16, FP32)} == {BF16, FP16, FP32}
    assert list(PRECISIONS) == ["fp32", "fp16", "bf16", "int8"]


@pytest.mark.parametrize("text", ["", "half", "FP16", "fp8", "auto"])
def test_bad_texts(text):
    with pytest.raises(UserError, match=f"unknown precision {text!r}: choose fp32, fp16, bf16"):
        parse_precision(text)


def test_auto_is_named_where_it_may_be_asked_for():
    for text in ("auto", "int8", "fp32"):
        check_precision_or_auto(text)
    with pytest.raises(UserError, match="'fp8': choose fp32, fp16, bf16, int8, auto"):
        check_precision_or_auto("fp8")


def test_only_the_default_needs_no_words():
    """Titles, files and errors name the others."""
    assert (FP32.note, FP32.suffix, FP32.advice) == ("", "", "")
    for precision in (FP16, BF16, INT8):
        assert precision.name in precision.note
        assert precision.name in precision.suffix
        assert "fp32" in precision.advice


def test_units_are_what_rounding_changes_a_number_by():
    """Of 11 and of 8 bits: half of the last one's place."""
    assert FP16.unit / FP32.unit == 2**13
    assert (FP32.unit, BF16.unit) == (UNIT, 2**-8)


def test_bf16_is_judged_by_the_noise_of_its_own_rounding():
    noise = Deviation(rms=0.01, largest=0.05)
    assert BF16.allowed(noise, 7.0) == Deviation(0.02, 3 * 0.05)
    # Two scores, each off by the root mean square, change places within twice that.
    assert BF16.tied(noise, 7.0) == 2 * noise.rms
    assert BF16.most_unexplained == 0.01


def test_what_has_no_rule_for_ties_ties_within_its_tolerance():
    noise = Deviation(1e-6, 3e-6)
    for precision in (FP32, FP16):
        assert precision.tied(noise, 2.0) == 2 * precision.allowed(noise, 2.0).largest
        assert precision.most_unexplained == 0
    assert BF16.tied(None, 2.0) == 2 * BF16.allowed(None, 2.0).largest
