"""From a float graph and frames to the same graph in 8 bits."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx

from deploy.graph.ends import with_logits_output
from deploy.grid import Grid
from deploy.quantise.frames import Frames
from deploy.quantise.gate import LEAST_EQUAL, MOST_MIOU_LOSS, allowed, passes
from deploy.quantise.judge import Figures, Judge
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import Places, find_layers, find_places, matching
from deploy.quantise.probe import see_ends, see_maps
from deploy.quantise.ranges import METHODS, MIN_MAX, Seen, error_of, ranges_of
from deploy.quantise.report import MapRange, Report, Way
from deploy.quantise.request import is_quantised
from deploy.quantise.scales import grid_of
from deploy.quantise.sensitivity import FRAMES, Sensitivity, scan, worst
from deploy.quantise.wiring import Wiring
from lut.errors import UserError, WorkError

BEST = "each map's best"
_NO_LABEL = "no pixel of the masks has a label that counts: what is equal to fp32's decides"
_JUDGED = 16  # frames that ways to find ranges are compared on


@dataclass(frozen=True)
class Options:
    """`keep` names layers that stay wide (`deploy.quantise.places.matching`); `max_miou_loss` is
    the gate's, in points, of labelled frames; `sensitivity` asks for the scan even where the gate
    passes; `threads` are onnxruntime's. Without `gate` nothing is kept or refused for what it
    loses: for timing networks that nobody trained, whose scores are near ties everywhere."""

    keep: tuple[str, ...] = ()
    max_miou_loss: float | None = None
    sensitivity: bool = False
    threads: int | None = None
    gate: bool = True


@dataclass(frozen=True)
class QuantisedGraph:
    """A graph with pairs of QuantizeLinear and DequantizeLinear, and what they cost."""

    graph: onnx.ModelProto
    report: Report


def quantise(
    model: onnx.ModelProto,
    frames: Frames,
    options: Options = Options(),
    progress: Callable[[str], None] = lambda _: None,
) -> QuantisedGraph:
    """Quantise a deployable graph (both ends, float32) by what its maps hold on frames.

    The ranges are found in three ways, and by the way that changes each map the least; whichever
    network of these has scores nearest to float32's is taken. Where it loses more than the gate
    allows, a scan says which layers hurt, and more and more of them are kept wide.

    Raises UserError for a graph that is quantised already or has nothing to quantise, names of
    layers that are not there, a limit of mIoU without labels, and frames that cannot be read;
    WorkError where the gate fails with half of the layers kept.
    """
    check_quantisable(model, options.keep)
    run = _Run(model, frames, options, progress)
    return run.quantised()


def check_quantisable(model: onnx.ModelProto, keep: Collection[str]) -> None:
    """Raise UserError for a graph that is quantised already or would have nothing in 8 bits, and
    for names of layers that are not there. Takes no time."""
    if is_quantised(model):
        raise UserError("the network is quantised already: its own scales count; calibrate none")
    layers = find_layers(Wiring(model.graph))
    if len(matching(layers, keep)) == len(layers):
        many = "every layer is kept" if layers else "it has no layer with fixed weights"
        raise UserError(f"nothing of this network would be in 8 bits: {many}")


def limit_of(
    frames: Frames, max_miou_loss: float | None, fp32: Figures | None = None
) -> float | None:
    """The points of mIoU that may be lost on frames, where they have labels; None where the labels
    that are equal decide. `fp32` says, where it is known, whether a pixel of the masks counts.
    Raises UserError for a limit of mIoU without labels."""
    if frames.labelled and (fp32 is None or fp32.miou is not None):
        return MOST_MIOU_LOSS if max_miou_loss is None else max_miou_loss
    if max_miou_loss is not None:
        none = " (no pixel of these has one that counts)" if frames.labelled else ""
        raise UserError(
            f"--max-miou-loss goes with frames that have labels beside them{none}; without, "
            f"{LEAST_EQUAL:.0%} of the labels are to be equal to fp32's"
        )
    return None


class _Run:
    def __init__(
        self, model: onnx.ModelProto, frames: Frames, options: Options,
        progress: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._model, self._frames, self._options = model, frames, options
        self._progress = progress
        self._limit = limit_of(frames, options.max_miou_loss)
        self._notes = frames.notes
        self._wiring = Wiring(model.graph)
        self._layers = find_layers(self._wiring)
        self._kept = matching(self._layers, options.keep)
        self._judge = Judge(frames, options.threads)
        self._all = list(range(len(frames)))

    def quantised(self) -> QuantisedGraph:
        """The whole way."""
        seen = self._see()
        ways = self._ways(seen)
        tried = self._try(ways)
        best = min(tried, key=lambda choice: choice.figures.score_error)
        maps = ways[best.ranges]
        grids = {name: found.grid for name, found in maps.items()}
        fp32 = self._judge.float_figures(self._all)
        self._limit = limit_of(self._frames, self._options.max_miou_loss, fp32)
        if self._frames.labelled and self._limit is None:
            self._notes = (*self._notes, _NO_LABEL)
        graph, figures = self._build(grids, self._kept, self._all)
        int8 = Way(best.ranges, self._named(self._kept), figures)
        table: tuple[Sensitivity, ...] = ()
        raised: list[Way] = []
        passed = not self._options.gate or passes(fp32, figures, self._limit)
        # Half of all layers at most, so that what passes is in 8 bits.
        more = len(self._layers) // 2 - len(self._kept)
        if self._options.sensitivity or (not passed and more > 0):
            free = [layer for layer in self._layers if layer.name not in self._kept]
            few = self._frames.spread(FRAMES)
            table = scan(self._model, free, grids, self._judge, few, self._progress)
        if not passed and more > 0:
            graph, int8 = self._keep_more(best.ranges, grids, table, fp32, raised, more)
        report = Report(
            len(self._frames), len(self._layers), fp32, int8, tried, maps, self._limit,
            tuple(raised), table, self._notes,
        )  # fmt: skip
        if self._options.gate and not report.passed:
            raise WorkError(
                f"int8 is not near enough to fp32: {report.lines()[-1]}; {allowed(self._limit)}, "
                "with at most half of the layers kept wide"
            )
        return QuantisedGraph(graph, report)

    def _see(self) -> dict[str, Seen]:
        """What all maps that may have a pair hold; those that have one scale hold the same."""
        places = self._places(frozenset())
        graph = with_logits_output(self._model)
        seen = see_maps(
            graph, places.maps, self._frames, threads=self._options.threads,
            on_frame=self._judge.show, progress=self._progress,
        )  # fmt: skip
        ends = [name for name in places.maps if name in places.of_image]
        seen |= see_ends(graph, ends, self._frames, seen)
        for group in places.shared:
            together = seen[group[0]]
            for name in group[1:]:
                together = together.merged(seen[name])
            seen |= dict.fromkeys(group, together)
        return seen

    def _ways(self, seen: Mapping[str, Seen]) -> dict[str, dict[str, MapRange]]:
        """The ranges by each method, and by the best for each map. What is the image's alone has
        its whole range."""
        self._progress("finding ranges")
        of_image = self._places(frozenset()).of_image
        ways: dict[str, dict[str, MapRange]] = {name: {} for name in (*METHODS, BEST)}
        known: dict[int, dict[str, MapRange]] = {}  # groups have one `Seen`
        for name, one in seen.items():
            if id(one) not in known:
                ranges = ranges_of(one)
                errors = {method: error_of(one, found) for method, found in ranges.items()}
                known[id(one)] = {
                    method: MapRange(method, found.low, found.high, grid_of(found), errors)
                    for method, found in ranges.items()
                }
            by_method = known[id(one)]
            if name in of_image:
                by_method = dict.fromkeys(METHODS, by_method[MIN_MAX])
            for method in METHODS:
                ways[method][name] = by_method[method]
            least = min(METHODS, key=lambda method: by_method[method].errors[method])
            ways[BEST][name] = by_method[least]
        return ways

    def _try(self, ways: Mapping[str, Mapping[str, MapRange]]) -> tuple[Way, ...]:
        tried, few = [], self._frames.spread(_JUDGED)
        for way, maps in ways.items():
            self._progress(f"comparing with fp32: ranges by {way}")
            grids = {name: found.grid for name, found in maps.items()}
            figures = self._build(grids, self._kept, few)[1]
            tried.append(Way(way, self._named(self._kept), figures))
        return tuple(tried)

    def _keep_more(
        self, ranges: str, grids: Mapping[str, Grid], table: tuple[Sensitivity, ...],
        fp32: Figures, raised: list[Way], most: int,
    ) -> tuple[onnx.ModelProto, Way]:  # fmt: skip
        """With 1, 2, 4 ... of the layers that hurt most kept wide, `most` at most."""
        many = 1
        while True:
            more = worst(table, self._kept, many)
            kept = self._kept | frozenset(more)
            self._progress(f"comparing with fp32: {len(kept)} layers kept wide")
            graph, figures = self._build(grids, kept, self._all)
            raised.append(Way(ranges, self._named(kept), figures))
            if passes(fp32, figures, self._limit) or 2 * many > most:
                return graph, raised[-1]
            many *= 2

    def _build(
        self, grids: Mapping[str, Grid], kept: frozenset[str], indices: list[int]
    ) -> tuple[onnx.ModelProto, Figures]:
        graph = with_pairs(self._model, self._places(kept), grids)
        return graph, self._judge.figures(graph, indices)

    def _places(self, kept: frozenset[str]) -> Places:
        return find_places(self._wiring, kept)

    def _named(self, kept: frozenset[str]) -> tuple[str, ...]:
        """In the network's order."""
        return tuple(layer.name for layer in self._layers if layer.name in kept)
