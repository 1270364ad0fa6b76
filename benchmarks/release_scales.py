"""Find the scales of released weights for int8, which ship beside them (hmseg/weights/int8/).

    python -m benchmarks.release_scales --data CAMVID [--models tiny-hmseg tiny-mrms]

They are calibrated on frames of the training split at their own size, without a look at their masks
(`deploy.quantise`). What they cost on the validation split: benchmarks/quantisation.py.
"""

import argparse
import dataclasses
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from deploy.cli.console import run_main, say
from deploy.graph.source import open_source
from deploy.host import default_threads
from deploy.quantise.frames import open_frames
from deploy.quantise.places import find_places
from deploy.quantise.request import MOST
from deploy.quantise.run import Options, quantise
from deploy.quantise.shipped import keys_of
from deploy.quantise.shipped_file import ShippedScales
from deploy.quantise.wiring import Wiring
from deploy.resolution import Resolution
from hmseg.data.registry import open_dataset
from lut.errors import UserError

DATA = "camvid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["tiny-hmseg", "tiny-mrms"])
    parser.add_argument("--frames", type=int, default=MOST)
    options = parser.parse_args()
    size = Resolution(*open_dataset(DATA, options.data, "train").load(0)[1].shape)
    for model in options.models:
        source = open_source(model, resolution=size)
        if source.released is None or source.released.data != DATA:
            raise UserError(f"{model} has no released {DATA} weights")
        frames = open_frames(options.data / "train", source.metadata, options.frames)
        frames = dataclasses.replace(frames, data=None)  # no look at the masks
        report = quantise(source.graph, frames, Options(threads=default_threads())).report
        for line in report.lines():
            say(f"{model}: {line}")
        keys = keys_of(find_places(Wiring(source.graph.graph), report.int8.kept))
        scales = ShippedScales(
            model, DATA, source.released.sha256, str(size), len(frames), report.int8.kept,
            {key: report.maps[name].grid for name, key in keys.items()},
            {
                "command": "python -m benchmarks.release_scales --data CAMVID",
                "split": "train", "ranges": report.int8.ranges,
                "date": datetime.now(UTC).date().isoformat(),
                "torch": version("torch"), "onnxruntime": version("onnxruntime"),
                "machine": platform.machine(),
            },
        )  # fmt: skip
        print(scales.save())


if __name__ == "__main__":
    run_main(main)
