"""What int8 costs in accuracy and in bytes."""

from benchmarks.results_lib.store import Store
from benchmarks.results_lib.table import Table, bar

MOST_LOST = 0.4  # points of mIoU, without fine-tuning
_NAME = "quantisation.json"


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
