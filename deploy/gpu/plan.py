"""The plan of a frame: what is launched, in which order, on which bytes. No TVM, no driver.

All memory is one allocation, the arena: first the constants, then the input, then what the kernels
write, maps sharing bytes where their lives do not meet. A launch names its kernel, its grid and
the offsets of its arguments; nothing is decided while a frame runs, so that a driver can record
the launches once and replay them.
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from deploy.arena import Region
from lut.errors import UserError
from lut.json_text import parse_json

Extents: TypeAlias = tuple[int, int, int]


class Launch(NamedTuple):
    """One kernel: blocks of the grid and threads of a block along x, y, z; `arguments` are the
    regions that its pointers point to."""

    kernel: str
    grid: Extents
    block: Extents
    arguments: tuple[Region, ...]


@dataclass(frozen=True)
class Entry:
    """What one call of the network does: launches in order, and where its result lies."""

    launches: tuple[Launch, ...]
    output: Region


@dataclass(frozen=True)
class Plan:
    """A network on a GPU. `constants` bytes at the start of the arena are uploaded once."""

    arena_bytes: int
    constant_bytes: int
    input: Region
    entries: dict[str, Entry]

    def to_json(self) -> str:
        """As the artifact holds it."""
        entries = {
            name: {"output": entry.output, "launches": entry.launches}
            for name, entry in self.entries.items()
        }
        return json.dumps(vars(self) | {"entries": entries}, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Plan":
        """Read and check a plan: no argument lies outside the arena. Raises UserError."""
        try:
            values = parse_json(text)
            arena = _count(values["arena_bytes"])
            entries = {
                str(name): Entry(
                    tuple(_launch(launch, arena) for launch in entry["launches"]),
                    _region(entry["output"], arena),
                )
                for name, entry in values["entries"].items()
            }
            if "main" not in entries:
                raise ValueError("it has no entry 'main'")
            constants = _region([0, values["constant_bytes"]], arena).size
            return Plan(arena, constants, _region(values["input"], arena), entries)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"the plan of the GPU's launches is not sound ({error})") from error


def _count(value: Any) -> int:  # noqa: ANN401 - any JSON value
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _region(value: Any, arena: int) -> Region:  # noqa: ANN401
    offset, size = value
    region = Region(_count(offset), _count(size))
    if region.offset + region.size > arena:
        raise ValueError("a region ends outside the arena")
    return region


def _launch(value: Any, arena: int) -> Launch:  # noqa: ANN401
    kernel, grid, block, arguments = value
    regions = tuple(_region(argument, arena) for argument in arguments)
    return Launch(str(kernel), _extents(grid), _extents(block), regions)


def _extents(value: Any) -> Extents:  # noqa: ANN401
    x, y, z = (_count(size) for size in value)
    return x, y, z
