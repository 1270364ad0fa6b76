"""Networks of ours beside each other: which of them is faster, in one process, in turn.

    hmseg-deploy compile -m tiny-mrms -r 256x512 -o a.hmseg
    hmseg-deploy compile -m tiny-hmseg -r 256x512 -o b.hmseg
    python -m benchmarks.networks a.hmseg b.hmseg [--threads 2] [--rounds 15]

From image to labels, every copy counted: the median over the rounds of the medians of a round, and
their range; then each against the first, round by round. All must be of one resolution.
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
from lut.errors import UserError


def table(samples: dict[str, Samples]) -> list[str]:
    """A markdown row for each network, in the order given."""
    first = next(iter(samples.values()))
    rows = ["| network | ms [range] | against the first [range] |", "|---|---|---|"]
    for name, values in samples.items():
        ms = [np.median(block) / 1e6 for block in values]
        ratio = ratio_of_rounds(values, first)
        rows.append(
            f"| {name} | {np.median(ms):.3f} [{min(ms):.3f}..{max(ms):.3f}] | {ratio.median:.3f} "
            f"[{ratio.low:.3f}..{ratio.high:.3f}] |"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeat", type=int, default=20, help="calls in a block")
    arguments = parser.parse_args()
    from deploy.runtime import load

    networks = {path.stem: load(path, threads=arguments.threads) for path in arguments.artifacts}
    sizes = {str(network.metadata.resolution) for network in networks.values()}
    if len(networks) < len(arguments.artifacts) or len(sizes) > 1:
        raise UserError("give artifacts of different names and of one resolution")
    sides = {
        name: partial(network, network.artifact.golden_input) for name, network in networks.items()
    }
    samples = interleave(sides, Protocol(repeat=arguments.repeat, rounds=arguments.rounds))
    print(f"{sizes.pop()}, {arguments.threads} threads, {host.cpu_model()}")
    print("\n".join(table(samples)))


if __name__ == "__main__":
    run_main(main)
