"""Training runs: the log that `hmseg train` writes, loss and validation mIoU over the steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from deploy.report.charts.axes import side_by_side
from deploy.report.charts.xy import Point, Series, xy_chart
from deploy.report.content import Content
from deploy.report.kind import Kind
from deploy.report.markup import Markup, join
from deploy.report.source import Source, article
from deploy.report.table import Cell, folded, number, share, table

_LOG = "/log.jsonl"  # a run's name is its folder's


@dataclass(frozen=True)
class Logged:
    """What is logged every some steps."""

    step: int
    loss: float
    images_per_s: float


@dataclass(frozen=True)
class Evaluated:
    """An evaluation; `iou` by class, without classes that no frame has."""

    step: int
    miou: float
    iou: dict[str, float]


@dataclass(frozen=True)
class TrainingFile:
    """One run, as its log has it."""

    source: Source
    logged: tuple[Logged, ...]
    evaluated: tuple[Evaluated, ...]

    @property
    def best(self) -> Evaluated | None:
        """The best evaluation."""
        return max(self.evaluated, key=lambda e: e.miou, default=None)


def _recognises(content: Content) -> bool:
    first = content.first.keys()
    return first >= {"step", "loss", "trainer_images_per_s"} or first >= {"step", "miou", "iou"}


def _read(content: Content) -> TrainingFile:
    logged, evaluated, times = [], [], []
    for fields in content.fields():
        step = fields.whole("step")
        times.append(fields.text("time", ""))
        if "miou" in fields:
            iou = fields.inside("iou").numbers()
            evaluated.append(Evaluated(step, fields.number("miou"), iou))
        else:
            logged.append(
                Logged(step, fields.number("loss"), fields.positive("trainer_images_per_s"))
            )
    name = content.name.removesuffix(_LOG).removesuffix(".jsonl")
    known = [time for time in times if time]
    date = f"{known[0]} to {known[-1]}" if known else ""
    return TrainingFile(Source(content.name, name, date=date), tuple(logged), tuple(evaluated))


def _draw(found: Sequence[TrainingFile]) -> Markup:
    return join(
        side_by_side(
        _curves("Validation mIoU", "mIoU, %", found,
                [[(e.step, 100 * e.miou) for e in one.evaluated] for one in found]),
        _curves("Loss (Eq. 1), as logged", "loss", found,
                [[(e.step, e.loss) for e in one.logged] for one in found])),
        _overview(found),
        _classes(found),
        folded("Where these are from", *(article(one.source) for one in found)),
    )  # fmt: skip


def _curves(
    caption: str, label: str, found: Sequence[TrainingFile],
    values: Sequence[Sequence[tuple[int, float]]],
) -> Markup | None:  # fmt: skip
    series = [
        Series(one.source.what,
               [Point(x, y, f"{one.source.what}, step {x}: {y:.4g}", 3.0) for x, y in pairs])
        for one, pairs in zip(found, values, strict=True)
        if pairs
    ]  # fmt: skip
    return xy_chart(caption, series, "step", label, whole=True) if series else None


def _overview(found: Sequence[TrainingFile]) -> Markup:
    rows: list[list[Cell]] = []
    for one in found:
        best, logged = one.best, one.logged
        steps = [*(entry.step for entry in logged), *(entry.step for entry in one.evaluated)]
        rows.append([
            one.source.file, number(max(steps), 0),
            share(best.miou, 2) if best else "", number(best.step, 0) if best else "",
            number(logged[-1].loss, 4) if logged else "",
            number(median(entry.images_per_s for entry in logged), 1) if logged else "",
        ])  # fmt: skip
    columns = ["run", "steps", "best mIoU", "at step", "last loss", "images/s, median"]
    return table(columns, rows)


def _classes(found: Sequence[TrainingFile]) -> Markup | None:
    """IoU of each class at each run's best evaluation."""
    best = [(one, one.best) for one in found]
    evaluated = [(one, each) for one, each in best if each]
    names = list(dict.fromkeys(name for _, each in evaluated for name in each.iou))
    if not names:
        return None
    rows: list[list[Cell]] = [
        [name, *(share(each.iou[name]) if name in each.iou else "" for _, each in evaluated)]
        for name in names
    ]
    columns = ["class", *(one.source.what for one, _ in evaluated)]
    return folded("IoU of each class at the best evaluation", table(columns, rows))


KIND = Kind("Training runs", _recognises, _read, _draw)
