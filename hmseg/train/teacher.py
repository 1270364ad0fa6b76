"""A trained network that another one learns from (`hmseg.train.distill`)."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hmseg.mrms import MRMS
from hmseg.train.checkpoint import Checkpoint, load_into
from hmseg.train.distill import Lesson
from hmseg.zoo import network_config
from lut.errors import UserError


class Teacher:
    """A trained network of the space that is only asked. `about` is what a card says of it."""

    def __init__(self, network: MRMS, about: dict[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.about = about

    @staticmethod
    def load(path: Path, classes: tuple[str, ...]) -> "Teacher":
        """From a training's checkpoint; raises UserError for one of other classes, and what
        `Checkpoint.load` raises."""
        checkpoint = Checkpoint.load(path)
        if checkpoint.classes != classes:
            raise UserError(f"{path}: a teacher of other classes; leave it out or change the data")
        if checkpoint.config.quantise:
            raise UserError(
                f"{path} is quantised: a teacher is a float network; name the checkpoint that it "
                "began with"
            )
        network = MRMS(network_config(checkpoint.config.model, len(classes)))
        load_into(network, checkpoint.released, path)
        return Teacher(network, {
            "teacher": checkpoint.config.model, "sha256": digest(network), "images_seen": 0,
            "runs": list(checkpoint.as_history()),
        })  # fmt: skip

    @property
    def name(self) -> str:
        """Network and weights, as a run's configuration names them."""
        return f"{self.about['teacher']} {self.about['sha256']}"

    @torch.no_grad()
    def ask(self, images: Tensor) -> Lesson:
        """About images as a network takes them, (N, 3, H, W)."""
        c3, c4, c5 = self.network.features(images)
        return Lesson(self.network.head(c3, c4, c5), (c4, c5))


def digest(network: nn.Module) -> str:
    """sha256 of a network's weights."""
    state = network.state_dict()
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode() + b"\0")
        sha.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
