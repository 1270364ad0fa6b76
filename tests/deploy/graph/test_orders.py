"""Orders of elements: grids of pixels, heads, and what is made of them (the rest:
tests/deploy/graph/test_channels_first.py, where tensors are followed through reshapes)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.graph.orders import Grid, Heads, inverse, order_of_map, reshaped, tidy, turned

COUNTS = st.integers(1, 4)


def places(order, shape):
    """Where each element of a tensor lies in the map, by its order."""
    pixels = shape[1] * shape[2]
    total = np.zeros((), np.int64)
    for axis in order:
        line = np.zeros((1,), np.int64)
        for atom in axis:
            step = atom.step * (pixels if atom.kind == "C" else 1)
            line = (line[:, None] + np.arange(atom.size) * step).ravel()
        total = total[..., None] + line
    return total


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    grid=st.tuples(COUNTS, COUNTS), each=st.tuples(COUNTS, COUNTS), heads=COUNTS, width=COUNTS,
    apart=st.booleans(),
)  # fmt: skip
def test_groups_and_heads_are_found_again(grid, each, heads, width, apart):
    height, columns = grid[0] * each[0], grid[1] * each[1]
    shape = heads * width, height, columns
    split = np.arange(heads * width * height * columns).reshape(heads, width, height, columns)
    if apart:
        split = split.reshape(heads, width, each[0], grid[0], each[1], grid[1])
        split = split.transpose(3, 5, 0, 2, 4, 1)
    else:
        split = split.reshape(heads, width, grid[0], each[0], grid[1], each[1])
        split = split.transpose(2, 4, 0, 3, 5, 1)
    split = split.reshape(grid[0] * grid[1], heads, each[0] * each[1], width)
    order = Heads(heads, width, Grid(grid, apart)).order(height, columns)
    np.testing.assert_array_equal(places(order, shape), split)
    found = Heads.found(order, shape, 2, 3)
    assert found is not None  # by another name, where two grids are the same
    assert found.order(height, columns) == order
    # And the map of such a tensor.
    back = inverse(order, shape)
    sizes = split.shape
    steps = {str(i): int(np.prod(sizes[i + 1 :])) for i in range(4)}
    total = np.zeros((), np.int64)
    for axis in back:
        line = np.zeros((1,), np.int64)
        for atom in axis:
            line = (line[:, None] + np.arange(atom.size) * atom.step * steps[atom.kind]).ravel()
        total = total[..., None] + line
    np.testing.assert_array_equal(split.ravel()[total.ravel()], np.arange(split.size))


def test_what_are_no_heads():
    order = order_of_map(12, 4, 6)
    tokens = reshaped(order, (1, 3, 4, 24))
    assert Heads.found(tokens, (12, 4, 6), 3, 2) == Heads(3, 4, Grid())
    assert Heads.found(tokens, (12, 4, 6), 2, 3) is None  # channels down
    inside_out = turned(reshaped(order, (1, 4, 3, 24)), (0, 2, 1, 3))
    assert Heads.found(inside_out, (12, 4, 6), 3, 2) is None  # a head's channels lie apart
    halves = tidy([(), *tokens[1:3], tokens[3][:1]])
    assert Heads.found(halves, (12, 8, 6), 3, 2) == Heads(3, 4, Grid())


@pytest.mark.parametrize("apart", [False, True])
def test_a_grid_has_axes_of_groups_and_pixels(apart):
    groups, pixels = Grid((2, 3), apart).axes(4, 6)
    assert Grid.found(groups, pixels, 4, 6) == Grid((2, 3), apart)
    assert Grid.found(pixels, groups, 4, 6) != Grid((2, 3), apart)
