"""The buffer that a network's kernels write the clock into, and how it is read.

int64: the number of words written, then the nanoseconds since some time before the first kernel of
each frame and after every kernel (`timed` in deploy/cpu/runtime/tvm.c, which knows its size).
"""

import numpy as np
from numpy.typing import NDArray

from lut.errors import WorkError

HEADER = 1  # words before the first reading
BUFFER_WORDS = HEADER + 4096  # 32 KiB; libraries are compiled for buffers of this size


def empty_buffer() -> NDArray[np.int64]:
    """A buffer without readings."""
    return np.zeros(BUFFER_WORDS, np.int64)


def frames_in_buffer(kernels: int) -> int:
    """How many frames of so many kernel calls one buffer holds.

    Raises WorkError where it does not hold two, of which a device needs the first to warm up.
    """
    frames = (BUFFER_WORDS - HEADER) // (kernels + 1)
    if frames < 2:
        raise WorkError(f"a network of {kernels} kernels has too many to be timed one by one")
    return frames


def kernel_times(buffer: NDArray[np.int64], frames: int) -> list[list[int]]:
    """Nanoseconds of every kernel call, frame by frame.

    Raises WorkError where the buffer does not hold that many whole frames.
    """
    used = int(buffer[0])
    readings, rest = divmod(used, frames)
    if rest or readings < 2 or HEADER + used > len(buffer):
        raise WorkError(f"the clock was read {used} times in {frames} frames")
    nanoseconds = buffer[HEADER : HEADER + used].reshape(frames, readings)
    times: list[list[int]] = np.diff(nanoseconds, axis=1).tolist()
    return times
