import pytest

from hmseg.mrms_config import MRMSConfig
from lut.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0.75}, "width"),
        ({"num_classes": 1}, "num_classes"),
        ({"num_classes": 256}, "255"),
    ],
)
def test_impossible_configurations(arguments, message):
    with pytest.raises(UserError, match=message):
        MRMSConfig(**arguments)
