"""What compiling takes with the object cache, and without."""

from benchmarks.object_cache import CASES, Found
from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import Table, bar

BAR_AGAIN_S = 2.0
_SAID = {
    "without": "--no-cache",
    "first": "into an empty cache",
    "again": "the same again",
    "classes": "11 classes instead of 19",
    "size": "256x544 instead of 256x512",
}


def cached(store: Store) -> list[Table]:
    """Lowering, machine code and linking of networks of the zoo."""
    name = "object-cache.json"
    result = store.json(name)
    found: dict[str, dict[str, list[Found]]] = result["found"]
    rows = []
    for network, cases in found.items():
        for case in CASES:
            runs = cases[case]
            seconds = sorted(run["seconds"] for run in runs)
            text = f"{seconds[0]:.2f} [..{seconds[-1]:.2f}]"
            rows.append([
                network, _SAID[case], f"{runs[0]['compiled']} of {runs[0]['kernels']}",
                bar(seconds[0] < BAR_AGAIN_S, text) if case == "again" else text,
                f"{min(run['cpu_seconds'] for run in runs):.2f}",
            ])  # fmt: skip
    source = store.source(
        name, chip=result["machine"], command=result["command"], date=result["date"],
        versions=result["versions"],
    )  # fmt: skip
    columns = ["network", "", "kernels compiled", f"s, bar {BAR_AGAIN_S:.0f} for the same again",
               "of CPU time, s"]  # fmt: skip
    note = (
        "From the exported graph to the linked library: the step `compiling` without its parity "
        "gate. The fastest of the rounds and the slowest. A kernel knows the size of its map: "
        "another size is another kernel ([0034](decisions/0034-object-cache.md))."
    )
    return [Table("With the object cache", columns, rows, [source], note)]
