"""Build a latency table, its builder killed at random moments: nothing may be lost or doubled.

    python -m benchmarks.lut_kills --kills 10 --resolution 256x512 --width 0.5 --threads 2 \
        -o lut/data/TABLE.jsonl

Each run of `hmseg-deploy lut build` but the last gets SIGKILL after a random time. After each, all
visits that were in the table before must still be there, unchanged and in place. At the end each
planned network must have been visited: once, but for those visited again for their noisy entries,
which a build limits in number, and no two visits may be equal.
Prints one JSON object: the seconds of each run and what was found.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any


def run(command: list[str], limit_s: float | None) -> tuple[float, int]:
    """Seconds, and the exit code: that of SIGKILL where the limit came first."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            code = process.wait()
    return time.monotonic() - start, code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least-s", type=float, default=15)
    parser.add_argument("--most-s", type=float, default=60)
    parser.add_argument("--resolution", default="256x512")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()

    from lut.table_file import load_table

    command = [
        sys.executable, "-m", "deploy.cli.hmseg_deploy", "lut", "build", "--target", "cpu",
        "--resolution", args.resolution, "--width", f"{args.width:g}",
        "--threads", str(args.threads), "-o", str(args.output),
    ]  # fmt: skip
    rng = random.Random(args.seed)
    before: list[Any] = []
    runs, torn = [], 0
    for number in range(args.kills + 1):
        limit = rng.uniform(args.least_s, args.most_s) if number < args.kills else None
        seconds, code = run(command, limit)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            visits = load_table(args.output).visits if args.output.exists() else []
        torn += len(caught)
        assert visits[: len(before)] == before, "a visit was lost or changed"
        runs.append({"seconds": round(seconds, 1), "exit": code, "visits": len(visits)})
        before = visits
        if code == 0:
            break
    assert runs[-1]["exit"] == 0, "the build did not end well"
    from deploy.cpu.targets import host_target
    from deploy.resolution import parse_resolution
    from deploy.tables.build import REVISITS, VISITS_PER_NETWORK, Plan
    from hmseg.operators import Space

    space = Space(parse_resolution(args.resolution), args.width)
    plan = Counter((str(g), r) for g, r in Plan(space, host_target(), args.threads).networks())
    found = Counter((visit.network, visit.role) for visit in before)
    assert set(found) == set(plan), "a network is missing"
    texts = Counter(json.dumps(visit.to_json(), sort_keys=True) for visit in before)
    assert max(texts.values()) == 1, "a visit is in the table twice"
    for (network, role), count in found.items():
        # Noisy entries may be visited again, calibration never is.
        most = VISITS_PER_NETWORK if role == "entries" else plan[network, role]
        assert plan[network, role] <= count <= most, f"{network}: {count} visits as {role}"
    again, covering = found - plan, sum(role == "entries" for _, role in plan)
    assert again.total() <= int(REVISITS * covering), "more was visited again than a build may"
    table = load_table(args.output)
    missing = space.all_keys() - set(table.entries)
    assert not missing, f"entries are missing: {missing}"
    print(
        json.dumps(
            {
                "kills": sum(r["exit"] == -signal.SIGKILL for r in runs),
                "seconds": round(sum(r["seconds"] for r in runs), 1),
                "torn_lines": torn,
                "networks": len(plan),
                "visited_again": sum(found.values()) - len(plan),
                "entries": len(table.entries),
                "runs": runs,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
