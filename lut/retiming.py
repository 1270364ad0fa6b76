"""A table's calibration networks, timed again: on another day, or another machine of its kind."""

from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from lut.errors import UserError
from lut.json_text import checked
from lut.provenance import Provenance
from lut.record import Visit


@dataclass(frozen=True)
class Retiming:
    """What was measured then, kernel by kernel and whole, with its provenance.

    `host` tells machines of one kind apart (a digest); it is empty where the device does not say.
    """

    provenance: Provenance
    host: str
    visits: tuple[Visit, ...]

    @cached_property
    def baseline_us(self) -> float:
        """The reference network's time: its median over all rounds."""
        return median(drift for visit in self.visits for drift in visit.drift_us)

    def to_json(self) -> dict[str, Any]:
        """JSON fields."""
        visits = [visit.to_json() for visit in self.visits]
        return {"provenance": self.provenance.to_json(), "host": self.host, "visits": visits}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Retiming":
        """Read `to_json`'s fields; raises UserError naming one that is wrong."""
        known = checked(Retiming, values)
        visits = known["visits"]
        if not isinstance(visits, list) or not visits:
            raise UserError(f"'visits' are {visits!r:.40}, not a list of at least one measurement")
        found = tuple(map(Visit.from_json, visits))
        if any(visit.role != "calibration" for visit in found):
            raise UserError("a network that is timed again has the role calibration")
        return Retiming(Provenance.from_json(known["provenance"]), known["host"], found)
