import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import Tile
from deploy.cpu.kernels import attention, emit
from deploy.cpu.kernels.attention import AttentionSchedule
from lut.ops import Attention

from .helpers import ISAS, normal, planar, run

SIDES = st.integers(1, 9)
OPERATIONS = st.builds(
    Attention, st.integers(1, 3), st.integers(1, 33), st.integers(1, 40), SIDES, SIDES, SIDES, SIDES
)


def reference(op, q, k, v, scale, bias=None):
    """(1, heads * value, height, width), in float64."""
    rows, columns = op.groups

    def cut(x):
        """(groups in rows, in columns, heads, channels, rows of each, columns)."""
        channels, height, width = x.shape[1] // op.heads, *x.shape[2:]
        high, wide = height // rows, width // columns
        x = torch.from_numpy(x).double()
        if op.apart:
            x = x.reshape(op.heads, channels, high, rows, wide, columns)
            return x.permute(3, 5, 0, 1, 2, 4)
        x = x.reshape(op.heads, channels, rows, high, columns, wide)
        return x.permute(2, 4, 0, 1, 3, 5)

    scores = cut(q).flatten(4).mT @ cut(k).flatten(4) * scale
    if bias is not None:
        grid = (rows, columns) if op.biases > op.heads else (1, 1)
        scores = scores + torch.from_numpy(bias).double().reshape(
            *grid, op.heads, *scores.shape[3:]
        )
    mixed = cut(v).flatten(4) @ torch.softmax(scores, dim=-1).mT
    mixed = mixed.unflatten(4, (op.height // rows, op.width // columns))
    back = (2, 3, 4, 0, 5, 1) if op.apart else (2, 3, 0, 4, 1, 5)
    return mixed.permute(back).reshape(1, *op.output)


def check(isa, op, schedule=None, scale=0.3, size=1.0):
    q, k = (
        normal(i, 1, op.heads * op.key, *plane) * np.float32(size)
        for i, plane in enumerate(((op.height, op.width), (op.key_height, op.key_width)))
    )
    v = normal(2, 1, op.heads * op.value, op.key_height, op.key_width)
    steps = {"relu6": torch.nn.functional.relu6}
    bias = None
    if op.biases:
        count = op.groups[0] * op.groups[1]
        pairs = (op.height * op.width // count, op.key_height * op.key_width // count)
        bias = normal(4, op.biases, *pairs)
    expected = reference(op, q, k, v, scale, bias)
    extra = []
    for step in op.then:
        if step == "add":
            extra.append(normal(3, *expected.shape))
            expected = expected + torch.from_numpy(extra[-1])
        else:
            expected = steps[step](expected)
    maps = [layout.pack_activation(isa, a) for a in (q, k, v, *extra)]
    y = run(
        emit(op, isa, schedule=schedule), isa, maps + attention.pack(op, isa, scale, [], bias),
        layout.activation_shape(isa, *op.output),
    )  # fmt: skip
    np.testing.assert_allclose(planar(isa, y, op.output[0]), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(op=OPERATIONS)
@example(op=Attention(2, 32, 32, 9, 17, 4, 8))
@example(op=Attention(1, 1, 1, 1, 1, 1, 1))
@example(op=Attention(3, 31, 31, 3, 5, 7, 7))
def test_matches_torch(isa, op):
    check(isa, op)


@st.composite
def grouped(draw):
    """Of a grid, with the same groups of queries and of keys, with a bias or without."""
    groups = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    planes = [count * draw(st.integers(1, 4)) for count in (*groups, *groups)]
    heads = draw(st.integers(1, 3))
    biases = draw(st.sampled_from([0, heads, heads * groups[0] * groups[1]]))
    sizes = draw(st.integers(1, 33)), draw(st.integers(1, 40))
    return Attention(heads, *sizes, *planes, (), groups, draw(st.booleans()), biases)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(op=grouped())
@example(op=Attention(2, 8, 16, 8, 12, 8, 12, (), (2, 2), apart=True))
@example(op=Attention(2, 8, 32, 8, 12, 8, 12, (), (2, 3), biases=12))
def test_groups_of_pixels(isa, op):
    check(isa, op)


@pytest.mark.parametrize("isa", ISAS)
def test_steps_follow_in_groups(isa):
    check(isa, Attention(2, 16, 32, 4, 8, 4, 8, ("add", "relu6"), (2, 2), apart=True, biases=2))


@pytest.mark.parametrize("isa", ISAS)
def test_steps_follow(isa):
    check(isa, Attention(2, 16, 32, 5, 7, 4, 8, ("add", "relu6")))
    assert not attention.supports(Attention(2, 16, 20, 5, 7, 4, 8, ("relu6",)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [Tile(1, 1), Tile(5, 3), Tile(64, 1)])
def test_any_schedule_gives_the_same(isa, tile):
    check(isa, Attention(3, 8, 16, 5, 7, 3, 17), AttentionSchedule(tile, 2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("scale", [-0.2, 1.0])
def test_scores_far_apart(isa, scale):
    """The largest is taken out before: nothing overflows."""
    check(isa, Attention(1, 8, 8, 4, 4, 4, 4), scale=scale, size=20.0)


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number_passes_through(isa):
    op = Attention(1, 4, 16, 2, 2, 1, 3)
    q, k, v = normal(1, 1, 4, 2, 2), normal(2, 1, 4, 1, 3), normal(3, 1, 16, 1, 3)
    q[0, 0, 1, 1] = np.nan
    maps = [layout.pack_activation(isa, a) for a in (q, k, v)]
    y = run(
        emit(op, isa), isa, maps + attention.pack(op, isa, 1.0, []),
        layout.activation_shape(isa, *op.output),
    )  # fmt: skip
    got = planar(isa, y, 16)[0]
    assert np.isnan(got[:, 1, 1]).all()
    assert np.isfinite(got[:, 0]).all()
