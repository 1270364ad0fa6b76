"""Trained weights, the runs that made them, and short equal schedules."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import Source, Table, bar

MIOU_BARS = {"tiny-mrms": 72.0, "tiny-hmseg": 73.0, "mrms": 75.0}  # % on CamVid's validation split
ON_H100 = {
    "h100-tiny-mrms": "tiny-mrms, from its released weights",
    "h100-tiny-hmseg": "tiny-hmseg, from its released weights",
    "h100-mrms": "mrms, from random weights",
    "h100-tiny-hmseg-new": "another network, of a search cut short, `--pretrained tiny-mrms`",
    "h100-hmseg": "a searched network of full width, from random weights",
}
ON_CPU = {
    "tiny-mrms-run4": "tiny-mrms, the run before the last on CPUs",
    "tiny-mrms-run5": "tiny-mrms, the last on CPUs",
    "tiny-hmseg": "tiny-hmseg, from what fits of tiny-mrms's weights",
    "tiny-hmseg-colour": "tiny-hmseg, a further run, left",
    "tiny-hmseg-from-scratch": "the first search's network",
    "zen4-mrms-begun": "mrms, from Lite0's ImageNet weights, stopped at 3,040 of 4,000 steps",
    "zen4-mrms": "mrms, from the weights of step 3,000 of that run; what ships",
    "zen4-tiny-mrms": "tiny-mrms, from its released weights, mrms its teacher, stopped: no result",
    "zen4-tiny-hmseg": "tiny-hmseg, the same, stopped: no result",
}


def weights(store: Store) -> list[Table]:
    """The cards beside the weights that ship."""
    cards = {}
    for path in sorted((store.root / "hmseg" / "weights").glob("*.json")):
        card = store.json(f"/hmseg/weights/{path.name}")
        cards[card["model"]] = (card, store.source(
            f"/hmseg/weights/{path.name}", of=card["model"], date=card["made_with"]["date"],
            versions={name: card["evaluated_with"][name] for name in ("torch", "python")},
        ))  # fmt: skip
    found = {model: card["validation"]["miou_percent"] for model, (card, _) in cards.items()}
    rows = []
    for model, (card, _) in cards.items():
        rows.append([
            model, f"{found[model]:.2f}",
            bar(found[model] >= MIOU_BARS[model], f"{MIOU_BARS[model]:g}")
            if model in MIOU_BARS else "",
            card.get("learned_from", "the training split"), card["images_seen"],
            f"{card['epochs']:.1f}",
            *(f"{value:.1f}" for value in card["validation"]["iou_percent"].values()),
        ])  # fmt: skip
    note = (
        "Frames at their own size, one scale, no flip. Of weights that learned from both splits "
        "the figures are of a run of the same settings on the training split alone."
    )
    (classes,) = {tuple(card["validation"]["iou_percent"]) for card, _ in cards.values()}
    columns = [
        "weights", "validation mIoU, %", "bar", "learned from", "images seen", "epochs", *classes
    ]  # fmt: skip
    sources = [source for _, source in cards.values()]
    return [Table("Weights that ship, on CamVid", columns, rows, sources, note)]


def runs(store: Store) -> list[Table]:
    """The logs of trainings."""
    gpu = store.source("training/h100-*.jsonl")
    cpu = [store.source(f"training/{name}.jsonl", of=name) for name in ON_CPU]
    begun = (
        "The first three went on from step 200; what began with random weights has no --pretrained."
    )
    return [
        _runs(store, "Runs on the H100, five at a time", ON_H100, [gpu], begun),
        _runs(store, "Runs on 2 cores", ON_CPU, cpu, ""),
    ]


def _runs(
    store: Store, title: str, names: Mapping[str, str], sources: list[Source], note: str
) -> Table:
    rows = []
    for name, what in names.items():
        log = store.lines(f"training/{name}.jsonl")
        found = [f"{100 * line['miou']:.2f}" for line in log if "miou" in line]
        best = max(found, key=float)
        cells = [f"**{value}**" if value == best else value for value in found]
        rows.append([name, what, log[-1]["step"], cells])
    columns = ["log", "network", "steps", "validation mIoU at each evaluation, %"]
    return Table(title, columns, rows, sources, note)


def table4(store: Store) -> list[Table]:
    """The rows of the paper's Table 4 at a short schedule."""
    return [_seeds(store, "training/table4.json", "Table 4's rows at half width", "row")]


def options(store: Store) -> list[Table]:
    """The trainer's options, each alone."""
    return [_seeds(store, "training/options.json", "The trainer's options, each alone", "option",
                   by_mean=True)]  # fmt: skip


def _seeds(store: Store, name: str, title: str, head: str, *, by_mean: bool = False) -> Table:
    """Mean and differences to the first row, seed by seed; the others by mean where asked."""
    found = store.json(name)
    (first, base), *others = found["miou_percent"].items()
    if by_mean:
        others.sort(key=lambda item: -fmean(item[1]))
    rows = [[first, *_each(base), ""]]
    rows += [[label, *_each(values), [f"{a - b:+.1f}" for a, b in zip(values, base, strict=True)]]
             for label, values in others]  # fmt: skip
    columns = [head, "validation mIoU %, each seed", "mean", "difference to the first, each seed"]
    note = f"`{found['stage']}`, seeds {', '.join(map(str, found['seeds']))}."
    return Table(title, columns, rows, [store.source(name)], note)


def _each(values: Sequence[float]) -> list[Any]:
    return [[f"{value:.1f}" for value in values], f"{fmean(values):.1f}"]
