"""Released weights: NAME-DATA.safetensors and its model card NAME-DATA.json in hmseg/weights/."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hmseg.mend import Train
from lut.errors import UserError
from lut.files import write_atomic
from lut.json_text import parse_json

FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Released:
    """The tensors of a released network and what its card says about them."""

    tensors: dict[str, Tensor]
    card: dict[str, Any]

    @property
    def num_classes(self) -> int:
        """Classes that the weights were trained for."""
        return len(self.card["classes"])


def list_released(folder: Path = FOLDER) -> list[tuple[str, str]]:
    """Every (model, data) that has weights."""
    return [tuple(card.stem.rsplit("-", 1)) for card in sorted(folder.glob("*.json"))]  # type: ignore[misc]


def load_released(name: str, data: str, folder: Path = FOLDER) -> Released:
    """Read the weights of model `name` trained on `data`, checked against the card's sha256.

    Raises UserError, with what there is instead, where there are none or they are damaged.
    """
    if (name, data) not in list_released(folder):
        there = [f"{model} on {on}" for model, on in list_released(folder)]
        raise UserError(
            f"there are no {data!r} weights of {name} (released: {', '.join(there) or 'none'}); "
            "begin without them, or train them", mend=Train(name, data),
        )  # fmt: skip
    path = folder / f"{name}-{data}.safetensors"
    try:
        card = parse_json(path.with_suffix(".json").read_text())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise UserError(f"{path}: damaged (its sha256 is not the card's); install hmseg again")
        return Released(load(content), card)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({error}); install hmseg again") from error


def save_released(
    name: str, data: str, tensors: dict[str, Tensor], card: dict[str, Any], folder: Path = FOLDER
) -> Path:
    """Write weights and card; `card` needs at least `classes`. Returns the weights' path."""
    path = folder / f"{name}-{data}.safetensors"
    content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    write_atomic(path, content)
    full = {"model": name, "data": data} | card | {"sha256": hashlib.sha256(content).hexdigest()}
    write_atomic(path.with_suffix(".json"), json.dumps(full, indent=2) + "\n")
    return path
