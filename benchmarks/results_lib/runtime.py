"""What a program that runs an artifact pays for the runtime."""

from typing import Any

from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import Table, bar, ratio

_FILES = "runtime*.jsonl"  # one for each machine
_IDLE, _CALLERS, _P99, _EXIT_S, _LOAD_MS = 1.10, 1.85, 1.5, 0.2, 50


def runtime(store: Store) -> list[Table]:
    """Of each machine: frames beside TVM's runtime; callers, loading and ending by themselves."""
    return [table for name in store.names(_FILES) for table in _tables(store, name)]


def _tables(store: Store, name: str) -> list[Table]:
    found: list[dict[str, Any]] = store.lines(name)
    rows = [
        [
            f"{result['artifact']}", str(row["threads"]), f"{row['ms']['new']:.2f}",
            bar(row["ratio"]["median"] >= 1, ratio(row["ratio"], 3)),
            f"{row['p90_ms']['old'] / row['p90_ms']['new']:.3f}",
            _idle(row), "{new:.1f} ({old:.1f})".format(**row["cpu_ms_after_pauses"]),
        ]
        for result in found
        for row in result["compared"]
    ]  # fmt: skip
    columns = [
        "artifact", "threads", "ms", "TVM's runtime / ours, bar 1", "p90, TVM's / ours",
        f"after 20 ms of idleness / warm (TVM's), bar {_IDLE}", "CPU ms a frame then (TVM's)",
    ]  # fmt: skip
    frames = Table("The runtime", columns, rows, [store.source(name)], "")
    alone = [_alone(result) for result in found]
    columns = [
        "artifact", f"frames/s of 2 callers with 1 thread each over 1, bar {_CALLERS}",
        "threads left by 300 callers", "MiB more",
        f"their p99 / median of the first 20, bar {_P99}",
        f"exit, s, bar {_EXIT_S}", f"load beside numpy, ms (median of 7), bar {_LOAD_MS}",
    ]  # fmt: skip
    return [frames, Table("The runtime, by itself", columns, alone, [store.source(name)], "")]


def _idle(row: dict[str, Any]) -> str:
    new, old = (row["idle_over_warm"][side] for side in ("new", "old"))
    text = f"{new:.2f} ({old:.2f})"
    return bar(new <= _IDLE, text) if row["threads"] > 1 else text


def _alone(result: dict[str, Any]) -> list[str]:
    callers, requests = sorted(result["two_callers_over_one"]), result["requests"]
    load = sorted(result["load_ms"])[len(result["load_ms"]) // 2]
    p99 = requests["p99"] / requests["first"]
    middle = callers[len(callers) // 2]
    return [
        result["artifact"],
        bar(middle >= _CALLERS, f"{middle:.2f} [{callers[0]:.2f}..{callers[-1]:.2f}]"),
        bar(requests["threads_left"] == 0, str(requests["threads_left"])),
        f"{requests['more_mib']:.1f}", bar(p99 <= _P99, f"{p99:.2f}"),
        bar(requests["exit_s"] < _EXIT_S, f"{requests['exit_s']:.2f}"),
        bar(load <= _LOAD_MS, f"{load:.0f}"),
    ]  # fmt: skip
