"""The files of the scales that ship with released weights: hmseg/weights/int8/NAME-DATA.json, made
by ``python -m benchmarks.release_scales``. The grid of each map by its name in the exported graph,
and the digest of the weights that they are of. Light to import."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lut.errors import UserError
from lut.files import write_atomic
from lut.json_text import parse_json

if TYPE_CHECKING:
    from deploy.graph.source import Source
    from deploy.grid import Grid

FOLDER = Path(__file__).parents[2] / "hmseg" / "weights" / "int8"
CALIBRATE = "find some of your own: --calibrate FOLDER"


@dataclass(frozen=True)
class ShippedScales:
    """Of the weights of `model` that were trained on `data`, whose file has the SHA-256 `weights`:
    the grids of maps, and the layers that are `kept` wide. `made_with` says by what."""

    model: str
    data: str
    weights: str
    resolution: str
    frames: int
    kept: tuple[str, ...]
    maps: "Mapping[str, Grid]"
    made_with: Mapping[str, Any]

    def save(self, folder: Path = FOLDER) -> Path:
        """Write the file; its path."""
        path = folder / f"{self.model}-{self.data}.json"
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, (json.dumps(asdict(self), indent=1) + "\n").encode())
        return path


def has_scales(model: str, folder: Path = FOLDER) -> bool:
    """Whether scales ship for a name of the zoo."""
    return any(path.stem.rsplit("-", 1)[0] == model for path in folder.glob("*.json"))


def ships_with(source: "Source") -> bool:
    """Whether a source has released weights that scales ship for."""
    return source.released is not None and has_scales(source.released.model)


def read_scales(model: str, data: str, folder: Path = FOLDER) -> ShippedScales:
    """Raises UserError where there are none, and for a damaged file."""
    from deploy.grid import Grid  # late: NumPy

    path = folder / f"{model}-{data}.json"
    try:
        found = parse_json(path.read_text())
        maps = {name: Grid(**grid) for name, grid in found.pop("maps").items()}
        return ShippedScales(**found | {"kept": tuple(found["kept"]), "maps": maps})
    except FileNotFoundError:
        raise UserError(f"no scales ship for {model}'s {data} weights; {CALIBRATE}") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); install hmseg again") from error
