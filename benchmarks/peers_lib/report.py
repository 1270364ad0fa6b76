"""The results in words and pictures: markdown tables, and frames per second against size."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.peers_lib.adapters import OURS, PEERS
from benchmarks.peers_lib.job import JOBS, Config
from benchmarks.peers_lib.results import Record
from deploy.measure.statistics import Ratio, ratio_of_rounds

SLOW_PHASE = 0.85  # of the best probe known with as many threads


def ratios(record: Record) -> dict[str, Ratio]:
    """Each peer's time over ours."""
    ours = record["sides"][OURS]["samples_ns"]
    return {
        name: ratio_of_rounds(side["samples_ns"], ours)
        for name, side in record["sides"].items()
        if name != OURS
    }


def fastest_peer(record: Record) -> str | None:
    """The peer with the lowest time over ours (`ratios`): that of its median latency may be
    another, as each is the median of something else."""
    found = ratios(record)
    return min(found, key=lambda name: found[name].median) if found else None


def best_probe(records: Iterable[Record], threads: int) -> float | None:
    """The highest FMA rate that any run with as many threads saw, GFLOP/s."""
    return max(
        (
            value
            for record in records
            if record["config"]["threads"] == threads
            for side in record["sides"].values()
            for value in side["probe_gflops"]
        ),
        default=None,
    )


def detail(record: Record, records: Iterable[Record]) -> str:
    """A table of all sides of one record, and what did not run.

    `records`, of the same machine, tell how fast it can be: a run may be slow from end to end.
    """
    config = Config(**record["config"])
    found, fastest = ratios(record), fastest_peer(record)
    our_min = record["sides"][OURS]["latency"]["min_ms"]
    lines = [
        f"### {config.model} {config.resolution}, {config.threads} threads: {JOBS[config.job]}",
        "",
        "| side | version | min ms | median ms | p90 ms | FPS | time / ours [range] "
        "| min / our min | peak MiB (of it network) | arg-max |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, side in sorted(record["sides"].items(), key=lambda x: x[1]["latency"]["median_ms"]):
        latency, memory = side["latency"], side["memory"]
        mark = " (fastest peer)" if name == fastest else ""
        ratio = _text(found[name]) if name in found else "1"
        network = (memory["peak_kib"] - memory["base_kib"]) / 1024
        lines.append(
            f"| {name}{mark} | {next(iter(side['versions'].values()))} "
            f"| {latency['min_ms']:.2f} | {latency['median_ms']:.2f} | {latency['p90_ms']:.2f} "
            f"| {1e3 / latency['median_ms']:.1f} | {ratio} "
            f"| {latency['min_ms'] / our_min:.2f} "
            f"| {memory['peak_kib'] / 1024:.0f} ({network:.0f}) | {side['label_end'] or '-'} |"
        )
    best = best_probe(records, config.threads)
    share = fma_share(record, best)
    lines += ["", f"FMA probe: {_probe(record, best)}"]
    if share is not None:
        lines += [f"{OURS}: {share:.1%} of the FMA ceiling, every copy counted", ""]
    lines += [f"- not run: {name}: {reason}" for name, reason in record["skipped"].items()]
    for name, side in record["sides"].items():
        lines += [f"- {name}: arg-max in its {end} failed: {reason}"
                  for end, reason in side["label_ends_failed"].items()]  # fmt: skip
    return "\n".join(lines)


def fma_share(record: Record, best: float | None) -> float | None:
    """Share that ours reached of `best`, the highest FMA rate seen: median over the rounds.

    Rounds in a slow phase, by the probe before them, do not count; None where none is left.
    """
    ours = record["sides"][OURS]
    shares = [
        2e-9 * record["macs"] / (np.median(block) / 1e9) / best
        for block, probe in zip(ours["samples_ns"], ours["probe_gflops"], strict=False)
        if best is not None and probe >= SLOW_PHASE * best
    ]
    return float(np.median(shares)) if shares else None


def document(records: dict[Config, Record]) -> str:
    """Everything as one markdown page: where the figures come from, all configurations in a row
    each, then every side of each with its spread and its peak memory."""
    parts = ["# Beside other runtimes", provenance(records), overview(records)]
    ordered = sorted(records.items(), key=lambda item: _order(item[0]))
    parts += [detail(record, records.values()) for _, record in ordered]
    return "\n\n".join(parts) + "\n"


def provenance(records: dict[Config, Record]) -> str:
    """Machines, dates, versions and commands behind the records, in words."""
    machines = {
        f"{m['cpu']}, {m['cores']} cores, Linux {m['kernel']}, Python {m['python']}"
        for m in (record["machine"] for record in records.values())
    }
    dates = sorted(record["date"] for record in records.values())
    packages = sorted({
        f"{package} {version}"
        for record in records.values()
        for side in record["sides"].values()
        for package, version in side["versions"].items()
    })  # fmt: skip
    protocols = {
        f"{p['rounds']} rounds of blocks of {p['block_s']:g} s"
        for p in (record["protocol"] for record in records.values())
    }
    commands = dict.fromkeys(record["command"] for record in records.values())
    return "\n".join(
        [
            f"Machine: {'; '.join(sorted(machines))}. Measured {dates[0]} to {dates[-1]}, "
            f"{', '.join(sorted(protocols))} of each side. Packages: {', '.join(packages)}.",
            "",
            *(f"    {command}" for command in commands),
        ]
    )


def overview(records: dict[Config, Record]) -> str:
    """One row a configuration: ours, the ratio to the fastest peer, and to each peer."""
    peers = list(dict.fromkeys(
        name for r in records.values() for name in (*r["sides"], *r["skipped"]) if name != OURS
    ))  # fmt: skip
    head = ["network", "size", "threads", "job", "ours ms", "FPS", "of the FMA ceiling",
            "our peak MiB / onnxruntime's", "fastest peer", "ratio to it"]  # fmt: skip
    lines = ["| " + " | ".join(head + peers) + " |", "|---" * (len(head) + len(peers)) + "|"]
    for config, record in sorted(records.items(), key=lambda item: _order(item[0])):
        found, fastest = ratios(record), fastest_peer(record)
        median = record["sides"][OURS]["latency"]["median_ms"]
        best = best_probe(records.values(), config.threads)
        share, slow = fma_share(record, best), " (slow machine)" if _was_slow(record, best) else ""
        memory = " / ".join(_peak_mib(record, name) for name in (OURS, "onnxruntime"))
        cells = [
            config.model, config.resolution, str(config.threads), config.job, f"{median:.2f}",
            f"{1e3 / median:.1f}", "-" if share is None else f"{share:.1%}", memory,
            fastest or "-", (_text(found[fastest]) if fastest else "-") + slow,
        ]  # fmt: skip
        cells += [
            _text(found[name]) if name in found
            else "not run" if name in record["skipped"] else "not asked"
            for name in peers
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    reasons = {
        f"- {name} not run ({config}): {reason}"
        for config, record in records.items()
        for name, reason in record["skipped"].items()
    }
    return "\n".join([*lines, "", *sorted(reasons)])


def plot(records: dict[Config, Record], job: str, path: Path) -> None:
    """Frames per second against image size, a panel per network and number of threads.

    The suffix of `path` chooses PNG or SVG (the paper's Figure 6 has this form).
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    chosen = {c: r for c, r in records.items() if c.job == job}
    panels = sorted({(c.model, c.threads) for c in chosen})
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 4.2), squeeze=False, layout="constrained"
    )
    for axis, (model, threads) in zip(axes[0], panels, strict=True):
        rows = sorted(
            ((c, r) for c, r in chosen.items() if (c.model, c.threads) == (model, threads)),
            key=lambda item: _order(item[0]),
        )
        for index, name in enumerate((OURS, *PEERS)):
            points = [
                (c.size.height * c.size.width / 1e6, r["sides"][name]["latency"])
                for c, r in rows
                if name in r["sides"]
            ]
            if not points:
                continue
            style = {"linewidth": 2.5, "zorder": 3} if name == OURS else {"linewidth": 1.2}
            axis.plot(
                [x for x, _ in points], [1e3 / y["median_ms"] for _, y in points],
                marker="o", markersize=4, color=f"C{index}", label=name, **style,
            )  # fmt: skip
        axis.set(
            xscale="log", yscale="log", xlabel="image size", ylabel="frames per second",
            title=f"{model}, {threads} thread{'s' if threads > 1 else ''}",
        )  # fmt: skip
        ticks = {c.size.height * c.size.width / 1e6: c.resolution for c, _ in rows}
        axis.set_xticks(list(ticks), list(ticks.values()), minor=False)
        axis.set_xticks([], minor=True)
        axis.grid(which="both", alpha=0.25)
    if panels:
        axes[0][-1].legend(fontsize=8)
    machine = next((r["machine"]["cpu"] for r in chosen.values()), "")
    figure.suptitle(f"{JOBS[job]}, fp32, {machine}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _peak_mib(record: Record, name: str) -> str:
    side = record["sides"].get(name)
    return f"{side['memory']['peak_kib'] / 1024:.0f}" if side else "-"


def _text(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} [{ratio.low:.2f}..{ratio.high:.2f}]"


def _probe(record: Record, best: float | None) -> str:
    values = _probes(record)
    if not values or best is None:
        return str(record["probe"])
    slow = sum(value < SLOW_PHASE * best for value in values)
    text = (
        f"{min(values):.0f} to {max(values):.0f} GFLOP/s before the blocks; {slow} of "
        f"{len(values)} under {SLOW_PHASE:.0%} of {best:.0f}, the best known"
    )
    again = ": the machine was not free, measure again" if _was_slow(record, best) else ""
    return text + again


def _probes(record: Record) -> list[float]:
    return [v for side in record["sides"].values() for v in side["probe_gflops"]]


def _was_slow(record: Record, best: float | None) -> bool:
    """Whether half of the probes or more were in a slow phase."""
    values = _probes(record)
    return best is not None and 2 * sum(v < SLOW_PHASE * best for v in values) > len(values)


def _order(config: Config) -> tuple[str, str, int, int]:
    return config.model, config.job, config.threads, config.size.height * config.size.width
