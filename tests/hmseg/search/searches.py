"""Small searches, under a cost that is odd in every choice."""

from dataclasses import replace
from pathlib import Path

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.pretrained import load_released
from hmseg.search.config import SearchConfig
from hmseg.search.loop import Searcher
from hmseg.search.run import SearchOptions, SearchRun
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.distributed import ALONE, World
from hmseg.train.teacher import Teacher
from tests.hmseg.search.costs import odd_objective

# A low rate: two crops this small make the lowest branch's batch norms wild, and what overflows on
# one CPU need not on another.
RECIPE = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 6),), seed=4, learning_rate=1e-4)
CONFIG = SearchConfig(RECIPE, "0.04ms", "us", (256, 512), 19, warmup_steps=2)
SCORE = replace(CONFIG, estimator="score", samples=4)
RELEASED = load_released("tiny-mrms", "camvid")
NEAR = replace(SCORE, pretrained=RELEASED.card["sha256"], prior=0.9)
LIMIT = 45.0  # of the odd cost: within its range
OPTIONS = SearchOptions(log_every=2, checkpoint_every=4)


def make_searcher(
    data: Path, config: SearchConfig = CONFIG, world: World = ALONE, teacher: Teacher | None = None
) -> Searcher:
    frames = open_dataset("camvid", data, "train")
    return Searcher(
        config, odd_objective(LIMIT), InMemory(frames), frames.classes.names, world=world,
        released=RELEASED if config.pretrained == NEAR.pretrained else None, teacher=teacher,
    )  # fmt: skip


def make_run(data: Path, folder: Path, config: SearchConfig = CONFIG) -> SearchRun:
    return SearchRun(folder, make_searcher(data, config), {"table": "odd"}, OPTIONS)
