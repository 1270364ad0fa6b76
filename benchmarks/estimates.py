"""How long loading a latency table and estimating networks from it take.

    python -m benchmarks.estimates TABLE

Prints one JSON object: seconds of loading, of preparing the sums of the space, and of 10,000
estimates of random networks.
"""

import argparse
import json
import random
import time
from pathlib import Path

from deploy.cli.console import run_main
from hmseg.cost import SpaceCost
from hmseg.genotype import random_genotype
from hmseg.operators import Space
from lut.estimate import LatencyCost
from lut.table_file import load_table

COUNT = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    genotypes = [random_genotype(rng) for _ in range(COUNT)]
    start = time.perf_counter()
    table = load_table(args.table)
    loaded = time.perf_counter()
    height, width = map(int, table.identity.resolution.split("x"))
    space = Space((height, width), table.identity.width, table.identity.num_classes)
    cost = SpaceCost(LatencyCost(table), space)
    prepared = time.perf_counter()
    for genotype in genotypes:
        cost.of(genotype)
    done = time.perf_counter()
    seconds = {"load": loaded - start, "prepare": prepared - loaded, "estimate": done - prepared}
    print(json.dumps({"visits": len(table.visits), "estimates": COUNT, "seconds": seconds}))


if __name__ == "__main__":
    run_main(main)
