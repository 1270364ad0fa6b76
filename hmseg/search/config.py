"""A search as data: everything that determines what it finds."""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from hmseg.search.space import DIMENSIONS
from hmseg.train.config import TrainConfig
from lut.errors import UserError
from lut.json_text import check_types, parse_json

# How the task's loss reaches the architecture (docs/decisions/0030).
Estimator = Literal["straight-through", "score"]


def read_estimator(text: str) -> Estimator:
    """The estimator of that name; raises UserError for anything else."""
    for estimator in get_args(Estimator):
        if text == estimator:
            return estimator  # type: ignore[no-any-return]
    raise UserError(f"unknown estimator {text!r}: choose {', '.join(get_args(Estimator))}")


@dataclass(frozen=True)
class SearchConfig:
    """`recipe` trains the weights, as in a training run; its model gives the width, the choices in
    the dimensions that are not searched, and the network that `prior` prefers. `cost` names what
    the budget is a budget of: a table's digest, or the unit.
    """

    recipe: TrainConfig
    budget: str
    cost: str
    resolution: tuple[int, int]  # at which the cost counts
    cost_classes: int
    dimensions: tuple[str, ...] = DIMENSIONS
    warmup_steps: int = 0  # of the weights alone, before the architecture moves
    estimator: Estimator = "straight-through"
    samples: int = 1  # paths of an architecture step
    arch_learning_rate: float = 0.01  # of Adam; our choice, as the next two
    arch_betas: tuple[float, float] = (0.5, 0.999)
    cost_weight: float = 1.0  # of L_cost beside the task's loss
    temperature: tuple[float, float] = (10.0, 0.1)
    pretrained: str = ""  # the digest of the released weights that the supernet began with
    shared: bool = False  # whether a layer's operators share their weights
    prior: float = 0.0  # the probability at which the model's own choices began; 0: all alike
    init: str = ""  # other makers' weights that the supernet began with, and their digest

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.recipe.steps:
            raise UserError(
                f"{self.warmup_steps} warm-up steps leave none of {self.recipe.steps} to search in"
            )
        if self.estimator == "score" and self.samples < 2:
            raise UserError("the score estimator compares paths: it needs at least 2 samples")
        if self.samples < 1:
            raise UserError(f"samples {self.samples}: an architecture step needs a path")
        if not 0 < self.arch_learning_rate < math.inf or not 0 <= self.cost_weight < math.inf:
            raise UserError(
                "the architecture's learning rate must be above 0 and the cost's weight at least "
                "0, both finite"
            )
        if not 0 <= self.prior < 1:
            raise UserError(f"prior {self.prior:g}: a probability must be at least 0 and below 1")

    @property
    def steps(self) -> int:
        """Weight steps; each after the warm-up is followed by one of the architecture."""
        return self.recipe.steps

    def difference(self, other: "SearchConfig") -> str:
        """The first thing in which another search differs, in words."""
        if self.recipe != other.recipe:
            return self.recipe.difference(other.recipe)
        theirs = other.to_dict()
        for name, value in self.to_dict().items():
            if value != theirs.get(name):
                return f"{name.replace('_', ' ')}: {theirs.get(name)} there, {value} here"
        return f"init: {other.init} there, none here" if other.init != self.init else "nothing"

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        fields = asdict(self) | {"recipe": self.recipe.to_dict()}
        if not self.init:  # searches from before there were any stay equal to themselves
            del fields["init"]
        return fields

    def to_json(self) -> str:
        """JSON that `from_json` reads back to an equal config."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> "SearchConfig":
        """Read `to_json`'s form; raises UserError where it is something else."""
        try:
            fields: dict[str, Any] = parse_json(text)
            recipe = TrainConfig.from_json(json.dumps(fields.pop("recipe")))
            kinds = {
                "resolution": int,
                "dimensions": str,
                "arch_betas": float,
                "temperature": float,
            }
            for name, kind in kinds.items():
                fields[name] = tuple(map(kind, fields[name]))
            check_types(SearchConfig, fields)
            fields["estimator"] = read_estimator(fields["estimator"])
            return SearchConfig(recipe=recipe, **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"not the configuration of a search ({error})") from error
