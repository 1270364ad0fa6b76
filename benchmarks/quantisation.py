"""What int8 costs the released networks: mIoU of a split that they were not calibrated on.

    python -m benchmarks.quantisation --data CAMVID [--models tiny-hmseg tiny-mrms] [-o FILE]

Each network is calibrated on frames of the training split (`deploy.quantise`), without a look at
their masks, and with no training. Then onnxruntime runs both graphs on the whole validation split,
at the frames' own size. Exit code 1 where more points are lost than `MOST_LOST`.
"""

import argparse
import dataclasses
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from deploy.cli.console import print_table, run_main, say
from deploy.graph.reference import OnnxSession
from deploy.graph.source import open_source
from deploy.host import default_threads
from deploy.quantise.frames import open_frames
from deploy.quantise.request import MOST
from deploy.quantise.run import Options, quantise
from deploy.resolution import Resolution
from hmseg.data.dataset import SegmentationData
from hmseg.data.registry import open_dataset
from hmseg.train.confusion import Confusion
from lut.files import atomic_path

MOST_LOST = 0.4  # points of mIoU


def miou(model: onnx.ModelProto, data: SegmentationData) -> float:
    """Points of mIoU of a graph with both ends over a split whose frames are of its size."""
    session, confusion = OnnxSession(model, threads=default_threads()), Confusion(len(data.classes))
    for index in range(len(data)):
        image, labels = data.load(index)
        confusion.add(labels, session.run(image)[0])
    return 100 * confusion.miou


def measure(model: str, root: Path, frames: int) -> dict[str, Any]:
    """One network: its figures on the validation split, and the report of its quantisation."""
    data = open_dataset("camvid", root, "val")
    size = Resolution(*data.load(0)[1].shape)
    source = open_source(model, resolution=size)
    taken = open_frames(root / "train", source.metadata, frames)
    taken = dataclasses.replace(taken, data=None)  # no look at the masks
    found = quantise(source.graph, taken, Options(threads=default_threads()))
    for line in found.report.lines():
        say(f"{model}: {line}")
    graphs = {"fp32": source.graph, "int8": found.graph}
    points = {name: miou(graph, data) for name, graph in graphs.items()}
    report = found.report.to_json()
    del report["maps"]
    return {
        "model": model, "resolution": str(size), "frames": len(data), "miou": points,
        "lost": points["fp32"] - points["int8"],
        "bytes": {name: graph.ByteSize() for name, graph in graphs.items()}, "report": report,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["tiny-hmseg", "tiny-mrms"])
    parser.add_argument("--frames", type=int, default=MOST)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    found = [measure(model, options.data, options.frames) for model in options.models]
    rows = [
        (one["model"], *(f"{one['miou'][k]:.2f}" for k in ("fp32", "int8")), f"{one['lost']:.2f}")
        for one in found
    ]
    print_table("camvid val, mIoU %", ("network", "fp32", "int8", "lost"), rows)
    if options.out:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "onnxruntime": version("onnxruntime"),
            "networks": found,
        }
        with atomic_path(options.out) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(one["lost"] > MOST_LOST for one in found))


if __name__ == "__main__":
    run_main(main)
