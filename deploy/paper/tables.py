"""The tables: networks with their counts, their times and the print."""

from collections.abc import Iterable, Sequence

from deploy.bench import OURS
from deploy.paper import checks, claims, findings, plot
from deploy.paper.accuracy import accuracy_of
from deploy.paper.cells import (
    NONE,
    frames_per_s,
    giga,
    median_ms,
    mega,
    milliseconds,
    per_s,
    ratio_text,
)
from deploy.paper.networks import absent, count
from deploy.paper.page import Page, first, marks_of, newest_settings, peers_of, why_not
from deploy.paper.printed import About, Row
from deploy.paper.records import Found, Record
from deploy.paper.views import View
from lut.errors import WorkError


def networks_table(view: View, found: Found) -> Page:
    """A row for each network, of one setting."""
    records = {row.key: first(view, row, found) for row in view.rows}
    peers = peers_of(list(records.values()))
    page = Page(view, [
        "network", "measured as", "input", "GMACs", "printed", "Mparams", "printed", "mIoU %",
        "ms", "FPS", *(f"{peer} {what}" for peer in peers for what in ("ms", "/ hmseg")),
        "printed FPS", "printed ms",
    ])  # fmt: skip
    for row in view.rows:
        record, printed, counts = records[row.key], row.printed, _counts(view, row)
        # From left to right, so that footnotes come in order.
        cells = [row.label + marks_of(page, row, "network"), _short(row.network), row.sizes[0]]
        cells += [counts[0], _printed(page, row, "gmacs", printed.gmacs)]
        cells += [counts[1], _printed(page, row, "mparams", printed.mparams), _miou(page, row)]
        cells += _times(page, row, record, peers, found)
        cells += [_printed(page, row, "fps", printed.fps), printed.ms or NONE]
        page.rows.append(cells)
    _tell_absent(page, records.values())
    named = {row.label: records[row.key] for row in view.rows}
    timed = claims.timed_rows(records, {row.key: row for row in view.rows})
    if view.kind == "latency":
        page.findings += findings.of_spread(timed.values())
        _drop_columns(page, ("measured as", "printed", "printed FPS", "printed ms"))
    else:
        page.findings += findings.of_speeds(timed.values())
    for claim in claims.OF_TABLES.get(view.name, ()):
        page.findings += claim(timed)
    page.checks += checks.of_records(named)
    sides = {OURS: OURS, **{peer: peer for peer in peers}}
    speeds: dict[str, list[float | None]] = {
        name: [per_s(median_ms(records[row.key], side)) for row in view.rows]
        for name, side in sides.items()
    }
    speeds["printed"] = [float(row.printed.fps) if row.printed.fps else None for row in view.rows]
    labels = [f"{row.label}, {row.sizes[0]}" for row in view.rows]
    if any(speeds[OURS]):
        page.draw = lambda path: plot.bars(path, view.title, labels, speeds, "frames per second")
    return page


def _counts(view: View, row: Row) -> list[str]:
    if row.network is None or absent(row.network):
        return [NONE, NONE]
    try:
        macs, parameters = count(view.jobs(row)[0])
    except WorkError:  # at this size; `_times` says why
        return [NONE, NONE]
    return [giga(macs), mega(parameters)]


def _times(
    page: Page, row: Row, record: Record | None, peers: Sequence[str], found: Found
) -> list[str]:
    """Ours, and of each peer its own and how many times ours that is."""
    if record is None or not record.samples:
        return [NONE + _why_not(page, row, found)] + [NONE] * (1 + 2 * len(peers))
    cells = [milliseconds(record.samples[OURS]), frames_per_s(record.samples[OURS])]
    for peer in peers:
        there = peer in record.samples
        cells.append(milliseconds(record.samples[peer]) if there else NONE)
        cells.append(ratio_text(record, peer) if there else NONE)
    return cells


def devices_table(view: View, everywhere: Found) -> Page:
    """A group of columns for each machine that the records know."""
    machines = {setting.machine: setting for setting in newest_settings(view, everywhere)}
    page = Page(view, ["network", "input"])
    columns: list[list[Record | None]] = []
    for name, setting in machines.items():
        own = everywhere.of(setting)
        columns.append([first(view, row, own) for row in view.rows])
        emulated = " (EMULATED: means nothing)" if setting.provenance.emulated else ""
        page.columns += [f"{name}{emulated}: ms", "FPS"]
        page.columns += [f"{peer} / hmseg" for peer in peers_of(columns[-1])]
    for number, row in enumerate(view.rows):
        cells = [row.label + marks_of(page, row, "network"), row.sizes[0]]
        for setting, column in zip(machines.values(), columns, strict=True):
            record, peers = column[number], peers_of(column)
            if record and record.samples:
                rounds = record.samples[OURS]
                cells += [milliseconds(rounds), frames_per_s(rounds)]
                cells += [ratio_text(record, p) if p in record.samples else NONE for p in peers]
            else:
                why = _why_not(page, row, everywhere.of(setting))
                cells += [NONE + why] + [NONE] * (1 + len(peers))
        if not columns:
            cells[0] += _why_not(page, row, everywhere)
        page.rows.append(cells)
    speeds = {
        name: [per_s(median_ms(record)) for record in column]
        for name, column in zip(machines, columns, strict=True)
    }
    by_key = {row.key: row for row in view.rows}
    timed = {}
    for name, column in zip(machines, columns, strict=True):
        timed[name] = claims.timed_rows(dict(zip(by_key, column, strict=True)), by_key)
        named = dict(zip([row.label for row in view.rows], column, strict=True))
        page.checks += [f"{name}: {check}" for check in checks.of_records(named)]
    page.findings += claims.of_machines(timed)
    labels = [f"{row.label}, {row.sizes[0]}" for row in view.rows]
    if any(any(values) for values in speeds.values()):
        page.draw = lambda path: plot.bars(path, view.title, labels, speeds, "frames per second")
    return page


def _why_not(page: Page, row: Row, found: Found) -> str:
    jobs = page.view.jobs(row)
    return page.mark(why_not(row, jobs[0] if jobs else None, found))


def _printed(page: Page, row: Row, about: About, text: str) -> str:
    """A printed cell; one that is wrong is struck out."""
    wrong = any(note.corrected for note in row.notes if note.about == about)
    return (f"~~{text}~~" if wrong and text else text or NONE) + marks_of(page, row, about)


def _miou(page: Page, row: Row) -> str:
    accuracy = accuracy_of(row)
    marks = page.mark(accuracy.note) if accuracy.note else marks_of(page, row, "miou")
    return accuracy.text + marks if accuracy.text else NONE


def _short(network: str | None) -> str:
    return NONE if network is None else network if len(network) < 50 else "its genotype"


def _tell_absent(page: Page, records: Iterable[Record | None]) -> None:
    """Peers that were not timed, a line for each reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for record in filter(None, records):
        for peer, why in record.absent.items():
            reasons.setdefault((peer, why), []).append(record.job.network)
    for (peer, why), networks in reasons.items():
        few = ", ".join(dict.fromkeys(networks)) if len(networks) <= 3 else f"{len(networks)} rows"
        page.remarks.append(f"{peer} is not timed ({few}): {why}")


def _drop_columns(page: Page, names: Sequence[str]) -> None:
    kept = [n for n, column in enumerate(page.columns) if column not in names]
    page.columns = [page.columns[n] for n in kept]
    page.rows = [[row[n] for n in kept] for row in page.rows]
