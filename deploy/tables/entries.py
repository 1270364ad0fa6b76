"""Which entry of the latency table each kernel call of a frame belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lut.errors import UserError, WorkError
from lut.ops import Convert, Operation, expand, parse_operation, with_dtype


def entries_of(
    calls: Sequence[str], entries: Sequence[Operation], has: Callable[[Operation], bool]
) -> list[tuple[Operation, int]]:
    """The entries of a frame in the order of their calls, and how many calls each is.

    `calls` are the operations of the kernels that are called, as text, in order; `entries` those
    that the network is the sum of, its layers in their order; `has` says which operations the
    backend has kernels for. Raises WorkError where the calls are not those of the entries.
    """
    left = [(entry, [str(part) for part in expand(entry, has)]) for entry in entries]
    plain = [_in_float32(call) for call in calls]
    found: list[tuple[Operation, int]] = []
    start = 0
    while start < len(calls):
        first = start  # conversions between types belong to the entry that they are made for
        while first < len(calls) - 1 and _is_conversion(calls[first]):
            first += 1
        place = next(
            (i for i, (_, own) in enumerate(left) if plain[first : first + len(own)] == own), None
        )
        if place is None:
            raise WorkError(f"the latency table has no entry for the kernel '{calls[first]}'")
        entry, own = left.pop(place)
        found.append((entry, first - start + len(own)))
        start = first + len(own)
    if left:
        raise WorkError(f"the network calls nothing for its entry '{left[0][0]}'")
    return found


def _in_float32(call: str) -> str:
    """An operation's text without what its maps are made of, which is the whole table's."""
    try:
        operation = with_dtype(parse_operation(call), "float32")
    except UserError:  # a loop nest of TVM's
        return call
    for field in ("wide", "real"):
        if getattr(operation, field, False):
            operation = replace(operation, **{field: False})
    return str(operation)


def _is_conversion(call: str) -> bool:
    return call.startswith(f"{Convert.kind} ")
