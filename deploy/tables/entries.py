"""Which entry of the latency table each kernel call of a frame belongs to."""

from collections.abc import Callable, Sequence

from lut.errors import WorkError
from lut.ops import Operation, expand


def entries_of(
    calls: Sequence[str], entries: Sequence[Operation], has: Callable[[Operation], bool]
) -> list[tuple[Operation, int]]:
    """The entries of a frame in the order of their calls, and how many calls each is.

    `calls` are the operations of the kernels that are called, as text, in order; `entries` those
    that the network is the sum of, its layers in their order; `has` says which operations the
    backend has kernels for. Raises WorkError where the calls are not those of the entries.
    """
    left = [(entry, [str(part) for part in expand(entry, has)]) for entry in entries]
    found: list[tuple[Operation, int]] = []
    start = 0
    while start < len(calls):
        place = next(
            (i for i, (_, own) in enumerate(left) if list(calls[start : start + len(own)]) == own),
            None,
        )
        if place is None:
            raise WorkError(f"the latency table has no entry for the kernel '{calls[start]}'")
        entry, own = left.pop(place)
        found.append((entry, len(own)))
        start += len(own)
    if left:
        raise WorkError(f"the network calls nothing for its entry '{left[0][0]}'")
    return found
