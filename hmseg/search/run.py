"""A search as a folder: log, checkpoint, what it found, and pictures; started, stopped, resumed.

FOLDER/log.jsonl            one record per logged step, with all probabilities
FOLDER/last.safetensors     the search as it stood at the last checkpoint
FOLDER/genotype.json        the network found, with its provenance: a model to train
FOLDER/inherited.safetensors  its weights from the supernet: a checkpoint to begin with
FOLDER/network.png, probabilities.png, cost.png
FOLDER/evolution.jsonl      of a refinement: one record per network that was evaluated or timed
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hmseg.data.batches import Source
from hmseg.data.fingerprint import Fingerprint
from hmseg.mend import Resume
from hmseg.network_file import to_line, write_network
from hmseg.search.architecture import Path as NetworkPath
from hmseg.search.checkpoint import SearchCheckpoint
from hmseg.search.derive import cost_range, derive
from hmseg.search.evolution import (
    CandidateReport,
    Evolution,
    EvolutionConfig,
    Evolved,
    Timer,
)
from hmseg.search.inherited import Inherited
from hmseg.search.loop import Searcher, SearchReport
from hmseg.search.pictures import draw_cost, draw_network, draw_probabilities
from hmseg.search.supernet import inherited_weights
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.distributed import ALONE, World
from hmseg.train.teacher import digest
from lut.errors import UserError
from lut.estimate import Estimate
from lut.files import check_writable, lock_folder, remove_leftovers
from lut.jsonl import append_record, read_records, rewrite_records


@dataclass(frozen=True)
class SearchOptions:
    """How often what is written; none of it changes what is found."""

    log_every: int = 20
    checkpoint_every: int = 100


@dataclass(frozen=True)
class Found:
    """What a search ends with."""

    path: NetworkPath
    estimate: Estimate
    most_probable: bool  # whether no network, within the budget or not, is more probable
    file: Path
    is_the_model: bool  # whether the search ends with the network of the recipe's own model
    refinement: dict[str, Any] | None = None  # what an evolution did, as the file keeps it
    measured: dict[str, Any] | None = None  # as the genotype's file keeps it


@dataclass(frozen=True)
class Refinement:
    """An evolution after the search: on which validation frames, whose fingerprint is kept; `timer`
    is the closed loop, where there is a machine to time on."""

    config: EvolutionConfig
    validation: Source
    frames: Fingerprint
    timer: Timer | None = None
    watch: Callable[[CandidateReport], None] = lambda _report: None


@dataclass
class SearchRun:
    """A searcher and its folder. `cost_provenance` is written into the genotype's file."""

    folder: Path
    searcher: Searcher
    cost_provenance: dict[str, Any]
    options: SearchOptions = SearchOptions()
    world: World = ALONE
    watch: Callable[[SearchReport], None] = lambda _report: None
    refinement: Refinement | None = None
    _since_log: list[SearchReport] = field(default_factory=list, init=False)

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "last.safetensors"

    @property
    def log(self) -> Path:
        """The log."""
        return self.folder / "log.jsonl"

    def start(self, *, resume: bool) -> Found:
        """Search to the end and write what was found.

        A folder that holds a search is only touched with `resume`, and only where it is the same
        and no other process is at work there: else UserError, as for a folder that cannot be
        written.
        """
        with ExitStack() as held:
            self.world.together(lambda: self._take_folder(held, resume=resume))
            # Every process has looked before the first one writes.
            if self.world.is_main:
                remove_leftovers(self.folder)
                if self.searcher.step == 0:
                    self.searcher.checkpoint().save(self.last)
            self.searcher.run(self._after_step)
            return self._finish()

    def _take_folder(self, held: ExitStack, *, resume: bool) -> None:
        if self.world.is_main:
            held.enter_context(lock_folder(self.folder))
        if resume:
            self._resume()
        elif self.last.exists():
            raise UserError(
                f"{self.folder} holds a search: name another folder, or go on with it",
                mend=Resume("search", self.folder),
            )
        check_writable(self.last)

    def _resume(self) -> None:
        checkpoint = SearchCheckpoint.load(self.last)
        self.searcher.resume(checkpoint, self.last)
        # What was logged after the checkpoint happens again.
        records = [r for r in read_records(self.log) if r["step"] <= checkpoint.step]
        if self.world.is_main:
            rewrite_records(self.log, records)

    def _after_step(self, report: SearchReport) -> None:
        options, last_step = self.options, report.step == self.searcher.config.steps
        self._since_log.append(report)
        if last_step or report.step % options.log_every == 0:
            self._log_steps()
        if self.world.is_main and (last_step or report.step % options.checkpoint_every == 0):
            self.searcher.checkpoint().save(self.last)
        self.watch(report)

    def _log_steps(self) -> None:
        reports, self._since_log = self._since_log, []
        if not self.world.is_main:
            return
        searcher = self.searcher
        path = searcher.architecture.most_probable()
        estimate = searcher.objective.estimate(path)
        record: dict[str, Any] = {
            "step": reports[-1].step,
            "loss": sum(r.loss for r in reports) / len(reports),
            "learning_rate": reports[-1].learning_rate,
            "images_per_s": sum(r.images for r in reports) * self.world.size
            / sum(r.step_s for r in reports),
            "most_probable": {"estimate": estimate.value, "upper": estimate.upper},
        }  # fmt: skip
        if found := [r.architecture for r in reports if r.architecture]:
            record["architecture"] = {
                "loss": sum(step.loss for step in found) / len(found),
                "expected": found[-1].expected,
                "sampled_upper": [step.sampled for step in found],
                "temperature": found[-1].temperature,
            }
        rounded = [
            [round(p, 5) for p in row] for row in searcher.architecture.probabilities().tolist()
        ]
        append_record(
            self.log,
            record | {"probabilities": rounded, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
        )

    def _evolve(self, refinement: Refinement) -> Evolved:
        searcher, config = self.searcher, refinement.config
        inherited = Inherited(
            searcher.supernet, searcher.config.recipe, searcher.source, refinement.validation,
            frames=config.frames, batches=config.batches, world=self.world,
            loader_threads=searcher.loaders[0].threads,
        )  # fmt: skip
        header = {
            "search": searcher.config.to_dict(),
            "weights": digest(searcher.supernet),
            "frames": refinement.frames,
            "timed": refinement.timer is not None,
        }
        evolution = Evolution(
            config, searcher.objective, searcher.architecture, inherited.miou,
            seed=searcher.config.recipe.seed, log=self.folder / "evolution.jsonl", header=header,
            timer=refinement.timer, world=self.world, watch=refinement.watch,
        )  # fmt: skip
        return evolution.run()

    def _finish(self) -> Found:
        searcher = self.searcher
        path, most_probable = derive(searcher.objective, searcher.architecture)
        estimate, refined = searcher.objective.estimate(path), None
        if self.refinement:
            derived, evolved = path, self._evolve(self.refinement)
            path, estimate = evolved.path, evolved.objective.estimate(evolved.path)
            most_probable = path.choices == searcher.architecture.most_probable().choices
            refined = {
                "config": asdict(self.refinement.config),
                "frames": self.refinement.frames,
                "before": str(derived.genotype),
                "miou": evolved.miou,
                "evaluated": evolved.evaluated,
                "measured_us": evolved.measured_us,
            }
        file = self.folder / "genotype.json"
        found = Found(
            path, estimate, most_probable, file,
            path.genotype == searcher.network_config.genotype, refined,
        )  # fmt: skip
        if not self.world.is_main:
            return found
        config, recipe = searcher.config, searcher.config.recipe
        width = searcher.network_config.width
        write_network(
            file, path.genotype, width, len(searcher.classes),
            search={
                "config": config.to_dict(),
                "cost": self.cost_provenance,
                "estimate": asdict(estimate) | {"upper": estimate.upper},
                "range": [asdict(end) for end in cost_range(
                    searcher.objective, searcher.architecture)],
                "is_most_probable": most_probable,
                **({"refinement": refined} if refined else {}),
                "classes": list(searcher.classes),
                "processes": self.world.size,
                "versions": {"hmseg": _version("hmseg")},
                "computed_on": list(searcher.places),
                "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            },
        )  # fmt: skip
        # A run without a step of its own: what the weights have seen is the search.
        seen = recipe.images_after(searcher.step)
        inherited = Checkpoint(
            replace(recipe, model=to_line(path.genotype, width)), 0,
            searcher.classes, inherited_weights(searcher.supernet, path), {}, {},
            before=(
                *searcher.before,
                {"search": config.to_dict(), "steps": searcher.step, "images_seen": seen,
                 "computed_on": list(searcher.places)},
            ),
        )  # fmt: skip
        inherited.save(self.folder / "inherited.safetensors")
        records = read_records(self.log)
        probabilities = searcher.architecture.probabilities().detach().numpy()
        draw_network(path, probabilities, estimate, self.folder / "network.png")
        draw_probabilities(records, path, self.folder / "probabilities.png")
        draw_cost(records, searcher.objective.budget, self.folder / "cost.png")
        return found


def _version(tool: str) -> str:
    """Of a package; a checkout that was not installed has none, and no search is lost over it."""
    try:
        return version(tool)
    except PackageNotFoundError:
        return "not installed"
