"""Searches: the log that `hmseg search` writes, and the network that it ends with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from deploy.report.charts.axes import side_by_side
from deploy.report.charts.heat import heat_chart
from deploy.report.charts.xy import Point, Series, xy_chart
from deploy.report.content import Content, Fields
from deploy.report.kind import Kind
from deploy.report.markup import Markup, join, tag
from deploy.report.source import Source, article
from deploy.report.table import Cell, folded, number, table
from hmseg.genotype import EXPANSIONS, GROUPS, KERNELS, RATIO_TENTHS, Genotype, Op
from lut.errors import UserError

LAYERS = [f"{group.name}.{layer}" for group in GROUPS for layer in range(group.layers)]
CANDIDATES = [*(str(Op(e, k)) for e in EXPANSIONS for k in KERNELS), "skip"]
RATIOS = ["medium ratio", "low ratio"]
_SCALES = {"us": (1e3, "ms"), "MACs": (1e9, "GMACs"), "parameters": (1e6, "million parameters")}


@dataclass(frozen=True)
class Logged:
    """What is logged every some steps; costs in the unit of the search's budget."""

    step: int
    loss: float
    upper: float
    expected: float | None
    architecture_loss: float | None


@dataclass(frozen=True)
class Log:
    """A search over its steps; `probabilities` are its last, a row for each layer and ratio."""

    source: Source
    logged: tuple[Logged, ...]
    probabilities: list[list[float]]


@dataclass(frozen=True)
class Found:
    """The network that a search ended with."""

    source: Source
    genotype: str
    width: float
    unit: str
    estimate: float
    upper: float
    measured_us: float | None


def _recognises(content: Content) -> bool:
    first = content.first
    if first.keys() >= {"step", "most_probable", "probabilities"}:
        return True
    search = first.get("search")
    return "ops" in first and isinstance(search, dict) and "estimate" in search


def _read(content: Content) -> Log | Found:
    return _read_found(content) if "ops" in content.first else _read_log(content)


def _read_log(content: Content) -> Log:
    logged, times = [], []
    for fields in content.fields():
        moving = fields.optional("architecture")
        logged.append(
            Logged(
                fields.whole("step"), fields.number("loss"),
                fields.inside("most_probable").positive("upper"),
                moving.positive("expected") if moving.values else None,
                moving.number("loss") if moving.values else None,
            )
        )  # fmt: skip
        times.append(fields.text("time", ""))
    last = Fields(content.records[-1], f"line {len(content.records)}: ")
    rows = last.items("probabilities")
    if len(rows) != len(LAYERS) + len(RATIOS) or not all(
        isinstance(row, list) and len(row) == len(CANDIDATES) for row in rows
    ):
        raise UserError(f"{last.where}the probabilities are not of this search space")
    values = [[Fields({"p": value}, last.where).number("p") for value in row] for row in rows]
    known = [time for time in times if time]
    date = f"{known[0]} to {known[-1]}" if known else ""
    return Log(Source(content.name, _run_of(content.name), date=date), tuple(logged), values)


def _read_found(content: Content) -> Found:
    import json

    (fields, *_) = content.fields()
    genotype = Genotype.from_json(json.dumps(content.first))
    search = fields.inside("search")
    estimate = search.inside("estimate")
    measured = search.optional("measured")
    versions = search.optional("versions").texts() | _torch(search)
    source = Source(
        content.name, _run_of(content.name), _computed_on(search), versions,
        search.text("date", ""),
    )  # fmt: skip
    return Found(
        source, str(genotype), fields.positive("width"), estimate.text("unit"),
        estimate.positive("value"), estimate.positive("upper"),
        measured.positive("measured_us") if measured.values else None,
    )  # fmt: skip


def _places(search: Fields) -> list[Fields]:
    """What it computed on, one after the other; searches of earlier versions do not say."""
    return list(search.each("computed_on")) if "computed_on" in search else []


def _computed_on(search: Fields) -> str:
    return ", ".join(dict.fromkeys(place.text("device", "") for place in _places(search)))


def _torch(search: Fields) -> dict[str, str]:
    found = dict.fromkeys(place.text("torch") for place in _places(search) if "torch" in place)
    return {"torch": " and ".join(found)} if found else {}


def _run_of(name: str) -> str:
    """A search's folder, in which its files are; a file's own name where it lies in none."""
    path = PurePosixPath(name)
    return str(path.parent) if path.name in ("log.jsonl", "genotype.json") else str(
        path.with_suffix("")
    )  # fmt: skip


def _draw(found: Sequence[Log | Found]) -> Markup:
    networks = [one for one in found if isinstance(one, Found)]
    logs = [one for one in found if isinstance(one, Log)]
    return join(
        _networks(networks) if networks else None,
        *map(_article, logs),
    )


def _networks(found: Sequence[Found]) -> Markup:
    rows: list[list[Cell]] = []
    for one in found:
        by, unit = _SCALES.get(one.unit, (1.0, one.unit))
        rows.append([
            one.source.file, number(one.width, 2), number(one.estimate / by, 3),
            number(one.upper / by, 3), unit,
            "" if one.measured_us is None else number(one.measured_us / 1e3, 3),
            one.genotype,
        ])  # fmt: skip
    columns = ["file", "width", "estimate", "upper bound", "in", "measured, ms", "network found"]
    return join(
        table(columns, rows, "Networks found"),
        folded("Where these are from", *(article(one.source) for one in found)),
    )


def _article(one: Log) -> Markup:
    moving = [entry for entry in one.logged if entry.expected is not None]
    return article(
        one.source,
        side_by_side(xy_chart(
            "Cost over the steps, in the unit of the budget",
            [_line("expected", moving, lambda entry: entry.expected or 0.0),
             _line("most probable network, upper bound", one.logged, lambda entry: entry.upper)],
            "step", "cost", whole=True,
        ), xy_chart(
            "Both losses",
            [_line("architecture's half", moving, lambda entry: entry.architecture_loss or 0.0),
             _line("weights' half", one.logged, lambda entry: entry.loss)],
            "step", "loss (Eq. 1)", whole=True,
        )),
        _heat(one),
    )  # fmt: skip


def _line(name: str, entries: Sequence[Logged], value: Callable[[Logged], float]) -> Series:
    points = [
        Point(entry.step, value(entry), f"{name}, step {entry.step}: {value(entry):,.4g}", 3.0)
        for entry in entries
    ]
    return Series(name, points)


def _heat(one: Log) -> Markup:
    """Rows are candidates, columns layers: as in a latency table."""
    layers, ratios = one.probabilities[: len(LAYERS)], one.probabilities[len(LAYERS) :]
    values = [
        [100 * row[candidate] or None for row in layers] for candidate in range(len(CANDIDATES))
    ]
    tips = [
        [f"{at}, {candidate}: {row[index]:.2%}" for at, row in zip(LAYERS, layers, strict=True)]
        for index, candidate in enumerate(CANDIDATES)
    ]  # fmt: skip
    said = [
        f"{name}: " + ", ".join(
            f"{tenths / 10:g} {share:.1%}"
            for tenths, share in zip(RATIO_TENTHS, row, strict=False)
        )
        for name, row in zip(RATIOS, ratios, strict=True)
    ]  # fmt: skip
    step = one.logged[-1].step
    return join(
        heat_chart(f"Probability of each candidate at step {step}, in %", CANDIDATES, LAYERS,
                   values, tips, log_scale=False),
        tag("p", "; ".join(said) + "."),
    )  # fmt: skip


KIND: Kind[Log | Found] = Kind("Searches", _recognises, _read, _draw)
