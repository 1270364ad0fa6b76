"""Searches, what they found, and how that trains beside networks made by hand and by chance."""

from datetime import datetime
from statistics import fmean
from typing import Any

from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import Table

COMPARED, LATENCIES = "compare-search/results.jsonl", "compare-search/latencies.jsonl"
DECIDED = 0.95  # the probability from which a choice counts as made
# Each search: its log, the file of what it found (none where it was stopped), its budget in ms.
SEARCHES = {
    "tiny-hmseg": ("search-tiny-hmseg/log.jsonl", "/hmseg/genotypes/tiny-hmseg.json", 1.5649),
    "the first, from random weights": (
        "search-from-scratch/log.jsonl", "search-from-scratch/from-scratch.json", 1.5649,
    ),
    "Eq. 2's own gradient": (
        "search-straight-through/log.jsonl", "search-straight-through/straight-through.json", 5.542,
    ),
    "`--arch-lr 0.01`, stopped": ("search-arch-lr-0.01/log.jsonl", "", 1.5649),
    "H100, tiny, score, stopped": ("search-h100/search-tiny.jsonl", "", 1.5649),
    "H100, tiny, Eq. 2, stopped": ("search-h100/search-tiny-st.jsonl", "", 1.5649),
    "H100, full, score, stopped": ("search-h100/search-full.jsonl", "", 3.9961),
}  # fmt: skip
KINDS = {  # of the comparison, beside the random networks
    "tiny-hmseg": "tiny-hmseg",
    "MRMS scaled": "MRMS, which the budget fits exactly",
    "from-scratch": "the first search, from random weights",
    "straight-through": "Eq. 2's own gradient, under another machine's budget",
}
LAYERS = ("s1", "s2", "s3", "s4a", "s4b", "s5a", "s5b")


def searches(store: Store) -> list[Table]:
    """Where each search ended, by its log, and what it found."""
    rows, sources = [], []
    for label, (log, found, budget) in SEARCHES.items():
        lines = store.lines(log)
        last = lines[-1]
        begin, end = (datetime.fromisoformat(line["time"]) for line in (lines[0], last))
        decided = sum(max(row) > DECIDED for row in last["probabilities"])
        cells = [
            label, last["step"], f"{(end - begin).total_seconds() / 60:.0f}", f"{last['loss']:.2f}",
            f"{last['architecture']['expected'] / 1e3 / budget - 1:+.1%}",
            f"{last['most_probable']['upper'] / 1e3 / budget - 1:+.1%}",
            f"{decided} of {len(last['probabilities'])}",
        ]  # fmt: skip
        sources.append(store.source(log, of=label, date=last["time"]))
        rows.append(cells + _found(store, found, budget))
    columns = ["search", "steps", "minutes", "loss", "E(A) to the budget",
               "most probable network's upper bound to it", f"choices above {DECIDED}",
               "found: estimate, ms", "its upper bound to the budget", "measured, ms",
               "estimate / measured - 1"]  # fmt: skip
    note = "At the last step of the log; minutes from its first line to its last."
    return [Table("Searches", columns, rows, sources, note)]


def _found(store: Store, file: str, budget: float) -> list[str]:
    if not file:
        return [""] * 4
    found = store.json(file)["search"]["measured"]
    middle, *ends = (
        f"{us / 1e3:.3f}"
        for us in (found["measured_us"], min(found["occasions_us"]), max(found["occasions_us"]))
    )
    return [
        f"{found['estimate_us'] / 1e3:.3f}", f"{found['upper_us'] / 1e3 / budget - 1:+.1%}",
        f"{middle} [{'..'.join(ends)}]", f"{found['error']:+.1%}",
    ]  # fmt: skip


def compared(store: Store) -> list[Table]:
    """Against hand and chance, at one budget and one short schedule."""
    records = store.lines(COMPARED)
    rows = [_row(label, records, name) for name, label in KINDS.items()]
    drawn: dict[int, list[float]] = {}
    for record in records:
        if record["kind"] == "random":
            drawn.setdefault(record["seed"], []).append(record["miou_percent"])
    every = [value for seed in drawn.values() for value in seed]
    best = [max(drawn[seed]) for seed in sorted(drawn)]
    again = [r["miou_percent"] for r in records if r["name"].startswith("best-random-")]
    count = len(every) // len(drawn)
    rows += [
        [f"best of {count} random networks, others for each seed", *_mean(best)],
        ["those bests, trained again with the other seeds", *_mean(again)],
        [f"all {len(every)} random networks", f"{min(every):.1f} to {max(every):.1f}",
         f"{fmean(every):.1f}"],
    ]  # fmt: skip
    columns = ["network", "validation mIoU %, each seed", "mean"]
    stages = {(r["stage"], r["learning_rate"]) for r in records}
    (stage, rate), *others = sorted(stages)
    assert not others, "the comparison has two schedules; the page shows one"
    note = f"`--stage {stage} --lr {rate}` from random weights, else the paper's recipe."
    sources = [store.source(f"{COMPARED} {part}", of=part) for part in ("compare", "Eq. 2")]
    return [Table("Against hand and chance", columns, rows, sources, note)]


def table6(store: Store) -> list[Table]:
    """The rows of the paper's Table 6."""
    records = [r for r in store.lines(COMPARED) if r["kind"] == "table6"]
    measured = {r["genotype"]: r["measured_us"] for r in store.lines(LATENCIES)}
    hand = next(r["genotype"] for r in store.lines(COMPARED) if r["kind"] == "hand")
    rows = []
    for name in dict.fromkeys(r["name"] for r in records):
        first = next(r for r in records if r["name"] == name)
        _, values, mean = _row(name, records, name)
        rows.append([
            name, changes(hand, first["genotype"]), f"{first['estimate'] / 1e3:.3f}",
            f"{measured[first['genotype']] / 1e3:.2f}", values, mean,
        ])  # fmt: skip
    columns = ["searched", "changed of MRMS", "estimate, ms", "measured on the Xeon, ms",
               "validation mIoU %, each seed", "mean"]  # fmt: skip
    parts = ("table6, the first seed", "table6, the other seeds", "latencies")
    sources = [store.source(f"{COMPARED} {part}", of=part) for part in parts]
    note = "O operators, D depth, R resolution. Differences below some 5 points say nothing."
    return [Table("Table 6's rows", columns, rows, sources, note)]


def changes(before: str, after: str) -> str:
    """What differs between two genotypes as text, such as ``s4a.3 e6k7, low 0.6``."""
    found = []
    *old, old_ratios = before.split(" | ")
    *new, new_ratios = after.split(" | ")
    for stage, was, now in zip(LAYERS, old, new, strict=True):
        pairs = zip(was.split()[1:], now.split()[1:], strict=True)
        found += [f"{stage}.{place} {b}" for place, (a, b) in enumerate(pairs) if a != b]
    for name, a, b in zip(("medium", "low"), old_ratios.split(), new_ratios.split(), strict=True):
        found += [f"{name} {b}"] if a != b else []
    return ", ".join(found)


def _row(label: str, records: list[dict[str, Any]], name: str) -> list[str]:
    by_seed = {r["seed"]: r["miou_percent"] for r in records if r["name"] == name}
    return [label, *_mean([by_seed[seed] for seed in sorted(by_seed)])]


def _mean(values: list[float]) -> list[str]:
    return [" ".join(f"{value:.1f}" for value in values), f"{fmean(values):.1f}"]
