"""The buffer that a network's kernels write the clock into, and how it is read.

int64: the number of words written, then (seconds, nanoseconds) before the first kernel of each
frame and after every kernel (`deploy.passes.insert_clock`).
"""

import numpy as np
from numpy.typing import NDArray

from lut.errors import WorkError

HEADER = 1  # words before the first reading
WORDS = 2  # of one reading
MAX_FRAMES = 32  # in one buffer, of networks of up to 127 kernels
BUFFER_WORDS = HEADER + MAX_FRAMES * 128 * WORDS


def empty_buffer() -> NDArray[np.int64]:
    """A buffer without readings."""
    return np.zeros(BUFFER_WORDS, np.int64)


def kernel_times(buffer: NDArray[np.int64], frames: int) -> list[list[int]]:
    """Nanoseconds of every kernel call, frame by frame.

    Raises WorkError where the buffer does not hold that many whole frames.
    """
    used = int(buffer[0])
    readings, rest = divmod(used, WORDS * frames)
    if rest or readings < 2 or HEADER + used + WORDS > len(buffer):
        raise WorkError(f"the clock was read {used // WORDS} times in {frames} frames")
    pairs = buffer[HEADER : HEADER + used].reshape(frames, readings, WORDS)
    nanoseconds = pairs[..., 0] * 1_000_000_000 + pairs[..., 1]
    times: list[list[int]] = np.diff(nanoseconds, axis=1).tolist()
    return times
