import numpy as np
import pytest

from lut.errors import UserError
from tests.deploy.reading.files import Network, normal_form


def with_weights(op: str, weights: np.ndarray, **attributes: object) -> Network:
    network = Network(shape=(1, 3, 8, 12))
    network.out = network(op, "x", network.const(weights), **attributes)
    return network


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")]
)
def test_a_weight_that_is_no_number_is_called_so(value, kind):
    weights = np.ones((4, 3, 1, 1), np.float32)
    weights[2, 1] = value
    network = with_weights("Conv", weights)
    with pytest.raises(
        UserError, match=f"Conv node 'Conv_0': its weight 'c0' has 1 values .*{kind}"
    ):
        normal_form(network.model(network.out))


def test_an_infinite_constant_may_be_meant():
    mask = np.array([[0, -np.inf] * 6], np.float32)
    network = with_weights("Add", mask)
    normal_form(network.model(network.out))
    network = with_weights("Add", mask * np.nan)
    with pytest.raises(UserError, match="values that are NaN"):
        normal_form(network.model(network.out))
