"""Networks x peers: each peer's time over ours, and what is wanted."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers_lib.bars import PEERS, Row
from lut.files import atomic_path


def draw_bars(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write a PNG or SVG, by the suffix: a panel for each size and number of threads, the networks
    in the order of `rows`, on a logarithmic scale. The line at 1 is where a peer is as fast as we
    are: below it the peer wins. A black mark is the bar, and stands on the fastest peer's ratio
    where that one counts."""
    from matplotlib.figure import Figure  # heavy

    panels = list(dict.fromkeys((row.config.resolution, row.config.threads) for row in rows))
    panels.sort(key=lambda panel: (_pixels(rows, panel[0]), panel[1]))
    names = list(dict.fromkeys(_name(row) for row in rows))
    figure = Figure(
        figsize=(max(6.0, 0.45 * len(names) + 2), 1.2 + 2.4 * len(panels)), layout="constrained"
    )
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    peers = [peer for peer in PEERS if any(peer in row.ratios for row in rows)]
    width = 0.8 / max(1, len(peers))
    for axis, (resolution, threads) in zip(axes, panels, strict=True):
        here = [
            row for row in rows
            if (row.config.resolution, row.config.threads) == (resolution, threads)
        ]  # fmt: skip
        for index, peer in enumerate(peers):
            points = [(names.index(_name(r)), r.ratios[peer]) for r in here if peer in r.ratios]
            if not points:
                continue
            x = [place + (index + 0.5) * width - 0.4 for place, _ in points]
            y = [ratio.median for _, ratio in points]
            spread = [
                [ratio.median - ratio.low for _, ratio in points],
                [ratio.high - ratio.median for _, ratio in points],
            ]
            axis.bar(
                x, [value - 1 for value in y], width, bottom=1, color=f"C{index}", label=peer,
                yerr=spread, error_kw={"elinewidth": 0.7, "ecolor": "0.35"},
            )  # fmt: skip
        for row in here:
            place = names.index(_name(row))
            if row.wanted is not None:
                axis.plot([place - 0.4, place + 0.4], [row.wanted] * 2, color="black", lw=1.5)
            if row.failed:
                axis.text(place, 1, "x", ha="center", va="center", color="red")
        axis.axhline(1, color="black", lw=0.8)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.grid(axis="y", alpha=0.3, which="both")
        axis.set_title(f"{resolution}, {threads} thread{'s' * (threads > 1)}", fontsize=9)
        axis.set_ylabel("peer's time / ours")
    axes[-1].set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes[-1].set_xlim(-0.6, len(names) - 0.4)
    if peers:
        bars = {
            label: bar
            for axis in axes
            for bar, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            list(bars.values()), list(bars), fontsize=8, loc="outside lower right", ncols=len(peers)
        )
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format=path.suffix[1:])


def _pixels(rows: Sequence[Row], resolution: str) -> int:
    """Pixels of a size that one of the rows has."""
    size = next(row.config.size for row in rows if row.config.resolution == resolution)
    return size.height * size.width


def _name(row: Row) -> str:
    by = f" ({row.config.exporter})" if row.config.exporter == "legacy" else ""
    return row.config.model + by
