"""A network in parts: backbone and head by counts (Figure 1), stages by time (Figure 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import nn

from deploy.paper.networks import shape
from deploy.resolution import Resolution
from hmseg.count import AUXILIARY_PREFIX, macs_by_layer
from hmseg.mrms import MRMS
from lut.errors import UserError
from lut.ops import parse_operation

# The modules that are the backbone; all else is the head. Of BiSeNet, whose spatial path is no
# backbone that could be taken from elsewhere, the context path's.
BACKBONES: Mapping[str, tuple[str, ...]] = {
    "bisenetv1-r18": ("backbone",),
    "bisenetv1-x39": ("backbone",),
    "deeplabv3-mobilenet-v2": ("stem", "trunk"),
    "deeplabv3plus-mobilenet-v2": ("fourth", "sixteenth"),
    "deeplabv3plus-mobilenet-v2-separable": ("fourth", "sixteenth"),
    "df1-seg": ("backbone",),
    "swiftnet-mnv2": ("encoder",),
    "swiftnet-r18": ("encoder",),
}
_OURS = ("stem", "stages")
ENLARGED, OTHER = "behind the stages", "without a map"


@dataclass(frozen=True)
class Share:
    """Multiply-accumulates and parameters of a part of a network."""

    macs: int
    parameters: int


@cache
def split(name: str, resolution: Resolution, classes: int) -> tuple[Share, Share]:
    """Backbone and head of a network. Raises UserError for one whose parts are not known."""
    network = shape(name, classes)
    backbone = _OURS if isinstance(network, MRMS) else BACKBONES.get(name)
    if backbone is None:
        raise UserError(f"{name}: which of its modules are the backbone is not known")
    missing = set(backbone) - {child for child, _ in network.named_children()}
    if missing:
        raise UserError(f"{name} has no module {min(missing)!r} any more")
    macs = macs_by_layer(network, *resolution)
    parameters = _parameters(network)
    within, outside = (
        Share(
            sum(n for layer, n in macs.items() if (_top(layer) in backbone) is inside),
            sum(n for layer, n in parameters.items() if (_top(layer) in backbone) is inside),
        )
        for inside in (True, False)
    )
    return within, outside


def _parameters(network: nn.Module) -> dict[str, int]:
    return {
        name: p.numel()
        for name, p in network.named_parameters()
        if not name.startswith(AUXILIARY_PREFIX)
    }


def _top(name: str) -> str:
    return name.partition(".")[0]


def stages(kernels: Sequence[Mapping[str, Any]], resolution: Resolution) -> dict[str, float]:
    """Milliseconds of a frame's stages, from a profile's kernels in the order of their calls
    (`Profile.to_json`).

    A stage is named by the size of what a kernel gives, as a part of the image's: "1/8". The first
    kernel that gives a larger map than one before it begins what joins the stages: it and all after
    it are `ENLARGED`. Means over a whole map count to the stage before them; what has no map of its
    own (a kernel that TVM made) is `OTHER`.
    """
    found: dict[str, float] = {}
    last, smallest, enlarged = OTHER, resolution.height + 1, False
    for kernel in kernels:
        rows = _rows(kernel["spec"])
        if rows is None:
            where = ENLARGED if enlarged else OTHER
        elif rows == 1 or enlarged:
            where = ENLARGED if enlarged else last
        elif rows > smallest:
            where, enlarged = ENLARGED, True
        else:
            where, smallest = f"1/{round(resolution.height / rows)}", rows
        last = where if where != OTHER else last
        found[where] = found.get(where, 0.0) + float(kernel["median_ms"])
    return found


def _rows(spec: str) -> int | None:
    """Of the map that a kernel gives."""
    no_operation = not spec or spec.startswith("tvm:")
    return None if no_operation else parse_operation(spec).output[1]
