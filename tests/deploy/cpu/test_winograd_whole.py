import numpy as np
import pytest

from deploy import ir
from deploy.cpu import winograd_whole
from deploy.cpu.winograd_whole import WholeTransform

KIND = WholeTransform()


@pytest.fixture(autouse=True)
def numbers(monkeypatch):
    """The transforms' words on Python's integers instead of expressions."""
    monkeypatch.setattr(ir, "bind", lambda value: value)
    monkeypatch.setattr(
        winograd_whole, "whole_sum", lambda terms, kind, lanes: sum(f * v for f, v in terms)
    )


def matrix(function, size):
    """Of a linear function of `size` integers."""
    rows = [function([int(i == j) for j in range(size)], 1) for i in range(size)]
    return np.array(rows, object).T


def test_products_give_thirty_times_the_convolution():
    window = KIND.window().astype(int)
    for i in range(6):
        for k in range(3):
            d, g = [int(i == j) for j in range(6)], np.eye(3, dtype=int)[k]
            products = [int(a) * int(b) for a, b in zip(KIND.inputs(d, 1), window @ g, strict=True)]
            expected = [30 * sum(d[n + t] * int(g[t]) for t in range(3)) for n in range(4)]
            assert KIND.result(products, 1) == expected


def test_factors_fit_sixteen_bits():
    """The largest that both axes make of bytes, and of weights."""
    inputs, window = matrix(KIND.inputs, 6), KIND.window()
    up, down = np.maximum(inputs, 0).sum(1), np.maximum(-inputs, 0).sum(1)
    largest = max(
        max(a * c + b * d, a * d + b * c)
        for a, b in zip(up, down, strict=True)
        for c, d in zip(up, down, strict=True)
    )
    assert largest == 98
    assert largest * 255 < 2**15
    assert np.abs(window).sum(1).max() ** 2 * 127 < 2**15


def test_a_result_is_found_modulo_a_word():
    for value in (0, 1, -1, winograd_whole.LARGEST - 1, -winograd_whole.LARGEST):
        found = (900 * value % 2**32) * winograd_whole._ODD_INVERSE % 2**32
        assert (found - 2**32 * (found >> 31)) >> 2 == value
