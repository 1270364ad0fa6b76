import numpy as np
import pytest

from deploy.cpu.convolution import Grouping, phases_of
from deploy.cpu.isa import AVX512
from lut.ops import Conv


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 16])
@pytest.mark.parametrize(("spread", "dilation"), [(1, 1), (2, 1), (3, 1), (8, 1), (2, 3), (2, 2)])
@pytest.mark.parametrize("pad", [0, 1, 3])
def test_phases_are_the_convolution(kernel, spread, dilation, pad):
    """Every output once, and each tap that meets an element once, on it."""
    reach = (kernel - 1) * dilation
    before = max(pad, reach // 2)
    op = Conv((1,), 1, 7, 1, (kernel, 1), (1, 1), (dilation, 1), (before, 0, reach, 0), (spread, 1))
    seen = {}
    for phase in phases_of(op):
        axis = phase.rows
        for r, offset in enumerate(axis.offsets):
            for t in range(axis.sizes[r]):
                taps = {
                    tap: t * axis.stride - axis.pads[r] + k * axis.dilation
                    for k, tap in enumerate(axis.taps(r))
                }
                assert seen.setdefault(offset + t * axis.step, taps) is taps
    assert sorted(seen) == list(range(op.output[1]))
    for output, taps in seen.items():
        expected = {}
        for k in range(kernel):
            at = output + k * dilation - before
            if at % spread == 0:
                expected[k] = at // spread
        assert taps == expected


@pytest.mark.parametrize(
    ("cin", "cout", "groups", "left"),
    [
        (64, 64, 4, 4),
        (64, 64, 16, 4),
        (64, 64, 64, 4),
        (96, 48, 3, 3),
        (12, 12, 3, 1),
        (32, 64, 2, 2),
    ],
)
def test_groups_are_taken_together_until_they_fill_vectors(cin, cout, groups, left):
    op = Conv((cin,), cout, 4, 4, groups=groups)
    grouping = Grouping(AVX512, op)
    assert grouping.groups == left
    w = np.random.default_rng(0).standard_normal((cout, cin // groups, 1, 1)).astype(np.float32)
    dense = grouping.dense(w)
    assert dense.shape == (cout, cin // left, 1, 1)
    x = np.random.default_rng(1).standard_normal(cin)
    per, inner = cout // groups, cin // groups
    for o in range(cout):
        plain = w[o, :, 0, 0] @ x[o // per * inner :][:inner]
        together = dense[o, :, 0, 0] @ x[o // (cout // left) * (cin // left) :][: cin // left]
        np.testing.assert_allclose(together, plain, rtol=1e-6)
