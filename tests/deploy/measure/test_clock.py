import numpy as np
import pytest

from deploy.measure.clock import (
    BUFFER_WORDS,
    HEADER,
    empty_buffer,
    frames_in_buffer,
    kernel_times,
)
from lut.errors import WorkError


def filled(*nanoseconds):
    buffer = empty_buffer()
    buffer[0] = len(nanoseconds)
    buffer[HEADER : HEADER + len(nanoseconds)] = nanoseconds
    return buffer


def test_readings_become_times_by_frame():
    second = 1_000_000_000
    buffer = filled(second - 5, second + 10, second + 40, 3 * second, 3 * second + 1, 4 * second)
    assert kernel_times(buffer, 2) == [[15, 30], [1, second - 1]]


@pytest.mark.parametrize("frames", [4, 6])
def test_part_of_a_frame_is_refused(frames):
    with pytest.raises(WorkError, match="read 6 times"):
        kernel_times(filled(*range(6)), frames)


def test_an_empty_or_a_full_buffer_is_refused():
    with pytest.raises(WorkError, match="read 0 times"):
        kernel_times(empty_buffer(), 1)
    full = np.zeros(BUFFER_WORDS, np.int64)
    full[0] = BUFFER_WORDS
    with pytest.raises(WorkError):
        kernel_times(full, 1)


@pytest.mark.parametrize("kernels", [1, 26, 127, 128, 2000])
def test_as_many_frames_as_a_buffer_holds(kernels):
    frames = frames_in_buffer(kernels)
    readings = frames * (kernels + 1)
    assert [len(frame) for frame in kernel_times(filled(*range(readings)), frames)] == (
        [kernels] * frames
    )
    assert HEADER + readings + kernels + 1 > BUFFER_WORDS


def test_a_network_of_more_kernels_than_readings_is_refused():
    with pytest.raises(WorkError, match="5000 kernels"):
        frames_in_buffer(5000)
