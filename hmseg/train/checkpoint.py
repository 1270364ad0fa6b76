"""Checkpoints: one safetensors file with its configuration in the header. No pickles."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hmseg.data.fingerprint import Fingerprint, parse_fingerprints
from hmseg.train.config import TrainConfig
from hmseg.train.place import Place
from lut.errors import UserError
from lut.files import atomic_path
from lut.json_text import parse_json

FORMAT_VERSION = 2
Tensors = dict[str, Tensor]


@dataclass
class Checkpoint:
    """A run after `step` steps: the raw weights, their moving average, the optimiser's state.

    `average` is empty without EMA; `optimizer` maps ``PARAMETER/KEY`` to the optimiser's tensors.
    Everything random derives from the seed and the step, so there is no generator to keep.
    """

    config: TrainConfig
    step: int
    classes: tuple[str, ...]
    weights: Tensors
    average: Tensors
    optimizer: Tensors
    schedules: tuple[tuple[int, str], ...] = ()
    """Every schedule the run has had: the step it began at, and its stages."""
    before: tuple[dict[str, Any], ...] = ()
    """The runs, oldest first, whose weights this one began with (see `as_history`)."""
    places: tuple[Place, ...] = ()
    """What it computed on, one after the other."""
    frames: dict[str, Fingerprint] = field(default_factory=dict)
    """The splits that it learned from and was evaluated on."""
    offsets: tuple[float, ...] = ()
    """What was added to each class's score after the training (`hmseg.train.adjust`)."""

    def as_history(self) -> tuple[dict[str, Any], ...]:
        """What a run that begins with these weights says about their making."""
        if self.step == 0:
            return self.before
        images = self.config.images_after(self.step)
        own = {"recipe": self.config.to_dict(), "steps": self.step, "images_seen": images}
        own["schedules"] = [list(entry) for entry in self.schedules]
        if self.offsets:
            own["offsets"] = [round(value, 4) for value in self.offsets]
        return (*self.before, own | {"computed_on": list(self.places)})

    @property
    def released(self) -> Tensors:
        """What evaluation and deployment use: the average where there is one."""
        return self.average or self.weights

    def save(self, path: Path) -> None:
        """Write whole or not at all; raises UserError for a full disk, and the old file stays."""
        header = {
            "format_version": str(FORMAT_VERSION),
            "config": self.config.to_json(),
            "step": str(self.step),
            "classes": json.dumps(self.classes),
            "schedules": json.dumps(self.schedules),
            "before": json.dumps(self.before),
            "places": json.dumps(self.places),
            "frames": json.dumps(self.frames),
            "offsets": json.dumps(self.offsets),
        }
        groups = {"weights": self.weights, "average": self.average, "optimizer": self.optimizer}
        save_groups(path, groups, header)

    @staticmethod
    def load(path: Path) -> "Checkpoint":
        """Read `save`'s form; raises UserError for a file that is missing, cut short or other."""
        with loading(path, str(FORMAT_VERSION), "a training run") as (header, groups):
            config = TrainConfig.from_json(header["config"])
            return Checkpoint(
                config,
                read_step(header, config.steps),
                read_classes(header),
                groups["weights"],
                groups.get("average", {}),
                groups.get("optimizer", {}),
                schedules=tuple(
                    (int(at), str(text)) for at, text in parse_json(header["schedules"])
                ),
                before=tuple(parse_json(header["before"])),
                places=tuple(parse_json(header.get("places", "[]"))),
                frames=parse_fingerprints(parse_json(header.get("frames", "{}"))),
                offsets=tuple(map(float, parse_json(header.get("offsets", "[]")))),
            )


def knows_validation(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether weights of this history (`Checkpoint.as_history`), or a teacher of theirs, have
    learned from the validation split, so that it can say nothing of what comes of them."""
    return any(
        run.get("recipe", {}).get("with_validation", False) or knows_validation(run.get("runs", ()))
        for run in history
    )


def save_groups(path: Path, groups: dict[str, Tensors], header: dict[str, str]) -> None:
    """Write groups of named tensors whole or not at all; raises UserError for a full disk."""
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:  # it wraps the system's error in its own
            raise OSError(str(error)) from error


@contextmanager
def loading(
    path: Path, version: str, kind: str
) -> Iterator[tuple[dict[str, str], dict[str, Tensors]]]:
    """Read what `save_groups` wrote: header and groups, for a block that makes something of them.

    Raises UserError for a file that is missing, of another kind or version, or cut short, and
    where the block does not get along with what the header says.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    groups: dict[str, Tensors] = {}
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format_version") != version:
                raise UserError(f"{path}: not a checkpoint of {kind} (format version)")
            for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
                group, name = key.split("/", 1)
                groups.setdefault(group, {})[name] = file.get_tensor(key)
        yield header, groups
    except Exception as error:  # a header that was made up may bring about anything
        if str(error).startswith(str(path)):
            raise
        raise UserError(f"{path}: not a whole checkpoint ({error})") from error


def read_step(header: dict[str, str], most: int) -> int:
    """How many steps were taken; raises UserError where there cannot be so many."""
    step = int(header["step"])
    if not 0 <= step <= most:
        raise UserError(f"step {step} of {most}")
    return step


def read_classes(header: dict[str, str]) -> tuple[str, ...]:
    """The classes' names; raises UserError for anything else."""
    classes = parse_json(header["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"the classes are {classes!r:.40}, not a list of texts")
    return tuple(classes)


def load_into(model: torch.nn.Module, tensors: Tensors, path: Path) -> None:
    """Load weights; raises UserError, naming the first tensor, where the network is another, and
    where one is not finite."""
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            raise UserError(f"{path}: another network: it has no {name}")
        if name not in own:
            raise UserError(f"{path}: another network: its {name} is not in this one")
        if own[name].shape != tensors[name].shape:
            raise UserError(
                f"{path}: another network: {name} is {tuple(tensors[name].shape)}, "
                f"not {tuple(own[name].shape)}"
            )
        if own[name].is_floating_point() != tensors[name].is_floating_point():
            raise UserError(f"{path}: {name} is {tensors[name].dtype}, not {own[name].dtype}")
        if not tensors[name].isfinite().all():
            raise UserError(
                f"{path}: {name} has values that are not finite (NaN or infinite): the training "
                "has diverged; take an earlier checkpoint"
            )
    model.load_state_dict(tensors)
