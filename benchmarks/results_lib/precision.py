"""Ours in low precision beside ours in float32, and beside the peers' best of any precision."""

from collections.abc import Mapping
from typing import Any

from benchmarks.peers_lib.adapters import BF16, INT8, OURS, OWN
from benchmarks.peers_lib.cache import FITTED
from benchmarks.peers_lib.job import Config
from benchmarks.peers_lib.results import Record, latest
from benchmarks.results_lib.store import Store, for_each
from benchmarks.results_lib.table import Table, bar, ratio
from deploy.measure.statistics import ratio_of_rounds

# Our float32's time over ours, at least, by side; and the fastest peer's at any precision. `FITTED`
# may follow a name.
BARS = {
    BF16: {
        "tiny-hmseg-camvid": 1.5, "mrms": 1.6, "bisenetv1-r18": 1.2,
        "ddrnet-23-slim": 1.2, "stdc1-seg": 1.2,
    },
    INT8: {
        "tiny-hmseg-camvid": 2.2, "mrms": 2.6, "bisenetv1-r18": 1.5,
        "ddrnet-23-slim": 1.5, "stdc1-seg": 1.5,
    },
}  # fmt: skip
PEER_BARS = {BF16: {"tiny-hmseg-camvid": 2.0}, INT8: {"tiny-hmseg-camvid": 3.0}}
COLUMNS = (
    "network", "size", "threads", "side", "ms", "ours in fp32 / it", "bar", "fastest peer",
    "its time / ours", "bar",
)  # fmt: skip


def file_name(cpu: str) -> str:
    """The results of a kind of CPU."""
    return f"precision-{cpu}.jsonl"


def precision(store: Store) -> list[Table]:
    """A table for each machine's file; none before anything was measured."""
    return [_table(store, name) for name in store.names("precision-*.jsonl")]


def _table(store: Store, name: str) -> Table:
    records = latest(store.lines(name))
    measured = [record for record in records.values() if "sides" in record]
    versions = {
        package: version
        for record in measured
        for side in record["sides"].values()
        for package, version in side["versions"].items()
    }
    (chip,) = {record["machine"]["cpu"] for record in records.values()}
    source = store.source(
        name, command=for_each([record["command"] for record in records.values()]), chip=chip,
        versions=versions, date=max(record["date"] for record in records.values()),
    )  # fmt: skip
    note = (
        "Labels from the uint8 image, every copy counted, all sides in turn; median [range] over "
        "the rounds. Peers at the best precision that they have."
    )
    return Table("In low precision", COLUMNS, rows_of(records), [source], note)


def rows_of(records: Mapping[Config, Record]) -> list[list[Any]]:
    """A row for each of our sides in low precision."""
    rows = []
    for config, record in records.items():
        what = [config.model, config.resolution, config.threads]
        if "failed" in record:
            rows.append([*what, "", "", record["failed"], "", "", "", ""])
            continue
        for side in BARS:
            if side in record["sides"]:
                cells = _cells(config, record["sides"], side)
                if refused := record["sides"][side].get("compiled", {}).get("refused"):
                    cells[1] += f" (the gate: {refused})"
                    cells[2] += ", its labels refused"
                rows.append([*what, side, *cells])
            elif side in record["skipped"]:
                rows.append([*what, side, "", record["skipped"][side], "", "", "", ""])
    return rows


def _cells(config: Config, sides: Mapping[str, Any], side: str) -> list[str]:
    ours = sides[side]
    gain = ratio_of_rounds(sides[OURS]["samples_ns"], ours["samples_ns"])
    peers = {n: s["latency"]["median_ms"] for n, s in sides.items() if n not in OWN}
    cells = [
        f"{ours['latency']['median_ms']:.2f}", ratio(gain),
        _bar(BARS[side], config, gain.median),
    ]  # fmt: skip
    if not peers:
        return [*cells, "", "", ""]
    fastest = min(peers, key=lambda name: peers[name])
    lead = ratio_of_rounds(sides[fastest]["samples_ns"], ours["samples_ns"])
    return [*cells, fastest, ratio(lead), _bar(PEER_BARS[side], config, lead.median)]


def _bar(bars: Mapping[str, float], config: Config, found: float) -> str:
    wanted = bars.get(config.model.removesuffix(FITTED))
    return "" if wanted is None else bar(found >= wanted, f"{wanted}")
