"""Parity, other runtimes and kernels on CPUs."""

from statistics import median
from typing import Any

from benchmarks.peers_lib.adapters import OURS
from benchmarks.peers_lib.job import Config
from benchmarks.peers_lib.report import best_probe, fastest_peer, fma_share, ratios
from benchmarks.peers_lib.results import latest
from benchmarks.results_lib.store import Store, unique
from benchmarks.results_lib.table import Table, bar, ratio

# The fastest peer's time over ours, at least. Where as much would take more of the FMA ceiling than
# POSSIBLE, SHARE of the ceiling is the bar in its place.
PEER_BARS = {
    ("tiny-mrms", "labels"): 3.0,
    ("mrms", "labels"): 2.2,
    ("tiny-mrms", "float-logits"): 2.2,
    ("mrms", "float-logits"): 1.8,
}
POSSIBLE, SHARE = 0.95, 0.80
PEER_SIZES = ("256x512", "768x1536")  # on the page; the others are in the file's own page
MEMORY = ("labels", "768x1536", 0.5)  # at most so much of onnxruntime's peak


def parity(store: Store) -> list[Table]:
    """torch, onnxruntime and the compiled binary against each other."""
    name = "verify-matrix.json"
    found = store.json(name)
    rows = []
    for size in unique([row["resolution"] for row in found["rows"]]):
        here = [row for row in found["rows"] if row["resolution"] == size]
        sides = [row[side] for row in here for side in ("tvm", "torch")]
        error, differing, unexplained = (
            max(side[f"max_{key}"] for side in sides)
            for key in ("share_of_tolerance", "differing_share", "unexplained_share")
        )
        rows.append([
            size, f"{sum(row['passed'] for row in here)} of {len(here)}", f"{error:.0%}",
            f"{differing:.3%}", f"{unexplained:.3%}",
        ])  # fmt: skip
    source = store.source(
        name, command=found["command"], date=found["date"], versions=found["versions"],
        chip=found["machine"]["cpu"],
    )  # fmt: skip
    columns = ["size", "networks that pass", "logit error, of what is allowed",
               "pixels with another label", "of them no tie"]  # fmt: skip
    note = "torch, onnxruntime and the binary on five images each; the largest of all."
    return [Table("Parity", columns, rows, [source], note)]


def peers(store: Store) -> list[Table]:
    """Ours beside the other runtimes, a table for each machine's file."""
    return [_peers(store, name) for name in store.names("peers-*.jsonl")]


def _peers(store: Store, name: str) -> Table:
    every = store.lines(name)
    records = latest(every)
    shown = {config: r for config, r in records.items() if config.resolution in PEER_SIZES}
    # The labels first; then as the bars stand, with networks without a bar behind.
    models = unique([*(model for model, _ in PEER_BARS), *(config.model for config in shown)])
    ordered = sorted(shown, key=lambda c: (c.job != "labels", models.index(c.model),
                                           PEER_SIZES.index(c.resolution), c.threads))  # fmt: skip
    rows = []
    for config in ordered:
        record = shown[config]
        found, fastest = ratios(record), fastest_peer(record)
        share = fma_share(record, best_probe(every, config.threads))
        ours = record["sides"][OURS]["latency"]["median_ms"]
        peer = found[fastest] if fastest else None
        rows.append([
            config.named, config.resolution, config.job, config.threads, f"{ours:.2f}",
            "" if share is None else f"{share:.1%}", fastest, ratio(peer) if peer else "",
            f"{found['onnxruntime'].median:.2f}" if "onnxruntime" in found else "",
            _peer_bar(config, peer.median if peer else None, share), _memory(config, record),
        ])  # fmt: skip
    columns = ["network", "size", "job", "threads", "ours, ms", "of the FMA ceiling",
               "fastest peer", "its time / ours", "onnxruntime's", "bar",
               "peak MiB, ours / onnxruntime's"]  # fmt: skip
    versions = {
        package: version
        for record in shown.values()
        for side in record["sides"].values()
        for package, version in side["versions"].items()
    }
    (chip,) = {record["machine"]["cpu"] for record in shown.values()}  # the file's name has it
    source = store.source(
        name, command=unique([shown[config]["command"] for config in ordered]), chip=chip,
        versions=versions, date=max(record["date"] for record in shown.values()),
    )  # fmt: skip
    page = name.removesuffix("l").removesuffix(".json") + ".md"
    note = (
        "Every copy counted; median [range] over the rounds. Every side, size and version is in "
        f"[{page}](../benchmarks/results/{page}), the samples beside it."
    )
    return Table("Beside other runtimes", columns, rows, [source], note)


def _peer_bar(config: Config, found: float | None, share: float | None) -> str:
    wanted = PEER_BARS.get((config.named, config.job))
    if wanted is None or found is None:
        return ""
    needed = 0.0 if share is None else share * wanted / found
    if found < wanted and share is not None and needed > POSSIBLE:
        return bar(share >= SHARE, f"{SHARE:.0%} of the ceiling, as {wanted} takes {needed:.0%}")
    return bar(found >= wanted, f"{wanted}")


def _memory(config: Config, record: dict[str, Any]) -> str:
    sides = [record["sides"].get(name) for name in (OURS, "onnxruntime")]
    if None in sides:
        return ""
    ours, theirs = (side["memory"]["peak_kib"] / 1024 for side in sides)
    said, (job, size, most) = f"{ours:.0f} / {theirs:.0f}", MEMORY
    judged = (config.job, config.resolution) == (job, size)
    return bar(ours <= most * theirs, said) if judged else said


def kernels(store: Store) -> list[Table]:
    """Each kind of kernel against the FMA probe beside it, a table for each machine's file."""
    return [_kernels(store, name) for name in store.names("kernels-*.jsonl")]


def _kernels(store: Store, name: str) -> Table:
    records = store.lines(name)
    modes = sorted({(r["isa"], r["threads"]) for r in records}, key=lambda m: (m[1], m[0]))
    rows = []
    for kernel in unique([_kind(r) for r in records]):
        mine = [r for r in records if _kind(r) == kernel]
        cells = [_speed([r for r in mine if (r["isa"], r["threads"]) == mode]) for mode in modes]
        rows.append([kernel, len({str(r["spec"]) for r in mine}), *cells])
    columns = ["kernel", "shapes", *(f"{isa}, {n} thread{'s' * (n > 1)}" for isa, n in modes)]
    date = max(record["date"] for record in records)
    source = store.source(name, date=date, versions={"apache-tvm": records[0]["tvm"]})
    note = (
        "Share of the FMA probe timed just before and after: median [lowest..highest] over the "
        "shapes; the highest GFLOP/s. Of what multiplies nothing, the fastest call. Each shape: "
        "[kernels.md](kernels.md#measured)."
    )
    return Table("Kernels", columns, rows, [source], note)


def _kind(record: dict[str, Any]) -> str:
    spec = record["spec"]  # before operations had a text of their own, fields
    output = spec.get("output") if isinstance(spec, dict) else None
    return f"{record['kernel']}, {output}" if output else record["kernel"]


def _speed(records: list[dict[str, Any]]) -> str:
    shares = [r["fma_share_median"] for r in records if r["fma_share_median"] is not None]
    if not shares:
        return ", ".join(f"{min(r['microseconds']):.1f} us" for r in records)
    middle = f"{median(shares):.2f}"
    spread = f"{middle} [{min(shares):.2f}..{max(shares):.2f}]" if len(shares) > 1 else middle
    return f"{spread}, {max(r['gflops_best'] for r in records):.0f}"
