"""Whether time grows linearly with pixels: one network at several sizes, in turn, in one process.

    for size in 256x512 512x1024 768x1536 1024x2048
    do hmseg-deploy compile -m tiny-mrms -r $size -o $size.hmseg; done
    python benchmarks/linearity.py *.hmseg [--threads 2] [--rounds 9]

Nanoseconds a pixel from image to labels, every copy counted: the median over the rounds of the
medians of a round, and their range; then each size's against the smallest's, round by round.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import numpy as np

from deploy import host
from deploy.cli.console import run_main
from deploy.measure.interleave import Protocol, Samples, interleave
from deploy.measure.statistics import ratio_of_rounds
from deploy.resolution import Resolution
from lut.errors import UserError


def per_pixel(samples: Samples, pixels: int) -> Samples:
    """The samples divided by the number of pixels, in picoseconds, so that they stay whole."""
    return [[1000 * value // pixels for value in block] for block in samples]


def table(samples: dict[int, Samples], names: dict[int, str]) -> list[str]:
    """A markdown row for each number of pixels, ascending."""
    scaled = {pixels: per_pixel(samples[pixels], pixels) for pixels in sorted(samples)}
    first = next(iter(scaled.values()))
    rows = [
        "| size | ms | ns a pixel [range] | against the smallest [range] |",
        "|---|---|---|---|",
    ]
    for pixels, values in scaled.items():
        ns = [np.median(block) / 1000 for block in values]
        ratio = ratio_of_rounds(values, first)
        rows.append(
            f"| {names[pixels]} | {np.median(ns) * pixels / 1e6:.2f} | {np.median(ns):.2f} "
            f"[{min(ns):.2f}..{max(ns):.2f}] | {ratio.median:.3f} "
            f"[{ratio.low:.3f}..{ratio.high:.3f}] |"
        )
    return rows


def names_by_pixels(sizes: list[Resolution]) -> dict[int, str]:
    """What each number of pixels is called. Raises UserError where two sizes have as many, as their
    times could not be told apart."""
    names: dict[int, str] = {}
    for size in sizes:
        pixels = size.height * size.width
        if pixels in names:
            raise UserError(
                f"{names[pixels]} and {size} have equally many pixels; give one of them"
            )
        names[pixels] = str(size)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeat", type=int, default=6, help="calls in a block")
    arguments = parser.parse_args()
    from deploy.runtime import load

    networks = [load(path, threads=arguments.threads) for path in arguments.artifacts]
    names = names_by_pixels([network.metadata.resolution for network in networks])
    sides = {
        str(pixels): partial(network, network.artifact.golden_input)
        for pixels, network in zip(names, networks, strict=True)
    }
    protocol = Protocol(warmup=2, repeat=arguments.repeat, rounds=arguments.rounds)
    samples = interleave(sides, protocol)
    print(f"{networks[0].metadata.model}, {arguments.threads} threads, {host.cpu_model()}")
    print("\n".join(table({int(key): value for key, value in samples.items()}, names)))


if __name__ == "__main__":
    run_main(main)
