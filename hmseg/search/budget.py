"""What the search may spend: a budget, and the cost that it is a budget of."""

import re
from dataclasses import dataclass

from hmseg.cost import SpaceCost
from hmseg.mend import NameTable
from hmseg.operators import Size, Space
from lut.errors import UserError
from lut.estimate import Cost, LatencyCost, MacsCost, ParametersCost
from lut.table import Table

_UNITS = {  # as written: the cost's own unit, and how many of them
    "ms": ("us", 1e3),
    "GMACs": ("MACs", 1e9),
    "M": ("parameters", 1e6),
}


@dataclass(frozen=True)
class Budget:
    """A limit, in the unit of its cost: us, MACs or parameters."""

    limit: float
    unit: str

    def __str__(self) -> str:
        return show_cost(self.limit, self.unit, digits=10)


def parse_budget(text: str) -> Budget:
    """Read ``12ms``, ``3.0GMACs`` or ``0.7M``; raises UserError for anything else."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)", text.strip(), re.ASCII)
    if not match or match[2] not in _UNITS or not float(match[1]) > 0:
        raise UserError(
            f"budget {text!r}: write a latency, MACs or parameters: 12ms, 3.0GMACs or 0.7M"
        )
    unit, factor = _UNITS[match[2]]
    return Budget(float(match[1]) * factor, unit)


def show_cost(value: float, unit: str, digits: int = 4) -> str:
    """As `parse_budget` reads it."""
    written, factor = next((name, f) for name, (own, f) in _UNITS.items() if own == unit)
    return f"{value / factor:.{digits}g}{written}"


def open_cost(
    budget: Budget, table: Table | None, resolution: Size, width: float, num_classes: int
) -> SpaceCost:
    """The cost of every network of the space at one size and width.

    Raises UserError for a latency budget without a table, and for a table of other networks or with
    entries missing.
    """
    cost: Cost
    if budget.unit == "us":
        if table is None:
            raise UserError(
                f"budget {budget}: it is a latency, which needs a latency table",
                mend=NameTable(),
            )
        cost = LatencyCost(table)
    else:
        cost = MacsCost() if budget.unit == "MACs" else ParametersCost()
    return SpaceCost(cost, Space(resolution, width, num_classes))
