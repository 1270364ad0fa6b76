"""The buffer that a network's kernels write the clock into, and how it is read.

int64: the number of words written, then (seconds, nanoseconds) before the first kernel of each
frame and after every kernel (`deploy.cpu.passes.insert_clock`).
"""

import numpy as np
from numpy.typing import NDArray

from lut.errors import WorkError

HEADER = 1  # words before the first reading
WORDS = 2  # of one reading
# 64 KiB, the last reading spare. Libraries are compiled for buffers of this size: another one needs
# another version of the artifact's format.
BUFFER_WORDS = HEADER + 4096 * WORDS


def empty_buffer() -> NDArray[np.int64]:
    """A buffer without readings."""
    return np.zeros(BUFFER_WORDS, np.int64)


def frames_in_buffer(kernels: int) -> int:
    """How many frames of so many kernel calls one buffer holds.

    Raises WorkError where it does not hold two, of which a device needs the first to warm up.
    """
    frames = (BUFFER_WORDS - HEADER - WORDS) // WORDS // (kernels + 1)
    if frames < 2:
        raise WorkError(f"a network of {kernels} kernels has too many to be timed one by one")
    return frames


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
