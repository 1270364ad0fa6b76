import pytest

from lut.errors import UserError
from lut.key import OpKey, parse_key
from tests.lut.tables import KEY, OTHER


@pytest.mark.parametrize("key", [KEY, OTHER])
def test_text_reads_back(key):
    assert parse_key(str(key)) == key


def test_every_field_is_in_the_text():
    assert str(KEY) == "inverted_residual 16-96-16 k3 s1 d1 64x128"
    assert str(OTHER) == "resize 16-0-16 k0 s1 d1 32x64 16x32"


def test_output_size_is_rounded_up():
    key = OpKey("inverted_residual", 8, 48, 16, 3, 2, 1, 25, 50)
    assert (key.out_height, key.out_width) == (13, 25)


@pytest.mark.parametrize(
    "text", ["", "conv 1-2-3 k3 s1 d1 4x4", str(KEY) + " ", str(KEY)[:-1] + "x", None, 3]
)
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="no key of a latency table"):
        parse_key(text)
