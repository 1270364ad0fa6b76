"""What int8 costs in accuracy and in bytes, and what making it takes."""

from benchmarks.int8_compile import MOST_BYTES, MOST_SECONDS
from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import Table, bar

MOST_LOST = 0.4  # points of mIoU, without fine-tuning
_NAME = "quantisation.json"
_COMPILE = "int8-compile.json"


def quantisation(store: Store) -> list[Table]:
    """Of the released networks."""
    result = store.json(_NAME)
    rows = []
    for one in result["networks"]:
        miou, size = one["miou"], one["bytes"]
        rows.append([
            one["model"], one["resolution"], f"{miou['fp32']:.2f}", f"{miou['int8']:.2f}",
            bar(one["lost"] <= MOST_LOST, f"{one['lost']:.2f}"),
            f"{size['fp32'] / 1e6:.2f}", f"{size['int8'] / 1e6:.2f}",
        ])  # fmt: skip
    source = store.source(
        _NAME, date=result["date"], versions={"onnxruntime": result["onnxruntime"]}
    )
    columns = [
        "network", "size", "fp32, %", "int8, %", f"points lost, bar {MOST_LOST}",
        "ONNX in fp32, MB", "in int8, MB",
    ]  # fmt: skip
    note = (
        "Validation mIoU in onnxruntime, calibrated on 100 training frames without their masks, no "
        "fine-tuning ([0066](decisions/0066-int8-is-a-qdq-graph.md))."
    )
    return [Table("In 8 bits", columns, rows, [source], note)]


def compiling(store: Store) -> list[Table]:
    """Calibrating and compiling as a user does, and the file."""
    result = store.json(_COMPILE)
    rows = []
    for number, one in enumerate(result["rows"]):
        megabytes = f"{one['bytes'] / 1e6:.3f}"
        rows.append([
            one["model"], one["resolution"], str(one["frames"]),
            bar(one["seconds"] <= MOST_SECONDS, f"{one['seconds']:.1f}"),
            megabytes if number else bar(one["bytes"] <= MOST_BYTES, megabytes),
        ])  # fmt: skip
    source = store.source(
        _COMPILE, chip=result["machine"], date=result["date"], versions=result["versions"]
    )
    columns = [
        "network", "size", "frames", f"s, bar {MOST_SECONDS}",
        f"artifact, MB, bar {MOST_BYTES / 1e6:g} at {result['rows'][0]['resolution']}",
    ]  # fmt: skip
    note = (
        "`hmseg-deploy compile --precision int8 --calibrate FOLDER --no-cache`, the whole command "
        f"on {result['cores']} cores, frames of 360x480. A larger size has a larger street in the "
        "file, by which it is verified."
    )
    return [Table("Calibrated and compiled in 8 bits", columns, rows, [source], note)]
