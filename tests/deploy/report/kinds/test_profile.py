import re
from dataclasses import replace

import pytest

from deploy.report.kinds.profile import KIND
from lut.errors import UserError
from tests.deploy.report.kinds.reading import result, section
from tests.deploy.report.samples import KERNELS, PROFILE, profile_json


def test_what_is_read_is_what_was_written():
    found = result(KIND, profile_json()).profile
    assert found.kernels == KERNELS
    assert found.ceilings == PROFILE.ceilings
    assert found.to_json()["kernels"] == PROFILE.to_json()["kernels"]
    assert found.fma_share == PROFILE.fma_share


def test_kernels_are_in_words_the_slowest_first():
    text = section(KIND, profile_json())
    names = re.findall(r'class="name end">([^<]*)', text)
    assert names == [
        "end of the head 16→128→64, 32x64 and 16x32", "inverted residual 16→96→16, 3x3, 64x128",
        "mean of each of 16 channels, 32x64",
    ]  # fmt: skip
    assert "inverted_residual cin" not in text
    assert "1.250 ms, 62.5% of the frame" in text
    assert ">FMA 100 GFLOP/s<" in text
    assert ">16 KiB a thread: 400 GB/s<" in text
    assert text.count('class="goal"') == 3


def test_without_ceilings():
    text = section(KIND, profile_json(replace(PROFILE, ceilings=None)))
    assert "GFLOP/s, the most" not in text
    assert 'class="goal"' not in text
    assert 'class="guide"' not in text


def test_without_a_kernel_that_computes():
    text = section(KIND, profile_json(replace(PROFILE, kernels=KERNELS[2:])))
    assert "arithmetic intensity" not in text
    assert text.count("<figure") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": [{}]}, "kernels 1: 'name' is missing"),
        ({"frame_ms": 0}, "'frame_ms' is 0, not above 0"),
        ({"ceilings": {"threads": 2, "fma_gflops": 1, "reads": [[1]]}}, "reads: 'rate' is missing"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError, match=message):
        result(KIND, profile_json() | change)
