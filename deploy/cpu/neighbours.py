"""Schedules worth measuring: those that differ from one in one field."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from deploy.cpu.isa import Isa, Tile
from deploy.cpu.kernels.inverted_residual import prefetch_pixels


def neighbours(schedule: Any, isa: Isa) -> Iterator[Any]:  # noqa: ANN401 - any Schedule
    """Schedules that differ from `schedule` in one field.

    Whole numbers are halved, doubled, and moved by one; switches are turned, prefetching is turned
    off and on; tiles go through those that use at least two thirds of the registers. Some may not
    fit their kernel: the tuner finds out and records it.
    """
    for field in fields(schedule):
        value = getattr(schedule, field.name)
        for other in _alternatives(field.name, value, isa):
            if other != value:
                yield replace(schedule, **{field.name: other})


def _alternatives(name: str, value: Any, isa: Isa) -> list[Any]:  # noqa: ANN401
    if isinstance(value, Tile):
        return list(_tiles(isa))
    if name == "mode":
        return ["rows", "hid"]
    if isinstance(value, bool):
        return [not value]
    if name == "prefetch":
        return [0, value // 2, value * 2] if value else [prefetch_pixels(isa)]
    if isinstance(value, int):
        return sorted({v for v in (value // 2, value - 1, value + 1, value * 2) if v >= 1})
    return []


def _tiles(isa: Isa) -> Iterator[Tile]:
    for ob in range(1, 7):
        most = (isa.registers - 1 - ob) // ob
        for px in range(most, 0, -1):
            if px * ob < 2 * (isa.registers - 1 - ob) // 3:
                break
            yield Tile(px, ob)
