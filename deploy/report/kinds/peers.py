"""Networks beside other runtimes, many in a file: what `benchmarks.peers` and
`benchmarks.any_network` write. The last line of a configuration counts."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.measure.statistics import Ratio, ratio_of_rounds
from deploy.report.charts.rows import Mark, Row, rows_chart
from deploy.report.content import Content, Fields
from deploy.report.kind import Kind
from deploy.report.markup import Markup, join, tag
from deploy.report.source import Source, article, listed, span, threads_text
from deploy.report.table import Cell, Number, number, ratio_cell, table
from lut.errors import UserError

OURS = "hmseg"


@dataclass(frozen=True)
class Compared:
    """One configuration: each side's median, each peer's time over ours, or why there is none."""

    what: tuple[str, str, int, str]  # network, resolution, threads, job
    medians_ms: dict[str, float]
    ratios: dict[str, Ratio]
    skipped: dict[str, str]
    failed: str = ""

    @property
    def order(self) -> tuple[str, str, int, int]:
        """Networks by name, each by what it does, small images first."""
        network, _, threads, job = self.what
        return network, job, threads, self.pixels

    @property
    def pixels(self) -> int:
        """Of an image."""
        height, _, width = self.what[1].partition("x")
        digits = height.isdecimal() and width.isdecimal() and len(height + width) < 20
        return int(height) * int(width) if digits else 0


@dataclass(frozen=True)
class PeersFile:
    """One file."""

    source: Source
    compared: tuple[Compared, ...]


def _recognises(content: Content) -> bool:
    first = content.first
    config = first.get("config")
    is_config = isinstance(config, dict) and config.keys() >= {"model", "resolution", "threads"}
    return is_config and ("sides" in first or "failed" in first)


def _read(content: Content) -> PeersFile:
    found: dict[tuple[str, ...], Compared] = {}
    devices: dict[str, None] = {}
    versions: dict[str, dict[str, None]] = {}
    dates: list[str] = []
    for fields in content.fields():
        config = fields.inside("config")
        # All of it: an exporter, too, makes a configuration another.
        key = tuple(f"{name}={value}" for name, value in sorted(config.values.items()))
        found[key] = _compared(fields, config)
        devices[fields.inside("machine").text("cpu")] = None
        dates.append(fields.text("date"))
        for _, side in fields.optional("sides").named():
            for name, version in side.optional("versions").texts().items():
                versions.setdefault(name, {})[version] = None
    source = Source(
        content.name, content.name.removesuffix(".jsonl"), ", ".join(devices), listed(versions),
        span(dates),
    )  # fmt: skip
    return PeersFile(source, tuple(sorted(found.values(), key=lambda each: each.order)))


def _compared(fields: Fields, config: Fields) -> Compared:
    what = (config.text("model"), config.text("resolution"), config.whole("threads"),
            config.text("job", ""))  # fmt: skip
    if "failed" in fields:
        return Compared(what, {}, {}, {}, fields.text("failed"))
    sides = dict(fields.inside("sides").named())
    if OURS not in sides:
        raise UserError(f"{fields.where}there is no side {OURS!r}")
    ours = sides[OURS].rounds("samples_ns")
    ratios = {}
    for name, side in sides.items():
        rounds = side.rounds("samples_ns")
        if len(rounds) != len(ours):
            raise UserError(f"{fields.where}{name} has {len(rounds)} rounds, {OURS} {len(ours)}")
        if name != OURS:
            ratios[name] = ratio_of_rounds(rounds, ours)
    medians = {name: side.inside("latency").positive("median_ms") for name, side in sides.items()}
    return Compared(what, medians, ratios, fields.optional("skipped").texts())


def draw(found: Sequence[PeersFile]) -> Markup:
    """A picture and a table of each file."""
    return join(*map(_article, found))


def _article(one: PeersFile) -> Markup:
    peers = list(dict.fromkeys(name for each in one.compared for name in each.ratios))
    # What is the same of all stands above the picture, not in every row.
    same = [len({each.what[field] for each in one.compared}) == 1 for field in range(4)]
    rows = []
    for each in one.compared:
        label = _words(each, [not alike for alike in same])
        marks = [
            Mark(peers.index(name), r.median,
                 f"{label}: {name} / {OURS} {r.median:.2f} [{r.low:.2f}..{r.high:.2f}]",
                 r.low, r.high)
            for name, r in each.ratios.items()
        ]  # fmt: skip
        if marks:
            rows.append(Row(label, marks))
    of = _words(one.compared[0], same)
    picture = rows_chart(
        f"Each runtime's time over {OURS}'s{', ' * bool(of)}{of}; right of the line {OURS} is "
        "faster", peers, rows, f"time / {OURS}'s", log=True, line=1.0,
    )  # fmt: skip
    return article(one.source, picture if rows else None, _table(one, peers))


def _words(each: Compared, wanted: Sequence[bool]) -> str:
    """The fields of a configuration that are wanted."""
    network, resolution, threads, job = each.what
    words = (network, resolution, threads_text(threads).removeprefix(", "), job)
    return ", ".join(word for word, want in zip(words, wanted, strict=True) if want and word)


def _table(one: PeersFile, peers: Sequence[str]) -> Markup:
    rows: list[list[Cell]] = []
    for each in one.compared:
        network, resolution, threads, job = each.what
        row: list[Cell] = [network, Number(resolution, each.pixels), number(threads, 0), job]
        if each.failed:
            row.append(tag("span", "failed", title=each.failed, class_="bad"))
        else:
            row.append(number(each.medians_ms[OURS], 2))
        fastest = min(each.ratios, key=lambda name: each.medians_ms[name], default="")
        row.append(fastest)
        for name in peers:
            if name in each.ratios:
                row.append(ratio_cell(each.ratios[name]))
            else:
                reason = each.skipped.get(name)
                row.append(tag("span", "not run", title=reason) if reason else "")
        rows.append(row)
    columns = ["network", "size", "threads", "job", f"{OURS}, median ms", "fastest other",
               *(f"{name} / {OURS}" for name in peers)]  # fmt: skip
    return table(columns, rows)


KIND = Kind("Many networks beside other runtimes", _recognises, _read, draw)
