"""Which entries of the latency table the launches of a frame belong to.

An entry of the table is what the CPU's compiler makes one kernel of; on a GPU each is one to six
kernels, launched one after the other.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from deploy.gpu.kernels.depthwise import DepthwiseSpec
from deploy.gpu.kernels.global_mean import GlobalMeanSpec
from deploy.gpu.kernels.label_end import LabelEndSpec
from deploy.gpu.kernels.pointwise import PointwiseSpec
from deploy.gpu.kernels.resize import ResizeSpec
from deploy.gpu.kernels.stem import StemSpec
from lut.errors import WorkError
from lut.key import OpKey

Specs = list[Any]


def kernels_of(key: OpKey) -> Specs:
    """The specs of the kernels that an entry is, in the order of their launches."""
    return _KINDS[key.op](key)


def entries_of(specs: Sequence[str], keys: Sequence[OpKey]) -> list[OpKey]:
    """The entries of a frame in the order of their launches, which `kernels_of` counts.

    `specs` are those of the launches, as text; `keys` the entries that the network is the sum of,
    its layers in their order. Raises WorkError where the launches are not those of the entries.
    """
    left = [(key, [repr(spec) for spec in kernels_of(key)]) for key in keys]
    found: list[OpKey] = []
    start = 0
    while start < len(specs):
        place = next(
            (i for i, (_, own) in enumerate(left) if list(specs[start : start + len(own)]) == own),
            None,
        )
        if place is None:
            raise WorkError(f"the latency table has no entry for the kernel {specs[start]}")
        key, own = left.pop(place)
        found.append(key)
        start += len(own)
    if left:
        raise WorkError(f"the network launches nothing for its entry '{left[0][0]}'")
    return found


def _stem(channels: int, key: OpKey) -> StemSpec:
    return StemSpec(channels, key.height, key.width)


def _block(
    cin: int, hidden: int, cout: int, kernel: int, stride: int, dilation: int,
    height: int, width: int,
) -> Specs:  # fmt: skip
    """[1x1] depthwise 1x1 [+ input]."""
    expansion = [PointwiseSpec(cin, hidden, height, width, "relu6")] if hidden != cin else []
    filtered = DepthwiseSpec(hidden, height, width, kernel, stride, dilation, "relu6")
    add: Literal["map", "none"] = "map" if stride == 1 and cin == cout else "none"
    return [*expansion, filtered, PointwiseSpec(hidden, cout, *filtered.out, add=add)]


def _stem_block(key: OpKey) -> Specs:
    stem = _stem(key.hidden, key)
    return [stem, *_block(key.hidden, key.hidden, key.cout, key.kernel, 1, 1, *stem.out)]


def _stem_pair(key: OpKey) -> Specs:
    stem = _stem(key.first_hidden, key)
    hidden, stride = key.first_hidden, key.stride // 2
    return [
        stem,
        *_block(hidden, hidden, key.cin, key.first_kernel, 1, 1, *stem.out),
        *_block(key.cin, key.hidden, key.cout, key.kernel, stride, key.dilation, *stem.out),
    ]


def _inverted_residual(key: OpKey) -> Specs:
    return _block(
        key.cin, key.hidden, key.cout, key.kernel, key.stride, key.dilation, key.height, key.width
    )


def _classifier(key: OpKey) -> Specs:
    filtered = DepthwiseSpec(key.cin, key.height, key.width, key.kernel, act="relu6")
    return [filtered, PointwiseSpec(key.cin, key.cout, *filtered.out)]


def _context(key: OpKey) -> Specs:
    # Of a map of one pixel, one value per channel is a map.
    add: Literal["map", "channel"] = "map" if key.height == key.width == 1 else "channel"
    return [
        GlobalMeanSpec(key.cin, key.height, key.width),
        PointwiseSpec(key.cin, key.cout, 1, 1),
        PointwiseSpec(key.cin, key.cout, key.height, key.width, add=add),
    ]


def _gate(key: OpKey) -> Specs:
    return [
        GlobalMeanSpec(key.cin, key.height, key.width),
        PointwiseSpec(key.cin, key.cout, 1, 1, "sigmoid"),
    ]


def _upsample_add(key: OpKey) -> Specs:
    low = key.other_height, key.other_width
    return [PointwiseSpec(key.cin, key.cout, key.height, key.width, add="low", low=low)]


def _local_global(key: OpKey) -> Specs:
    size, low = (key.height, key.width), (key.other_height, key.other_width)
    return [
        PointwiseSpec(key.cin, key.hidden, *size, "relu6", gate=True, add="low", low=low),
        PointwiseSpec(key.hidden, key.cout, *size, "relu6"),
    ]


def _sizes(key: OpKey) -> tuple[int, int, int, int]:
    return key.height, key.width, key.other_height, key.other_width


_KINDS: dict[str, Callable[[OpKey], Specs]] = {
    "stem": lambda key: [_stem(key.cout, key)],
    "stem_block": _stem_block,
    "stem_pair": _stem_pair,
    "inverted_residual": _inverted_residual,
    "classifier": _classifier,
    "resize": lambda key: [ResizeSpec(key.cin, *_sizes(key))],
    "context": _context,
    "upsample_add": _upsample_add,
    "depthwise": lambda key: [
        DepthwiseSpec(key.cin, key.height, key.width, key.kernel, key.stride, key.dilation, "relu6")
    ],
    "gate": _gate,
    "local_global": _local_global,
    "labels": lambda key: [LabelEndSpec(key.cin, *_sizes(key))],
}
