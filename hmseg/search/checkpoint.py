"""A search's checkpoint: one safetensors file, as a training run's."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmseg.data.fingerprint import Fingerprint, parse_fingerprints
from hmseg.search.config import SearchConfig
from hmseg.train.checkpoint import Tensors, loading, read_classes, read_step, save_groups
from hmseg.train.place import Place
from lut.json_text import parse_json

FORMAT_VERSION = "search 2"


@dataclass
class SearchCheckpoint:
    """A search after `step` steps. All that is random follows from the seed and the step."""

    config: SearchConfig
    step: int
    classes: tuple[str, ...]
    weights: Tensors
    architecture: Tensors
    optimizer: Tensors
    arch_optimizer: Tensors
    before: tuple[dict[str, Any], ...] = ()
    """The runs, oldest first, whose weights the supernet began with."""
    places: tuple[Place, ...] = ()
    """What it computed on, one after the other."""
    frames: dict[str, Fingerprint] = field(default_factory=dict)
    """The splits that it learned from and was evaluated on."""

    def save(self, path: Path) -> None:
        """Write whole or not at all; raises UserError for a full disk, and the old file stays."""
        header = {
            "format_version": FORMAT_VERSION,
            "config": self.config.to_json(),
            "step": str(self.step),
            "classes": json.dumps(self.classes),
            "before": json.dumps(self.before),
            "places": json.dumps(self.places),
            "frames": json.dumps(self.frames),
        }
        groups = {
            "weights": self.weights,
            "architecture": self.architecture,
            "optimizer": self.optimizer,
            "arch_optimizer": self.arch_optimizer,
        }
        save_groups(path, groups, header)

    @staticmethod
    def load(path: Path) -> "SearchCheckpoint":
        """Read `save`'s form; raises UserError for a file that is missing, cut short or other."""
        with loading(path, FORMAT_VERSION, "a search") as (header, groups):
            config = SearchConfig.from_json(header["config"])
            return SearchCheckpoint(
                config,
                read_step(header, config.steps),
                read_classes(header),
                groups["weights"],
                groups["architecture"],
                groups.get("optimizer", {}),
                groups.get("arch_optimizer", {}),
                tuple(parse_json(header["before"])),
                tuple(parse_json(header.get("places", "[]"))),
                parse_fingerprints(parse_json(header.get("frames", "{}"))),
            )
