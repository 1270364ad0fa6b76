"""Fit the classifiers of networks whose labels `benchmarks.precision` compares:

    python -m benchmarks.fit --data CAMVID [--models mrms bisenetv1-r18] [--frames 12]

A line for each: the share of the frames' pixels that it labels right. What is there already is not
made again (`--again`).
"""

import argparse
import sys
from pathlib import Path

from benchmarks.peers_lib import cache, fitted
from benchmarks.peers_lib.network import create
from benchmarks.precision import FITTED
from hmseg.data.registry import open_dataset
from lut.errors import HmsegError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the work failed, 2 the user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fit", description=__doc__.splitlines()[0]
    )
    names = [name.removesuffix(cache.FITTED) for name in FITTED]
    add = parser.add_argument
    add("--data", type=Path, required=True, help="CamVid's folder")
    add("--models", nargs="+", choices=names, default=names, metavar="NAME")
    add("--frames", type=int, default=12, help="of the training split")
    add("--again", action="store_true", help="also what was fitted already")
    options = parser.parse_args(arguments)
    try:
        data = open_dataset("camvid", options.data, "train")
        for name in options.models:
            if cache.path_of(name).exists() and not options.again:
                print(f"{name}: fitted already")
                continue
            network = create(name, fitted.SIZE)
            right = fitted.fit(network, data, options.frames)
            fitted.save_classifier(network, name)
            print(f"{name}: {right:.1%} of the pixels of {options.frames} frames", flush=True)
    except HmsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
