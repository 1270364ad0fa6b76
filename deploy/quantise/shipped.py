"""The scales that ship with released weights, so that int8 of these asks for no frames.

A file hmseg/weights/int8/NAME-DATA.json, made by ``python -m benchmarks.release_scales``: the grid
of each map by its name in the exported graph, and the digest of the weights that they are of.
Scales are of one resolution and used at any: what they do at another is looked at on a drawn
street.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hmseg
from deploy.grid import Grid
from lut.errors import UserError, WorkError
from lut.files import write_atomic
from lut.json_text import parse_json

if TYPE_CHECKING:
    from deploy.graph.source import Source
    from deploy.quantise.places import Places

FOLDER = Path(hmseg.__file__).parent / "weights" / "int8"
IMAGE = "image"
_CALIBRATE = "find some of your own: --calibrate FOLDER"


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
    maps: Mapping[str, Grid]
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


def read_scales(model: str, data: str, folder: Path = FOLDER) -> ShippedScales:
    """Raises UserError where there are none, and for a damaged file."""
    path = folder / f"{model}-{data}.json"
    try:
        found = parse_json(path.read_text())
        maps = {name: Grid(**grid) for name, grid in found.pop("maps").items()}
        return ShippedScales(**found | {"kept": tuple(found["kept"]), "maps": maps})
    except FileNotFoundError:
        raise UserError(f"no scales ship for {model}'s {data} weights; {_CALIBRATE}") from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); install hmseg again") from error


def keys_of(places: "Places") -> dict[str, str]:
    """What maps are called in the file: the image's, whose name depends on the end, `IMAGE`, all
    others as in the graph."""
    return {name: IMAGE if name in places.of_image else name for name in places.maps}


def with_shipped(
    source: "Source",
    threads: int,
    progress: Callable[[str], None] = lambda _: None,
    folder: Path = FOLDER,
) -> "tuple[Source, str]":
    """A source with released weights in 8 bits by the scales that ship with these, and what that
    does, in words. Raises UserError where there are no scales of exactly these weights and this
    graph, WorkError where labels of a drawn street are too often not float32's."""
    from deploy.graph.ends import with_logits_output
    from deploy.graph.reference import OnnxSession
    from deploy.images import to_channels
    from deploy.quantise.frames import Frames
    from deploy.quantise.gate import LEAST_EQUAL
    from deploy.quantise.judge import Judge
    from deploy.quantise.pairs import with_pairs
    from deploy.quantise.places import find_places
    from deploy.quantise.wiring import Wiring
    from deploy.street import draw_street

    assert source.released is not None
    model, data, digest = source.released
    scales = read_scales(model, data, folder)
    if scales.weights != digest:
        raise UserError(
            f"the scales that ship for {model} are of other weights than its {data} ones; "
            f"install hmseg again, or {_CALIBRATE}"
        )
    places = find_places(Wiring(source.graph.graph), scales.kept)
    keys = keys_of(places)
    if set(keys.values()) != set(scales.maps):
        raise UserError(
            f"the scales that ship for {model} are of another graph than is exported here (by "
            f"another version of torch?); {_CALIBRATE}"
        )
    grids = {name: scales.maps[key] for name, key in keys.items()}
    graph = with_pairs(source.graph, places, grids)
    progress("comparing with fp32 on a drawn street")
    metadata = source.metadata
    street = to_channels(draw_street(metadata.resolution), metadata.channels)
    frames = Frames.of_image(street, metadata)
    judge = Judge(frames, threads)
    reference = OnnxSession(with_logits_output(source.graph), threads=threads)
    judge.show(0, reference.run(frames.given(0)))
    figures = judge.figures(graph, [0])
    said = (
        f"int8 by the scales that ship with its {data} weights ({scales.frames} frames of "
        f"{scales.resolution}); of a drawn street {figures.equal:.2%} of the labels are equal to "
        f"fp32's, {figures.equal_clear:.2%} where they are no tie"
    )
    if figures.equal_clear < LEAST_EQUAL:
        raise WorkError(
            f"{model} at {metadata.resolution}: {said}, where {LEAST_EQUAL:.0%} have to be; "
            f"{_CALIBRATE}"
        )
    return replace(source, quantised=graph), said
