"""Ours beside the runtimes that people would use, on the networks that they bring."""

from typing import Any

from benchmarks.peers_lib.adapters import EXACT, OURS
from benchmarks.peers_lib.bars import (
    COMPILE_S,
    LEAST_EQUAL,
    MOST_ERROR,
    PEERS,
    Accuracy,
    Row,
    accuracy_of,
    latest_accuracy,
    rows_of,
    speed_verdict,
)
from benchmarks.peers_lib.results import latest
from benchmarks.results_lib.store import Store, for_each, unique
from benchmarks.results_lib.table import MISSED, Source, Table, bar, ratio

ERRORS = "-errors"  # at the end of the name of the file that has them


def file_name(cpu: str) -> str:
    """The results of a kind of CPU."""
    return f"any-network-{cpu}.jsonl"


def any_network(store: Store) -> list[Table]:
    """A table for each machine's file; none before anything was measured."""
    names = store.names("any-network-*.jsonl")
    return [
        _table(store, name, name.replace(".jsonl", f"{ERRORS}.jsonl"))
        for name in names
        if not name.endswith(f"{ERRORS}.jsonl")
    ]


def _table(store: Store, name: str, errors_name: str) -> Table:
    records = store.lines(name)
    errors = store.lines(errors_name) if errors_name in store.names("*.jsonl") else []
    accuracies, rows = latest_accuracy(errors), rows_of(records)
    columns = ["network", "exporter", "size", "threads", "ours, ms", "fastest peer",
               "its time / ours", *(f"{peer}'s" for peer in PEERS), "bar", "of the FMA ceiling",
               f"compile, s, bar {COMPILE_S:.0f}"]  # fmt: skip
    if errors:
        columns += ["error / onnxruntime's", "exact", "labels as in double, onnxruntime's"]
    cells = []
    for row in rows:
        config = row.config
        cells.append([
            config.named, config.exporter, config.resolution, config.threads,
            "" if row.failed else f"{row.ours_ms:.2f}", row.fastest or "",
            ratio(row.ratio) if row.ratio else "",
            *(_of_peer(row, peer) for peer in PEERS), _bar(row),
            "" if row.share is None else f"{row.share:.0%}", _compile(row),
        ])  # fmt: skip
        if errors:
            sides = accuracies.get((config.model, config.resolution, config.exporter), {})
            cells[-1] += [_error(sides.get(OURS)), _error(sides.get(EXACT)),
                          _labels(sides.get(OURS))]  # fmt: skip
    losing = unique([row.config.model for row in rows if row.loses])
    won = f"A peer wins on {', '.join(losing)}." if losing else "No peer wins."
    of_errors = (
        ""
        if not errors
        else (
            "Errors of the scores against double precision on five images, bars "
            f"{MOST_ERROR[OURS]:g} and with --exact {MOST_ERROR[EXACT]:g} times onnxruntime's own, "
            f"labels {LEAST_EQUAL:.2%} or as many as onnxruntime's. "
        )
    )
    note = (
        "fp32, uint8 image to labels, every copy counted; median [range] over the rounds. Random "
        "weights, batch norm calibrated. Share of the ceiling by the multiply-adds really done. "
        f"Compiled with a cold cache, reading and checking included. {of_errors}{won}"
    )
    shown = latest(records)
    versions = {
        package: version
        for record in shown.values()
        for side in record.get("sides", {}).values()
        for package, version in side["versions"].items()
    }
    sources = [
        store.source(
            name, of="times", chip=records[-1]["machine"]["cpu"], versions=versions or {"-": "-"},
            command=for_each([record["command"] for record in shown.values()]),
            date=max(record["date"] for record in shown.values()),
        )
    ]  # fmt: skip
    if errors:
        sources.append(_errors_source(store, errors_name, errors, sources[0]))
    return Table("Networks that users bring, beside other runtimes", columns, cells, sources, note)


def _errors_source(store: Store, name: str, errors: list[dict[str, Any]], times: Source) -> Source:
    return store.source(
        name, of="errors", chip=errors[-1]["machine"]["cpu"], versions=times.versions,
        command=for_each([record["command"] for record in errors]),
        date=max(record["date"] for record in errors),
    )  # fmt: skip


def _of_peer(row: Row, peer: str) -> str:
    if peer in row.ratios:
        return f"{row.ratios[peer].median:.2f}"
    return "not run" if peer in dict(row.skipped) else ""


def _bar(row: Row) -> str:
    verdict = speed_verdict(row)
    if row.failed:
        return f"{MISSED}: {row.failed[:80]}"
    said = verdict.text if verdict.met is None else bar(verdict.met, verdict.text)
    return ", ".join([*([said] if said else []), *([f"{row.fastest} wins"] if row.loses else [])])


def _compile(row: Row) -> str:
    seconds = row.compile_s
    return "" if seconds is None else bar(seconds <= COMPILE_S, f"{seconds:.1f}")


def _error(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    found = accuracy_of(record)
    return record["failed"][:80] if found is None else bar(found.met, f"{found.times:.2g}")


def _labels(record: dict[str, Any] | None) -> str:
    found = accuracy_of(record) if record else None
    return _shares(found) if found else ""


def _shares(found: Accuracy) -> str:
    return f"{found.labels_equal:.4%}, {found.onnxruntime_labels_equal:.4%}"


def line(row: Row) -> str:
    """A row for a terminal."""
    if row.failed:
        return f"{row.config}: FAILED: {row.failed}"
    others = ", ".join(f"{peer} {ratio(found)}" for peer, found in row.ratios.items())
    share = "" if row.share is None else f", {row.share:.0%} of the FMA ceiling"
    compiled = "" if row.compile_s is None else f", compiled in {row.compile_s:.1f} s"
    skipped = "".join(f"; {peer} not run: {reason[:100]}" for peer, reason in row.skipped)
    said = _bar(row)
    return (
        f"{row.config}: {row.ours_ms:.2f} ms{share}{compiled}; {others or 'no peer'}"
        f"{f'; bar {said}' if said else ''}{skipped}"
    )


def error_line(record: dict[str, Any]) -> str:
    """An accuracy for a terminal."""
    found = accuracy_of(record)
    if found is None:
        return str(record["failed"])
    said = bar(found.met, f"{found.times:.2g} times the error of onnxruntime")
    return f"{found.side}: {said}; labels as in double {_shares(found)} of onnxruntime"
