"""How much of a long step is done, and the time left."""

import time
from collections.abc import Callable


class Countdown:
    """Tells `progress`, at most a few times a second, how many of `total` are done and how long the
    others take at this rate."""

    def __init__(
        self, what: str, total: int, progress: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._what, self._total, self._progress, self._clock = what, total, progress, clock
        self._start = self._told = clock()

    def done(self, count: int) -> None:
        """So many are done by now."""
        now = self._clock()
        if count < self._total and now - self._told < 0.25:
            return
        self._told = now
        left = (now - self._start) / count * (self._total - count)
        tail = f", {left:.0f} s left" if count < self._total else ""
        self._progress(f"{self._what}: {count} of {self._total}{tail}")
