"""Latency tables (`lut build`), packed or not: the time of every operation of the search space."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.report.charts.heat import heat_chart
from deploy.report.content import Content
from deploy.report.kind import Kind
from deploy.report.markup import Markup, join, tag
from deploy.report.source import Source, article, threads_text
from deploy.report.table import Cell, folded, number, share, table
from deploy.tables.heatmap import heatmap_columns, operator_in_words
from hmseg.operators import OPERATORS, Space
from lut.table import Entry, Table
from lut.table_file import FORMAT, parse_table
from lut.words import in_words


@dataclass(frozen=True)
class TableFile:
    """One table and the space that it is for."""

    source: Source
    table: Table
    space: Space


def _recognises(content: Content) -> bool:
    return content.first.get("kind") == FORMAT


def _read(content: Content) -> TableFile:
    found = parse_table(list(content.records), content.name)
    identity = found.identity
    space = Space(identity.size, identity.width, identity.num_classes)
    space.require_table(found)
    space.check(set(found.entries), content.name)
    what = (
        f"{identity.target_name} {identity.resolution}, width {identity.width:g}"
        f"{threads_text(identity.threads)}"
    )
    runs = [run for run, _ in found.runs]
    versions = runs[-1].versions if runs else {}
    dates = list(dict.fromkeys(run.date for run in runs))
    source = Source(content.name, what, found.cpus, versions, ", ".join(dates), found.emulated)
    return TableFile(source, found, space)


def _draw(found: Sequence[TableFile]) -> Markup:
    return join(_overview(found) if len(found) > 1 else None, *map(_article, found))


def _overview(found: Sequence[TableFile]) -> Markup:
    rows: list[list[Cell]] = [
        [one.source.file, one.source.what, one.source.device, number(len(one.table.entries), 0),
         number(len(one.space.all_keys()), 0), number(len(one.table.visits), 0),
         number(one.table.baseline_us / 1000, 3) if one.table.visits else ""]
        for one in found
    ]  # fmt: skip
    columns = ["file", "what", "device", "entries", "of", "visits", "reference network, ms"]
    return table(columns, rows)


def _article(one: TableFile) -> Markup:
    entries, wanted = one.table.entries, one.space.all_keys()
    noisy = sum(entry.noisy for entry in entries.values())
    said = f"{len(entries)} of {len(wanted)} entries, of them {noisy} noisy"
    said += f", from {len(one.table.visits)} visits of networks."
    if not entries:
        return article(one.source, tag("p", said))
    return article(one.source, tag("p", said), _heat(one), folded("Every entry", _table(one)))


def _heat(one: TableFile) -> Markup:
    columns, entries = heatmap_columns(one.space), one.table.entries
    values: list[list[float | None]] = []
    tips: list[list[str]] = []
    for row in range(len(OPERATORS)):
        keys = [layer[row] for layer in columns.values()]
        values.append([entries[key].median_us if key in entries else None for key in keys])
        tips.append([
            f"{name}: {in_words(key)}; {_words(entries[key])}" if key in entries else ""
            for name, key in zip(columns, keys, strict=True)
        ])  # fmt: skip
    return heat_chart(
        "Microseconds of a call inside networks, by layer", list(map(operator_in_words, OPERATORS)),
        list(columns), values, tips, log_scale=True,
    )  # fmt: skip


def _words(entry: Entry) -> str:
    return f"{entry.median_us:.1f} us, {entry.p10_us:.1f} to {entry.p90_us:.1f} in most frames"


def _table(one: TableFile) -> Markup:
    rows: list[list[Cell]] = [
        [in_words(key), number(entry.median_us, 1), number(entry.p10_us, 1),
         number(entry.p90_us, 1),
         share(entry.half_interval_us / entry.median_us) if entry.rounds > 1 else "",
         number(entry.rounds, 0), number(key.macs / 1e6, 2), "noisy" if entry.noisy else ""]
        for key, entry in one.table.entries.items()
    ]  # fmt: skip
    columns = ["operation", "us", "p10", "p90", "± of the mean, 95%", "rounds", "million MACs", ""]
    return table(columns, rows)


KIND = Kind("Latency tables", _recognises, _read, _draw)
