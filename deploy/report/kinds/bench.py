"""`bench --json`: a network beside other runtimes, timed in turn."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.measure.statistics import Ratio, Summary, summarise
from deploy.report.charts.rows import Mark, Row, rows_chart
from deploy.report.charts.xy import Point, Series, xy_chart
from deploy.report.content import Content, Fields
from deploy.report.kind import Kind
from deploy.report.kinds.profile import ProfileResult, profile_blocks, read_profile
from deploy.report.markup import Markup, join, tag
from deploy.report.source import Source, article, machine_of, threads_text
from deploy.report.table import Cell, number, ratio_cell, table

OURS = "hmseg"
_MIB = 1 << 10  # KiB


@dataclass(frozen=True)
class BenchFile:
    """One comparison. `memory` are KiB of each side's process, and of the network in it."""

    source: Source
    latency: dict[str, Summary]
    ratios: dict[str, Ratio]
    samples_ns: dict[str, list[list[int]]]
    memory: dict[str, tuple[float, float]]
    remarks: tuple[str, ...]
    profile: ProfileResult | None


def _recognises(content: Content) -> bool:
    return content.first.keys() >= {"latency", "ratios", "samples_ns", "includes", "machine"}


def _read(content: Content) -> BenchFile:
    (fields, *_) = content.fields()
    device, emulated = machine_of(fields.inside("machine"))
    what = f"{fields.text('model')} {fields.text('resolution')}"
    source = Source(
        content.name, what + threads_text(fields.values.get("threads")), device, emulated=emulated
    )
    rounds = fields.inside("samples_ns")
    samples = {name: rounds.rounds(name) for name in rounds.values}
    ratios = {
        name: Ratio(f.positive("median"), f.positive("low"), f.positive("high"), f.whole("rounds"))
        for name, f in fields.inside("ratios").named()
    }
    memory = {
        name: (f.number("peak_kib"), f.number("network_kib"))
        for name, f in fields.optional("memory").named()
    }
    profile = None
    if "profile" in fields:
        profile = read_profile(fields.inside("profile"), source)
    latency = {name: _summary(f) for name, f in fields.inside("latency").named()}
    return BenchFile(source, latency, ratios, samples, memory, _remarks(fields), profile)


def _summary(fields: Fields) -> Summary:
    return Summary(
        fields.whole("n"), fields.positive("min_ms"), fields.positive("mean_ms"),
        fields.positive("median_ms"), fields.positive("p90_ms"), fields.positive("p95_ms"),
        fields.positive("p99_ms"), fields.number("std_ms"),
    )  # fmt: skip


def _remarks(fields: Fields) -> tuple[str, ...]:
    return (
        f"the time includes {fields.text('includes')}",
        *(f"{name} {ms:.3f} ms" for name, ms in fields.optional("parts_ms").numbers().items()),
        *(f"{k} is not timed: {why}" for k, why in fields.optional("absent").texts().items()),
        *(f"{k}: {note}" for k, note in fields.optional("notes").texts().items()),
        *(
            f"{name}: {share:.4%} of the labels differ from {OURS}'s"
            for name, share in fields.optional("differing_labels").numbers().items()
            if share
        ),
    )


def _draw(found: Sequence[BenchFile]) -> Markup:
    return join(_overview(found) if len(found) > 1 else None, *map(_article, found))


def _overview(found: Sequence[BenchFile]) -> Markup:
    peers = list(dict.fromkeys(name for one in found for name in one.ratios))
    rows: list[list[Cell]] = []
    for one in found:
        row: list[Cell] = [one.source.file, one.source.what, one.source.device]
        row.append(number(one.latency[OURS].median_ms, 3) if OURS in one.latency else "")
        row += [ratio_cell(one.ratios[p]) if p in one.ratios else "" for p in peers]
        rows.append(row)
    columns = ["file", "what", "device", f"{OURS}, median ms", *(f"{p} / {OURS}" for p in peers)]
    return table(columns, rows)


def _article(one: BenchFile) -> Markup:
    names = list(one.latency)
    rows = [
        Row(name, [Mark(index, s.median_ms, _tip(name, s), s.min_ms, s.p99_ms)])
        for index, (name, s) in enumerate(one.latency.items())
    ]
    return article(
        one.source,
        rows_chart("Median of a frame, and from the fastest to the 99th percentile", names, rows,
                   "milliseconds", log=True),
        _table(one),
        _rounds(one),
        tag("ul", *(tag("li", remark) for remark in one.remarks), class_="remarks"),
        profile_blocks(one.profile) if one.profile else None,
    )  # fmt: skip


def _tip(name: str, s: Summary) -> str:
    return (
        f"{name}: median {s.median_ms:.3f} ms, fastest {s.min_ms:.3f}, p90 {s.p90_ms:.3f}, "
        f"p99 {s.p99_ms:.3f}; {s.n} frames"
    )


def _table(one: BenchFile) -> Markup:
    columns = ["side", "min ms", "mean", "median", "p90", "p95", "p99", "std", "frames",
               f"its time / {OURS}'s"]  # fmt: skip
    columns += ["peak MiB", "of it network"] * bool(one.memory)
    rows: list[list[Cell]] = []
    for name, s in one.latency.items():
        times = (s.min_ms, s.mean_ms, s.median_ms, s.p90_ms, s.p95_ms, s.p99_ms, s.std_ms)
        row: list[Cell] = [name, *(number(value, 3) for value in times), number(s.n, 0)]
        row.append(ratio_cell(one.ratios[name]) if name in one.ratios else "")
        if one.memory:
            kib = one.memory.get(name)
            row += [number(each / _MIB, 0) for each in kib] if kib else ["", ""]
        rows.append(row)
    return table(columns, rows)


def _rounds(one: BenchFile) -> Markup:
    series = []
    for name, rounds in one.samples_ns.items():
        points = []
        for index, block in enumerate(rounds, 1):
            median = summarise(block).median_ms
            points.append(Point(index, median, f"{name}, round {index}: median {median:.3f} ms"))
        series.append(Series(name, points))
    return xy_chart("Median of each round: whether the machine was steady", series, "round",
                    "milliseconds", log_y=True, whole=True)  # fmt: skip


KIND = Kind("Beside other runtimes", _recognises, _read, _draw)
