"""Where a file with a dynamic height or width fails at the size asked for: sizes near it that pass.

Networks that halve their maps and bring them together again need sides that the halves fit; a file
does not say which.
"""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from deploy.reading.axes import dynamic_sides
from deploy.reading.file import parse
from deploy.resolution import MAX_SIDE, MIN_SIDE, Resolution

MULTIPLES = (2, 4, 8, 16, 32, 64)  # that are tried
_NODE = re.compile(r"\w+ node (that makes )?'[^']*'(?=:)")


def at_size(
    message: str, path: Path, asked: Resolution | None, passes: Callable[[Resolution], bool]
) -> str:
    """What to say of a file that was refused with this message: where its sizes are dynamic and it
    `passes` at others, which, else the message. Raises UserError where the file cannot be parsed.
    """
    if asked is None:
        return message
    try:
        dynamic = dynamic_sides(parse(path).graph)
    except UnicodeDecodeError:  # some versions of protobuf, on names that are no text
        return message
    if not any(dynamic):
        return message
    multiple, sizes = fitting(asked, dynamic, passes)
    if not sizes:
        return message
    node = _NODE.match(message)
    why = f"{node[0]} fails" if node else message
    choice = " or ".join(map(str, sizes))
    return (
        f"{asked} does not suit this network ({why}): give --resolution {choice}, sides that are "
        f"multiples of {multiple}"
    )


def fitting(
    asked: Resolution, dynamic: tuple[bool, bool], passes: Callable[[Resolution], bool]
) -> tuple[int, list[Resolution]]:
    """The smallest of `MULTIPLES` whose neighbours of a size that fails pass, and these; 0 and none
    where even those of the largest do not. Only `dynamic` sides are changed."""
    passes = cache(passes)
    coarse = _around(asked, dynamic, MULTIPLES[-1])
    if asked in coarse or not passes(coarse[-1]):
        return 0, []
    for multiple in MULTIPLES:
        sizes = _around(asked, dynamic, multiple)
        # First the one that is no multiple of twice as much, which tells more.
        order = sorted(sizes, key=lambda size: all(side % (2 * multiple) == 0 for side in size))
        if asked not in sizes and all(map(passes, order)):
            return multiple, sizes
    return 0, []


def _around(asked: Resolution, dynamic: tuple[bool, bool], multiple: int) -> list[Resolution]:
    """The next sizes below and above, as far as they are accepted."""
    sizes = []
    for up in (0, multiple - 1):
        sides = [
            (side + up) // multiple * multiple if free else side
            for side, free in zip(asked, dynamic, strict=True)
        ]
        size = Resolution(*sides)
        if all(MIN_SIDE <= side <= MAX_SIDE for side in size) and size not in sizes:
            sizes.append(size)
    return sizes
