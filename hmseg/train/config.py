"""A training run as data: everything that determines its weights."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, Literal, get_args

from hmseg.data.batches import BatchSpec
from hmseg.data.transforms import Augmentation
from hmseg.families.auxiliary import Auxiliary
from hmseg.train.distill import DistillationLoss
from hmseg.train.losses import BoostedLoss, PixelLoss
from lut.errors import UserError
from lut.json_text import check_types, parse_json

# bfloat16 is autocast with float32 weights; float64 is there to compare runs without rounding.
Precision = Literal["float32", "bfloat16", "float64"]
OptimizerName = Literal["sgd", "adamw"]
Quantisation = Literal["int8"]
_OF_A_TEACHER = ("soft_weight", "temperature", "feature_weight")  # fields of `Learning`


def read_precision(text: str) -> Precision:
    """The precision of that name; raises UserError for anything else."""
    for precision in get_args(Precision):
        if text == precision:
            return text  # type: ignore[return-value]
    raise UserError(f"unknown precision {text!r}: choose {', '.join(get_args(Precision))}")


def read_optimizer(text: str) -> OptimizerName:
    """The optimiser of that name; raises UserError for anything else."""
    for name in get_args(OptimizerName):
        if text == name:
            return name  # type: ignore[no-any-return]
    raise UserError(f"unknown optimizer {text!r}: choose {', '.join(get_args(OptimizerName))}")


def read_quantisation(text: str) -> Quantisation:
    """The quantisation of that name; raises UserError for anything else."""
    for name in get_args(Quantisation):
        if text == name:
            return name  # type: ignore[no-any-return]
    raise UserError(f"unknown quantisation {text!r}: choose {', '.join(get_args(Quantisation))}")


@dataclass(frozen=True)
class Stage:
    """`steps` optimiser steps on batches of `batch` crops of (H, W) pixels."""

    crop: tuple[int, int]
    batch: int
    steps: int

    def __str__(self) -> str:
        return f"{self.crop[0]}x{self.crop[1]}:{self.batch}:{self.steps}"

    @staticmethod
    def parse(text: str) -> "Stage":
        """Read ``HxW:BATCH:STEPS``; raises UserError for anything else."""
        try:
            crop, batch, steps = text.split(":")
            height, width = crop.split("x")
            stage = Stage((int(height), int(width)), int(batch), int(steps))
        except ValueError as error:
            raise UserError(
                f"stage {text!r}: write HxW:BATCH:STEPS, e.g. 360x480:8:2000"
            ) from error
        if min(*stage.crop, stage.batch, stage.steps) < 1:
            raise UserError(f"stage {text!r}: every number must be at least 1")
        return stage


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How weights are learned, whatever the network, the data and the stages. The defaults are the
    paper's recipe; each further option is off until asked for."""

    seed: int = 0
    # The paper's recipe. The power is the customary 0.9, the momentum the customary 0.9.
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    poly_power: float = 0.9
    auxiliary_weight: float = 0.4
    auxiliary_every: int = 1  # rows and columns; 1: the auxiliary losses see every pixel
    scale: tuple[float, float] = (0.5, 2.0)
    colour: float = 0.3
    # What has since become standard. AdamW's betas are torch's; momentum and nesterov are SGD's.
    optimizer: OptimizerName = "sgd"
    nesterov: bool = False
    warmup_steps: int = 0
    ema_decay: float = 0.0
    ohem: bool = False
    label_smoothing: float = 0.0
    backbone_rate: float = 1.0  # share of the learning rate that stem and stages have
    class_balance: float = 0.0  # c of the weights 1 / log(c + share of the class); 0: none
    # Of a teacher beside the network (`hmseg.train.distill`); they say nothing without one.
    soft_weight: float = 1.0
    temperature: float = 1.0
    feature_weight: float = 0.0
    # Augmentation that the paper does not have.
    mix: float = 0.0
    blur: float = 0.0
    grey: float = 0.0
    precision: Precision = "float32"
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.class_balance and self.class_balance <= 1:
            raise UserError(f"class balance {self.class_balance:g}: must be above 1, e.g. 1.02")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"EMA decay {self.ema_decay:g}: must be in [0, 1)")
        if self.seed < 0:
            raise UserError(f"seed {self.seed}: must be at least 0")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning rate {self.learning_rate:g}: must be a number above 0")
        if not 0 < self.backbone_rate <= 1:
            raise UserError(f"backbone rate {self.backbone_rate:g}: must be in (0, 1]")
        for name in ("momentum", "label_smoothing", "colour"):
            if not 0 <= getattr(self, name) < 1:
                words = name.replace("_", " ")
                raise UserError(f"{words} {getattr(self, name):g}: must be in [0, 1)")
        for name in ("mix", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name):g}: a probability, 0 to 1")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature {self.temperature:g}: must be a number above 0")
        for name in (
            "weight_decay", "auxiliary_weight", "warmup_steps", "soft_weight", "feature_weight",
            "blur",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                words = name.replace("_", " ")
                raise UserError(f"{words} {getattr(self, name):g}: must be at least 0")
        if not 1 <= self.auxiliary_every <= 8:
            raise UserError(f"auxiliary every {self.auxiliary_every}: must be 1 to 8")
        if self.nesterov and not self.momentum:
            raise UserError("Nesterov momentum needs a momentum above 0, e.g. 0.9")

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation that is asked for."""
        return Augmentation(
            scale=self.scale, colour=self.colour, mix=self.mix, blur=self.blur, grey=self.grey
        )

    @property
    def element_size(self) -> int:
        """Bytes of one activation."""
        return {"bfloat16": 2, "float32": 4, "float64": 8}[self.precision]

    def loss(
        self,
        class_weights: tuple[float, ...] | None,
        auxiliary: tuple[Auxiliary, ...] | None = None,
    ) -> BoostedLoss:
        """The loss that is asked for; with the `auxiliary` outputs of another network than ours."""
        pixel = PixelLoss(class_weights, self.label_smoothing, self.ohem)
        ours = (Auxiliary(self.auxiliary_weight),) * 2
        return BoostedLoss(pixel, ours if auxiliary is None else auxiliary, self.auxiliary_every)

    def distillation(self) -> DistillationLoss:
        """The loss against a teacher."""
        return DistillationLoss(self.soft_weight, self.temperature, self.feature_weight)


@dataclass(frozen=True)
class TrainConfig(Learning):
    """How which network learns on which data set, in stages one after the other."""

    model: str
    data: str
    stages: tuple[Stage, ...]
    teacher: str | None = None  # network and sha256 of its weights (`Teacher.name`)
    quantise: Quantisation | None = None  # what is simulated (`hmseg.train.quantise`)
    with_validation: bool = False  # learns from the validation split too

    def __post_init__(self) -> None:
        if not self.stages:
            raise UserError("a training run needs at least one stage, e.g. 360x480:8:2000")
        super().__post_init__()
        if self.quantise and self.teacher:
            raise UserError("a teacher is of float training, not of quantised: leave one out")
        if self.quantise and self.precision != "float32":
            raise UserError(
                f"quantised training computes in float32, not in {self.precision}: leave the "
                "precision out"
            )
        if self.teacher is None:
            for f in fields(Learning):
                if f.name in _OF_A_TEACHER and getattr(self, f.name) != f.default:
                    words = f.name.replace("_", " ")
                    raise UserError(f"{words} is of a teacher: name one, or leave it out")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return sum(stage.steps for stage in self.stages)

    def pixels_after(self, step: int) -> int:
        """Pixels of all crops of the first `step` steps: what a run's time grows with."""
        pixels = 0
        for stage in self.stages:
            taken = min(step, stage.steps)
            pixels += taken * stage.batch * stage.crop[0] * stage.crop[1]
            step -= taken
        return pixels

    @property
    def schedule(self) -> str:
        """The stages as they are written: ``HxW:BATCH:STEPS,...``."""
        return ",".join(str(stage) for stage in self.stages)

    def batches(self, start: int = 0) -> Iterator[BatchSpec]:
        """The batches from step `start` to the end."""
        return islice(self._all_batches(), start, None)

    def _all_batches(self) -> Iterator[BatchSpec]:
        first = 0
        for stage in self.stages:
            for _ in range(stage.steps):
                yield BatchSpec(first, stage.batch, stage.crop)
                first += stage.batch

    def learning_rate_at(self, step: int) -> float:
        """Poly schedule after a linear warm-up; `step` counts from 0."""
        poly: float = (1 - step / self.steps) ** self.poly_power
        return self.learning_rate * poly * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def continues(self, other: "TrainConfig", step: int) -> bool:
        """Whether a run of `other` that has taken `step` steps may go on under this config.

        All is equal but the stages, and those agree on every batch so far: what is left may be
        made longer or shorter.
        """
        same_start = self._taken(step) == other._taken(step)
        return same_start and replace(self, stages=other.stages) == other

    def _taken(self, step: int) -> list[Stage]:
        """The stages of the first `step` steps; what follows on its like is one with it."""
        taken: list[Stage] = []
        for stage in self.stages:
            part = replace(stage, steps=min(step, stage.steps))
            step -= part.steps
            if taken and (taken[-1].crop, taken[-1].batch) == (part.crop, part.batch):
                taken[-1] = replace(part, steps=taken[-1].steps + part.steps)
            elif part.steps:
                taken.append(part)
        return taken

    def images_after(self, step: int) -> int:
        """Images of the first `step` steps."""
        return sum(stage.batch * stage.steps for stage in self._taken(step))

    def difference(self, other: "TrainConfig") -> str:
        """The first thing in which another run differs, in words."""
        theirs = other.to_dict()
        # The stages last: those that are left may differ (`continues`).
        for name, value in sorted(self.to_dict().items(), key=lambda item: item[0] == "stages"):
            if value != theirs.get(name):
                return f"{name.replace('_', ' ')}: {theirs.get(name)} there, {value} here"
        for name in theirs.keys() - self.to_dict().keys():
            return f"{name.replace('_', ' ')}: {theirs[name]} there, None here"
        return "nothing"

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        stages = [str(stage) for stage in self.stages]
        own = {field.name: getattr(self, field.name) for field in fields(Learning)}
        own["with_validation"] = self.with_validation
        asked = {"teacher": self.teacher, "quantise": self.quantise}
        asked = {name: value for name, value in asked.items() if value}
        return {"model": self.model, "data": self.data, "stages": stages, **asked, **own}

    def to_json(self) -> str:
        """JSON that `from_json` reads back to an equal config."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> "TrainConfig":
        """Read `to_json`'s form; raises UserError where it is something else."""
        try:
            fields: dict[str, Any] = parse_json(text)
            stages = tuple(Stage.parse(stage) for stage in fields.pop("stages"))
            low, high = (float(end) for end in fields.pop("scale"))
            check_types(TrainConfig, fields)
            fields["precision"] = read_precision(fields["precision"])
            fields["optimizer"] = read_optimizer(fields["optimizer"])
            if "quantise" in fields:
                fields["quantise"] = read_quantisation(fields["quantise"])
            return TrainConfig(stages=stages, scale=(low, high), **fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"not the configuration of a training run ({error})") from error
