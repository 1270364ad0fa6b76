"""Latency tables: what is in them, how true their estimates are."""

from pathlib import Path
from statistics import fmean, median
from typing import Any

from benchmarks.results_lib.store import Store, unique
from benchmarks.results_lib.table import Table, bar
from deploy.cli.advice import build_command
from deploy.tables.check import BAR_MEAN, BAR_TAU, BAR_WORST, kendall_tau
from lut.table_file import load_table

BAR_BUILD_S = 20 * 60
COMPARED = "compare-search/latencies.jsonl"  # estimates beside measurements, of another benchmark


def tables(store: Store) -> list[Table]:
    """The tables that ship."""
    rows, sources = [], []
    builds = store.json("lut-builds.json")["builds"]
    for path in sorted((store.root / "lut" / "data").glob("*.jsonl.xz")):
        name, stem = f"/lut/data/{path.stem}", path.name.partition(".jsonl")[0]
        table = load_table(store.path(f"/lut/data/{path.name}"))
        spread = table.occasions_spread
        last, _ = table.runs[-1]
        source = store.source(
            name, of=stem, chip=last.cpu, date=last.date, versions=last.versions,
            command=build_command(table.identity, name[1:]).partition(" (")[0],
        )  # fmt: skip
        sources.append(source)
        noisy = sum(entry.noisy for entry in table.entries.values())
        rows.append([
            stem, source.machine, len(table.entries), noisy, len(table.visits),
            len({visit.network for visit in table.visits}), f"{median(spread):.1%}",
            f"{spread[-1]:.1%}", *_build(builds.get(stem)),
        ])  # fmt: skip
    columns = ["table", "machine", "entries", "of them noisy", "visits", "networks",
               "a network's visits differ by, median", "at most",
               f"build, s, bar {BAR_BUILD_S:,}", "beside it"]  # fmt: skip
    note = (
        "They are packed by xz, and a packed table cannot grow: `unxz` it to add to it, or to "
        "measure it anew name another file."
    )
    return [Table("Tables that ship", columns, rows, sources, note)]


def _build(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["", ""]
    return [bar(found["seconds"] <= BAR_BUILD_S, f"{found['seconds']:,}"), found["beside"]]


def checks(store: Store) -> list[Table]:
    """Estimates beside networks that the tables have not seen."""
    rows, sources = [], []
    for name in store.names("lut-check-*.json"):
        found = store.json(name)
        inside = f"{found['within_upper']} of {found['networks']}"
        rows.append(_check(Path(found["table"]).stem, found["rows"], inside))
        sources.append(store.source(name, of=Path(found["table"]).stem))
    compared = store.lines(COMPARED)
    for table in unique([record["table"] for record in compared]):
        mine = [record for record in compared if record["table"] == table]
        what = f"{Path(table).stem}, the networks of the search's comparison"
        rows.append(_check(what, mine, ""))
        sources.append(store.source(COMPARED, of=Path(table).stem, chip=mine[0]["cpu"],
                                    date=mine[-1]["date"]))  # fmt: skip
    columns = ["table", "networks", f"mean absolute error, bar {BAR_MEAN:.0%}",
               f"worst, bar {BAR_WORST:.0%}", f"Kendall's tau, bar {BAR_TAU}",
               "within the upper bound"]  # fmt: skip
    return [Table("Estimate against measurement", columns, rows, sources)]


def _check(table: str, rows: list[dict[str, Any]], inside: str) -> list[Any]:
    errors = [abs(row["estimate_us"] / row["measured_us"] - 1) for row in rows]
    tau = kendall_tau([row["estimate_us"] for row in rows], [row["measured_us"] for row in rows])
    return [
        table, len(rows), bar(fmean(errors) <= BAR_MEAN, f"{fmean(errors):.1%}"),
        bar(max(errors) <= BAR_WORST, f"{max(errors):.1%}"), bar(tau >= BAR_TAU, f"{tau:.3f}"),
        inside,
    ]  # fmt: skip


def robustness(store: Store) -> list[Table]:
    """A build that was killed again and again; kernels timed alone, which is not how it is done."""
    name = "lut-kills.json"
    kills = store.json(name)
    lasts = [run["visits"] for run in kills["runs"]]
    killed = Table(
        "A build that is killed",
        ["SIGKILLs", "visits after each", "torn lines", "networks", "visited again", "entries",
         "all runs, s"],
        [[kills["kills"], lasts, kills["torn_lines"], kills["networks"], kills["visited_again"],
          kills["entries"], f"{kills['seconds']:.1f}"]],
        [store.source(name)],
        "No visit was lost or is there twice.",
    )  # fmt: skip
    name = "lut-isolated.json"
    alone = store.json(name)
    inside, isolated = (
        [row[key] for row in alone["rows"]] for key in ("in_network_us", "isolated_us")
    )
    ratios = sorted(b / a for a, b in zip(inside, isolated, strict=True))
    timed = Table(
        "Kernels timed alone, hot in a loop",
        ["network", "kernels", "in the network, us", "alone, us", "alone / in the network",
         "of each kernel"],
        [[f"MRMS, width {alone['width']}, {alone['resolution']}", len(ratios), f"{sum(inside):.0f}",
          f"{sum(isolated):.0f}", f"{sum(isolated) / sum(inside):.2f}",
          f"{median(ratios):.2f} [{ratios[0]:.2f}..{ratios[-1]:.2f}]"]],
        [store.source(name, chip=alone["machine"], date=alone["date"])],
        "Why entries are measured inside networks ([0010](decisions/0010-covering-networks.md)).",
    )  # fmt: skip
    return [killed, timed]
