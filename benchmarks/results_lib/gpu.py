"""Compiled networks on GPUs."""

from benchmarks.gpu_report import BAR_RESOLUTIONS, MOST_OVER_FLOOR
from benchmarks.results_lib.store import Store, unique
from benchmarks.results_lib.table import Table, bar, ratio


def frames(store: Store) -> list[Table]:
    """Ours beside the GPU's other runtimes, a table for each file of benchmarks/gpu.sh."""
    return [_frames(store, name) for name in store.names("gpu-*.json")]


def _frames(store: Store, name: str) -> Table:
    found = store.json(name)
    provenance = found["provenance"]
    peers = unique([peer for row in found["rows"] for peer in row["ratios"]])
    rows = []
    for row in sorted(found["rows"], key=lambda r: (r["resolution"] != "768x1536", r["model"])):
        medians = [r["median"] for r in row["ratios"].values()]
        over = row["compute_over_floor"]
        parts = [row["parts_ms"][part] for part in ("upload_ms", "compute_ms", "download_ms")]
        errors = [image["max_logit_error"] for image in row["parity"]]
        passed = sum(image["passed"] for image in row["parity"])
        judged = bool(medians) and row["resolution"] in BAR_RESOLUTIONS
        verdict = bar(min(medians) >= 1.0) if judged else ""
        rows.append([
            row["model"], row["resolution"], f"{row['latency']['hmseg']['median_ms']:.3f}",
            *(ratio(row["ratios"][peer]) if peer in row["ratios"] else "" for peer in peers),
            verdict, ", ".join(f"{part:.3f}" for part in parts),
            bar(over <= MOST_OVER_FLOOR, f"{over:.2f}"), f"{passed} of {len(errors)}",
            f"{max(errors):.1e}",
        ])  # fmt: skip
    columns = ["network", "size", "ours, ms", *(f"{peer} / ours" for peer in peers),
               "fastest peer, bar 1", "on the GPU: up, compute, down, ms",
               f"compute / memory floor, bar {MOST_OVER_FLOOR:g}", "images within tolerance",
               "largest logit error"]  # fmt: skip
    source = store.source(
        name, command=provenance["command"], date=provenance["date"],
        versions=provenance["versions"], chip=provenance["gpu"],
    )  # fmt: skip
    protocol = provenance["protocol"]
    left = "; ".join(found["left_out"])
    note = (
        f"{provenance['precision']}, {protocol['rounds']} rounds of {protocol['repeat']} frames, "
        "the image on the host to the labels there."
    ) + (f" Left out: {left}." if left else "")
    return Table(f"Frames on the {provenance['gpu']}", columns, rows, [source], note)
