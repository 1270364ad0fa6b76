"""The paper's tables and figures by name: which rows each one has, and what is measured for it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from deploy.paper.jobs import Job
from deploy.paper.printed import HD, TABLE_1, TABLE_2, TABLE_3, TABLE_4, Note, Row
from deploy.resolution import Resolution, parse_resolution
from lut.errors import UserError

Kind = Literal["table", "devices", "latency", "parts", "stages", "resolutions"]


@dataclass(frozen=True)
class View:
    """A table or a figure. `remarks` hold for all of it."""

    name: str
    title: str
    kind: Kind
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()

    def jobs(self, row: Row) -> list[Job]:
        """What has to be measured for a row; nothing where counts say it all, or nothing can."""
        if row.network is None or self.kind == "parts":
            return []
        return [
            Job(row.network, parse_resolution(size), row.classes, profiled=self.kind == "stages")
            for size in row.sizes
        ]


_PRINT = (
    "The paper's latency of each peer is 1000 / FPS of that peer's own paper, from another card "
    "and other software each: none of them was measured beside the others.",
    "Its mIoU mixes test figures with validation figures.",
)
_SEED = "mIoU: this project's own short schedule on CamVid (docs/results.md, Table 6's rows)"


def _searched(key: str, label: str, genotype: str, miou: str) -> Row:
    mean, seeds = miou.split(" over ")
    note = Note("miou", f"the mean over {seeds} of the training")
    return Row(key, label, f"width 0.5 | {genotype}", ("256x512",), notes=(note,), miou=mean)


_TABLE_6 = (
    _searched(
        "hand", "none: MRMS at half width",
        "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k3 e6k3 e6k3 skip | s4a e6k3 e6k3 e6k3 e6k3 | "
        "s4b e6k3 e6k3 e6k3 skip | s5a e6k3 e6k3 e6k3 skip | s5b e6k3 | 0.5 0.5",
        "19.6 over three seeds",
    ),
    _searched(
        "o", "operators",
        "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k3 e6k3 e6k3 skip | s4a e6k3 e6k3 e6k3 e6k7 | "
        "s4b e6k3 e6k3 e6k3 skip | s5a e6k7 e1k7 e6k3 skip | s5b e6k3 | 0.5 0.5",
        "15.8 over three seeds",
    ),
    _searched(
        "o+r", "operators, resolution",
        "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k3 e6k3 e3k7 skip | s4a e6k3 e6k3 e6k3 e6k3 | "
        "s4b e6k7 e6k3 e6k3 skip | s5a e6k3 e6k3 e1k3 skip | s5b e6k3 | 0.5 0.5",
        "20.7 over three seeds",
    ),
    _searched(
        "d", "depth",
        "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k3 e6k3 e6k3 skip | s4a e6k3 e6k3 e6k3 e6k3 | "
        "s4b e6k3 e6k3 e6k3 skip | s5a e6k3 e6k3 skip skip | s5b e6k3 | 0.5 0.5",
        "22.1 over three seeds",
    ),
    _searched(
        "d+r", "depth, resolution",
        "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k3 e6k3 e6k3 skip | s4a e6k3 e6k3 e6k3 e6k3 | "
        "s4b e6k3 e6k3 e6k3 skip | s5a e6k3 skip skip skip | s5b e6k3 | 0.5 0.6",
        "23.0 over two seeds",
    ),
    _searched(
        "o+d+r", "operators, depth, resolution",
        "s1 e1k3 | s2 e6k3 e6k3 skip skip | s3 e6k3 e6k3 e6k3 skip | s4a e6k3 e6k3 e6k3 e6k3 | "
        "s4b e6k3 e3k5 e6k3 e1k7 | s5a e6k7 e6k3 e3k3 skip | s5b e6k3 | 0.5 0.5",
        "21.0 over three seeds",
    ),
)  # fmt: skip
_OF_TABLE_1 = {row.key: row for row in TABLE_1}
_TABLE_5 = tuple(
    _OF_TABLE_1[key] for key in ("fast-scnn", "dfanet", "bisenet", "mrms", "tiny-mrms", "hmseg",
                                 "tiny-hmseg")
)  # fmt: skip
_FIGURE_1 = (
    Row("deeplabv3plus", "DeepLabv3+ MobileNetV2", "deeplabv3plus-mobilenet-v2", HD),
    Row("deeplabv3plus-separable", "DeepLabv3+ MobileNetV2, separable",
        "deeplabv3plus-mobilenet-v2-separable", HD),
    Row("deeplabv3", "DeepLabv3 MobileNetV2, no decoder", "deeplabv3-mobilenet-v2", HD),
    Row("bisenet", "BiSeNet Xception39", "bisenetv1-x39", HD),
    Row("bisenet-r18", "BiSeNet ResNet-18", "bisenetv1-r18", HD),
    Row("swiftnet", "SwiftNet MobileNetV2", "swiftnet-mnv2", HD),
    Row("swiftnet-r18", "SwiftNet ResNet-18", "swiftnet-r18", HD),
    Row("df1-seg", "DF1-Seg", "df1-seg", HD),
    Row("mrms", "MRMS", "mrms", HD),
    Row("tiny-mrms", "TinyMRMS", "tiny-mrms", HD),
)  # fmt: skip
_FIGURE_2 = tuple(
    replace(row, sizes=("768x1536", "384x768")) for row in _FIGURE_1
    if row.key in ("deeplabv3plus", "deeplabv3", "mrms", "tiny-mrms")
)  # fmt: skip
# Frames of 360, 720 and 1080 lines, the last two padded to what networks' strides divide, as the
# first is for those that do not take it; and the sizes of Table 1.
_SIZES = (
    "360x640",
    "384x640",
    "512x1024",
    "768x1280",
    "1024x1024",
    "768x1536",
    "1088x1920",
    "1024x2048",
)
_FIGURE_6 = tuple(replace(row, sizes=_SIZES) for row in _TABLE_5)

VIEWS = {
    view.name: view
    for view in (
        View("table1", "Table 1: Cityscapes", "table", TABLE_1, _PRINT),
        View("table2", "Table 2: CamVid", "table", TABLE_2, (
            "The rows are those peers whose counts at this size are known; of the print only "
            "BiSeNet's mIoU is known here.",)),
        View("table3", "Table 3: LIP", "table", TABLE_3),
        View("table4", "Table 4: context fusion and global enhancement", "table", TABLE_4),
        View("table5", "Table 5: devices", "devices", _TABLE_5, (
            "Every machine that the records know: run it here, with --device and with --target "
            "cuda, into one folder.",)),
        View("table6", "Table 6: what is searched, at equal latency", "latency", _TABLE_6, (
            _SEED + ", of what searches within one budget of latency found: differences below some "
            "5 points say nothing.",)),
        View("figure1", "Figure 1: backbone and head", "parts", _FIGURE_1, (
            "The paper draws three typical networks, of which DeepLabv3+ on MobileNetV2 and "
            "BiSeNet are known; which variants is not, so all are here.",
            "BiSeNet's spatial path, which no other network could lend it, counts to its head.")),
        View("figure2", "Figure 2: time of the stages", "stages", _FIGURE_2, (
            "A stage is the size of a kernel's output, as a part of the image's; the first kernel "
            "that enlarges begins what joins the stages. A kernel that computes several sizes "
            "counts to its last, a pyramid on the last stage's map to that stage.",)),
        View("figure6", "Figure 6: speed and resolution", "resolutions", _FIGURE_6, (
            "384x640, 768x1280 and 1088x1920 are frames of 360, 720 and 1080 lines, padded to "
            "multiples of 64 or 32; the other sizes are those of Table 1.",)),
    )
}  # fmt: skip
ALL = "all"


def choose_views(
    names: Sequence[str], rows: Sequence[str] = (), resolution: Resolution | None = None
) -> list[View]:
    """The views of these names, each once, in the paper's order; with only these rows, and all at
    one resolution, where given.

    Raises UserError for an unknown name, for a row that none of them has, and for none at all.
    """
    if not names:
        raise UserError(f"name what to make: {', '.join((*VIEWS, ALL))}")
    for name in names:
        if name not in VIEWS and name != ALL:
            raise UserError(_unknown("table or figure", name, [*VIEWS, ALL]))
    views = [view for view in VIEWS.values() if view.name in names or ALL in names]
    known = list(dict.fromkeys(row.key for view in views for row in view.rows))
    for key in rows:
        if key not in known:
            raise UserError(_unknown("row", key, known))
    chosen = []
    for view in views:
        kept = [row for row in view.rows if not rows or row.key in rows]
        if resolution is not None:
            kept = [replace(row, sizes=(str(resolution),)) for row in kept]
        remarks = view.remarks
        if resolution is not None:
            remarks += (f"All at {resolution}: the print is at the paper's own sizes.",)
        if kept:
            chosen.append(replace(view, rows=tuple(kept), remarks=remarks))
    return chosen


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown {what} {name!r}: {hint}there are {', '.join(known)}"
