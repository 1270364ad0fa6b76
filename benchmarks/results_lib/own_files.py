"""What the compiler makes of peer networks, exported to ONNX as users do."""

from collections import defaultdict
from typing import Any

from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import MISSED, Table

NAME = "own-files.jsonl"


def own_files(store: Store) -> list[Table]:
    """A row for each network and size: the gate's verdict on each file, the slowest compilation."""
    compiled = {row["path"]: row for row in store.lines(NAME) if row["step"] == "compile"}
    files: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    slowest: dict[tuple[str, str], float] = defaultdict(float)
    for row in store.lines(NAME):
        if row["step"] != "export":
            continue
        size = row["path"].removesuffix(".onnx").rpartition("-")[2]
        key, found = (row["network"], size), compiled.get(row["path"])
        files[key][f"{row['exporter']} {row['asked']}"] = _verdict(row, found)
        slowest[key] = max(slowest[key], (found or {}).get("seconds", 0))
    columns = sorted({column for row in files.values() for column in row})
    rows = [
        [*key, *(found.get(column, "") for column in columns), f"{slowest[key]:.0f}"]
        for key, found in sorted(files.items())
    ]
    note = (
        "Random weights, batch norm calibrated; the largest error over what the gate allows, which "
        "must be below 1 ([0037](decisions/0037-parity-gate.md)). `same`: a file equal to that of "
        "another opset, which is compiled once. Seconds of reading, compiling and checking beside "
        "other programs."
    )
    source = store.source(NAME)
    columns = ["network", "size", *columns, "s"]
    return [Table("Networks that users bring", columns, rows, [source], note)]


def _verdict(row: dict[str, Any], found: dict[str, Any] | None) -> str:
    if "failed" in row:
        return f"not exported: {row['why'][:60]}"
    if found is None:
        return "same" if row.get("runs") else "torch and onnxruntime differ"
    if "failed" in found:
        return f"{MISSED}: {found['failed']}"
    return f"{found['share_of_tolerance']:.2f}"
