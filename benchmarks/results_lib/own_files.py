"""What the compiler makes of peer networks, exported to ONNX as users do."""

from collections import defaultdict
from typing import Any

from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import MISSED, Table

# The same at two sizes, with fewer of the opsets at the larger one.
NAMES = "own-files-128x256.jsonl", "own-files.jsonl"
HOSTILE = "hostile-files.jsonl"
DAMAGED = "fuzz.jsonl"
_LARGE = 50  # MB


def own_files(store: Store) -> list[Table]:
    """A row for each network and size: the gate's verdict on each file, the slowest compilation;
    what it takes to refuse files that are made to take everything; and damaged files."""
    return [*(_compiled(store, name) for name in NAMES), _hostile(store), _damaged(store)]


def _compiled(store: Store, name: str) -> Table:
    compiled = {row["path"]: row for row in store.lines(name) if row["step"] == "compile"}
    files: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    slowest: dict[tuple[str, str], float] = defaultdict(float)
    for row in store.lines(name):
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
    (size,) = {size for _, size in files}
    title = f"Networks that users bring, {size}"
    return Table(title, ["network", "size", *columns, "s"], rows, [store.source(name)], note)


def _hostile(store: Store) -> Table:
    found = store.lines(HOSTILE)
    kinds = {
        "small, asking for much": [row for row in found if row["MB"] < _LARGE],
        "of 100 MB": [row for row in found if row["MB"] >= _LARGE],
    }
    rows = [
        [
            kind,
            str(len(files)),
            str(sum(row["good"] for row in files)),
            f"{max(row['cpu_s'] for row in files):.0f}",
            str(max(row["MiB"] for row in files)),
            str(max(row["MiB"] - row["own_MiB"] for row in files)),
        ]
        for kind, files in kinds.items()
    ]
    columns = [
        "files", "tried", "refused in one line", "CPU s at most", "MiB at most",
        "of it more than the program's own",
    ]  # fmt: skip
    note = (
        "`hmseg-deploy compile` of files that are made to take all memory or time. MiB: resident, "
        "of all its processes together, with what the program is by itself; libraries that two of "
        "them share count twice."
    )
    return Table("Hostile files", columns, rows, [store.source(HOSTILE)], note)


def _damaged(store: Store) -> Table:
    rows = [
        [row["kind"], row["files"], len(row["escaped"]), row["MiB"]] for row in store.lines(DAMAGED)
    ]
    columns = ["kind", "files", "escaped, bar 0", "MiB at most"]
    note = (
        "Each is read until the program would compute. What escapes: a traceback, the end of the "
        "process, more than 1 GB of memory or 20 s of CPU time. MiB: resident, with the program."
    )
    return Table("Damaged files", columns, rows, [store.source(DAMAGED)], note)


def _verdict(row: dict[str, Any], found: dict[str, Any] | None) -> str:
    if "failed" in row:
        return f"not exported: {row['why'][:60]}"
    if found is None:
        return "same" if row.get("runs") else "torch and onnxruntime differ"
    if "failed" in found:
        return f"{MISSED}: {found['failed']}"
    return f"{found['share_of_tolerance']:.2f}"
