"""An evolution over the networks of a space within a budget, after the gradient search.

Everything random follows from the seed and the generation, and every result is in a log when it is
used: a killed evolution is played again from its log up to where it was.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from hmseg.genotype import Genotype
from hmseg.search.architecture import Architecture, Path
from hmseg.search.derive import derive
from hmseg.search.objective import Objective
from hmseg.train.distributed import ALONE, World
from lut.errors import UserError
from lut.jsonl import append_record, read_records

DRAWS = 2000  # for one new network within the budget; then the generation is smaller
_SEED = 5  # apart from the search's other noise

Choices = tuple[int, ...]
Timer = Callable[[Sequence[Genotype]], Sequence[float]]
"""Compiles and times whole networks: microseconds, at the speed that the cost is for."""


@dataclass(frozen=True)
class EvolutionConfig:
    """`population` new networks in each of `generations`: the first from the search's distribution,
    later ones half by crossover, half by mutation (each choice with probability `mutation`) of the
    best quarter. Their mIoU is over at most `frames` validation frames, after `batches` batches for
    batch norm. Every `measure_every` generations the best `leaders` are timed (0: never)."""

    population: int = 16
    generations: int = 8
    mutation: float = 0.1
    frames: int = 128
    batches: int = 16
    leaders: int = 3
    measure_every: int = 2

    def __post_init__(self) -> None:
        for name, least in (("population", 2), ("generations", 1), ("frames", 1), ("batches", 1),
                            ("leaders", 1), ("measure_every", 0)):  # fmt: skip
            if getattr(self, name) < least:
                words = name.replace("_", " ")
                raise UserError(f"{words} {getattr(self, name)}: must be at least {least}")
        if not 0 < self.mutation <= 1:
            raise UserError(f"mutation {self.mutation:g}: a probability above 0, at most 1")


@dataclass(frozen=True)
class CandidateReport:
    """One network more: how many of how many at most, and the best mIoU within the budget."""

    done: int
    total: int
    generation: int  # from 1
    miou: float
    best: float | None


@dataclass(frozen=True)
class Evolved:
    """What an evolution ends with. `objective` is corrected by what was timed."""

    path: Path
    miou: float
    objective: Objective
    evaluated: int
    measured_us: dict[str, float]  # by genotype


class Evolution:
    """`fitness` is a network's mIoU; `header` says what the log is of, for `resume`.

    Raises UserError for a log of something else.
    """

    def __init__(
        self,
        config: EvolutionConfig,
        objective: Objective,
        architecture: Architecture,
        fitness: Callable[[Path], float],
        *,
        seed: int,
        log: FilePath,
        header: dict[str, Any],
        timer: Timer | None = None,
        world: World = ALONE,
        watch: Callable[[CandidateReport], None] = lambda _: None,
    ) -> None:
        self.config, self.architecture, self.fitness, self.seed = (
            config, architecture, fitness, seed
        )  # fmt: skip
        self.objective = self._table = objective
        self.log, self.timer, self.world, self.watch = log, timer, world, watch
        self.scores: dict[Choices, float] = {}
        self.measured: dict[Choices, float] = {}
        self._known: dict[str, dict[Choices, float]] = {"candidate": {}, "measured": {}}
        self._rows = [torch.nonzero(row).flatten().tolist() for row in architecture.allowed]
        self._begin_log({"kind": "evolution", "config": asdict(config), "seed": seed, **header})

    def _begin_log(self, header: dict[str, Any]) -> None:
        first, records = json.loads(json.dumps(header)), read_records(self.log)
        # Every process has read before the first one writes.
        self.world.together(lambda: None)
        if not records:
            if self.world.is_main:
                append_record(self.log, first)
            return
        was, *rest = records
        for name in sorted(was.keys() | first.keys()):
            if was.get(name) != first.get(name):
                raise UserError(
                    f"{self.log}: an evolution of another {name}; go on with its own options, or "
                    "remove the file to begin anew"
                )
        for number, record in enumerate(rest, 2):
            try:
                known, choices = self._known[record["kind"]], tuple(record["choices"])
                known[choices] = float(record["value"])
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise UserError(
                    f"{self.log}, line {number}: no network of an evolution; remove the file to "
                    "begin anew"
                ) from error

    def run(self) -> Evolved:
        """To the end: the best network that keeps to the budget, by its measured time where it has
        one, else by the estimate's upper bound."""
        config = self.config
        for generation in range(config.generations):
            rng = np.random.default_rng((self.seed, _SEED, generation))
            ranked = self._ranked()
            for path in self._next(rng, ranked) if ranked else self._first(rng):
                self._evaluate(path, generation)
            if config.measure_every and (generation + 1) % config.measure_every == 0:
                self._measure(self._ranked())
        while True:
            ranked = self._ranked()
            if not ranked:  # what was timed leaves none of them within the budget
                path, _ = derive(self.objective, self.architecture)
                if path.choices in self.scores:  # it was timed, and is above all the same
                    raise UserError(
                        f"budget {self.objective.budget}: what was timed keeps none of the "
                        f"{len(self.scores)} networks within it; allow more"
                    )
                self._evaluate(path, config.generations - 1)
            elif not config.measure_every or not self._measure(ranked[:1]):
                break
        best = ranked[0]
        times = {str(Path(choices).genotype): us for choices, us in self.measured.items()}
        return Evolved(best, self.scores[best.choices], self.objective, len(self.scores), times)

    def _ranked(self) -> list[Path]:
        """What keeps to the budget, the best first, of equals the earlier one."""
        fitting = [path for path in map(Path, self.scores) if self._fits(path)]
        return sorted(fitting, key=lambda path: -self.scores[path.choices])

    def _fits(self, path: Path) -> bool:
        measured = self.measured.get(path.choices)
        if measured is not None:
            return measured <= self.objective.budget.limit
        return self.objective.within(path)

    def _first(self, rng: Generator) -> list[Path]:
        """The network that the search found, and others of its distribution; where these are few,
        that one's mutations."""
        start, _ = derive(self.objective, self.architecture)
        probabilities = self.architecture.probabilities().detach().numpy()
        found = {start.choices: start}
        while len(found) < self.config.population:
            path = self._draw(found, lambda: _sample(probabilities, rng)) or self._draw(
                found, lambda: self._mutated(start, rng)
            )
            if path is None:
                break
            found[path.choices] = path
        return [path for path in found.values() if path.choices not in self.scores]

    def _next(self, rng: Generator, ranked: Sequence[Path]) -> list[Path]:
        """Children of the best, none that was there before."""
        size, found = self.config.population, dict[Choices, Path]()
        parents = ranked[: max(2, size // 4)]

        def parent() -> Path:
            return parents[int(rng.integers(len(parents)))]

        def crossed() -> Path:
            mine = rng.random(len(self._rows)) < 0.5
            pairs = zip(mine, parent().choices, parent().choices, strict=True)
            return Path(tuple(a if own else b for own, a, b in pairs))

        for number in range(size):
            by_crossing = self._draw(found, crossed) if number < size // 2 else None
            path = by_crossing or self._draw(found, lambda: self._mutated(parent(), rng))
            if path is None:
                break
            found[path.choices] = path
        return list(found.values())

    def _draw(self, found: dict[Choices, Path], make: Callable[[], Path]) -> Path | None:
        """A new network within the budget; None where so many draws give none."""
        for _ in range(DRAWS):
            path = make()
            new = path.choices not in found and path.choices not in self.scores
            if new and self.objective.within(path):
                return path
        return None

    def _mutated(self, path: Path, rng: Generator) -> Path:
        changed = rng.random(len(self._rows)) < self.config.mutation
        return Path(tuple(
            int(rng.choice(row)) if change else choice
            for change, row, choice in zip(changed, self._rows, path.choices, strict=True)
        ))  # fmt: skip

    def _evaluate(self, path: Path, generation: int) -> None:
        known = self._known["candidate"].get(path.choices)
        value = self.fitness(path) if known is None else known
        self.scores[path.choices] = value
        if known is None:
            estimate = self.objective.estimate(path)
            self._keep("candidate", path, value, generation=generation + 1, upper=estimate.upper)
        best = self._ranked()
        self.watch(CandidateReport(
            len(self.scores), self.config.population * self.config.generations, generation + 1,
            value, self.scores[best[0].choices] if best else None,
        ))  # fmt: skip

    def _measure(self, ranked: Sequence[Path]) -> bool:
        """Time the leaders that have not been, and correct the cost; whether there were any."""
        if self.timer is None:
            return False
        leaders = [p for p in ranked[: self.config.leaders] if p.choices not in self.measured]
        known = self._known["measured"]
        if todo := [path for path in leaders if path.choices not in known]:
            for path, us in zip(todo, self._times(todo), strict=True):
                known[path.choices] = us
                self._keep("measured", path, us, estimate=self.objective.estimate(path).value)
        for path in leaders:
            self.measured[path.choices] = known[path.choices]
        if leaders:
            times = {Path(choices).genotype: us for choices, us in self.measured.items()}
            self.objective = self._table.corrected(times)
        return bool(leaders)

    def _times(self, paths: Sequence[Path]) -> list[float]:
        """By the process that writes the files; all get its numbers."""
        times = torch.zeros(len(paths), dtype=torch.float64)
        if self.world.is_main and self.timer is not None:
            times += torch.tensor(self.timer([path.genotype for path in paths]))
        return [float(us) for us in self.world.sum(times)]

    def _keep(self, kind: str, path: Path, value: float, **more: float) -> None:
        if self.world.is_main:
            record = {"kind": kind, "choices": list(path.choices), "value": value, **more}
            about = {"genotype": str(path.genotype), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            append_record(self.log, record | about)


def _sample(probabilities: np.ndarray, rng: Generator) -> Path:
    """A network of the distribution (24, 10)."""
    edges = probabilities.cumsum(1)
    drawn = rng.random(len(edges))[:, None] * edges[:, -1:]
    return Path(tuple((edges > drawn).argmax(1).tolist()))
