"""Which entry of the latency table each kernel call of a frame belongs to."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from lut.errors import UserError, WorkError
from lut.ops import Convert, Operation, StemPair, dtype_of, expand, parse_operation, with_dtype


def entries_of(
    calls: Sequence[str], entries: Sequence[Operation], has: Callable[[Operation], bool]
) -> list[tuple[Operation, int]]:
    """The entries of a frame in the order of their calls, and how many calls each is.

    `calls` are the operations of the kernels that are called, as text, in order; `entries` those
    that the network is the sum of, its layers in their order; `has` says which operations the
    backend has kernels for. Raises WorkError where the calls are not those of the entries.
    """
    left = [(entry, [forms_of(part) for part in expand(entry, has)]) for entry in entries]
    plain = [plain_of(call) for call in calls]
    found: list[tuple[Operation, int]] = []
    start = 0
    while start < len(calls):
        first = start  # conversions between types belong to the entry that they are made for
        while first < len(calls) - 1 and _is_conversion(calls[first]):
            first += 1
        rest = plain[first:]
        place = next((i for i, (_, own) in enumerate(left) if _begins(rest, own)), None)
        if place is None:
            raise WorkError(f"the latency table has no entry for the kernel '{calls[first]}'")
        entry, own = left.pop(place)
        found.append((entry, first - start + len(own)))
        start = first + len(own)
    if left:
        raise WorkError(f"the network calls nothing for its entry '{left[0][0]}'")
    return found


def _begins(calls: Sequence["Plain"], parts: Sequence[tuple["Plain", "Plain"]]) -> bool:
    """Whether these parts are called first, in their order."""
    return len(calls) >= len(parts) and all(
        call in forms for call, forms in zip(calls, parts, strict=False)
    )


class Plain(NamedTuple):
    """An operation's text without what its maps are made of, which is the whole table's; of one
    whose bytes may `saturate` in an activation's place, without activations, too."""

    text: str
    saturates: bool


def plain_of(call: str) -> Plain:
    """Of a kernel's operation, as text."""
    try:
        operation = parse_operation(call)
    except UserError:  # a loop nest of TVM's
        return Plain(call, saturates=False)
    saturates = dtype_of(operation) == "int8"
    operation = with_dtype(operation, "float32")
    for field in ("wide", "real"):
        if getattr(operation, field, False):
            operation = replace(operation, **{field: False})
    return Plain(str(_without_activations(operation) if saturates else operation), saturates)


def forms_of(part: Operation) -> tuple[Plain, Plain]:
    """In which an entry's part may be called, whatever the precision."""
    bare = Plain(str(_without_activations(part)), saturates=True)
    return Plain(str(part), saturates=False), bare


def _without_activations(operation: Operation) -> Operation:
    if isinstance(operation, StemPair):
        first, second = map(_without_activations, (operation.first, operation.second))
        return replace(operation, first=first, second=second)  # type: ignore[arg-type]
    given = [name for name in ("act", "stem_act", "mid_act") if hasattr(operation, name)]
    return replace(operation, **dict.fromkeys(given, "none"))


def _is_conversion(call: str) -> bool:
    return call.startswith(f"{Convert.kind} ")
