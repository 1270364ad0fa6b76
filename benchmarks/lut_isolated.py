"""What isolated timing would have said: each kernel hot in a loop, beside its time in the network.

    python -m benchmarks.lut_isolated --width 0.5 --resolution 256x512 --threads 2 \
        --json benchmarks/results/lut-isolated.json --figure benchmarks/results/lut-isolated.png

The same compiled kernels, on the same buffers, in one process, in rounds: frames of the whole
network with the clock read around each kernel, then for each kernel of one frame a loop of calls,
its weights and inputs in the nearest cache that holds them.
"""

import argparse
import datetime
import json
from pathlib import Path
from statistics import median
from typing import Any

from deploy import host
from deploy.cli.console import run_main
from deploy.cpu.loaded import LoadedLibrary
from deploy.measure.local import LocalDevice, LocalSession
from deploy.resolution import parse_resolution
from deploy.tables.networks import Recipe
from deploy.targets import resolve_target
from hmseg.genotype import MRMS_GENOTYPE
from hmseg.operators import Space


def isolated_us(session: LocalSession, loops: int) -> list[float]:
    """Median microseconds of each kernel call of a frame, repeated hot."""
    found: list[float] = []
    library = session.network.loaded
    assert isinstance(library, LoadedLibrary)

    with library.steps(session.given) as frame:
        for number in range(len(session.network.artifact.calls)):
            samples = [frame.call(number) for _ in range(loops)]
            found.append(median(samples[loops // 4 :]) / 1000)
    return found


def in_network_us(session: LocalSession, frames: int) -> list[float]:
    """Median microseconds of each kernel call inside frames."""
    session.time_frames(5)
    return [median(times) / 1000 for times in zip(*session.time_kernels(frames), strict=True)]


def draw(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    for op in sorted({row["entry"].split()[0] for row in rows}):
        points = [row for row in rows if row["entry"].split()[0] == op]
        axes.scatter(
            [row["in_network_us"] for row in points],
            [row["isolated_us"] / row["in_network_us"] for row in points],
            label=op,
        )
    axes.axhline(1, color="black", lw=1)
    axes.set(xscale="log", title=title)
    axes.set_xlabel("microseconds inside the network")
    axes.set_ylabel("isolated / inside the network")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--resolution", default="256x512")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    space = Space(parse_resolution(args.resolution), args.width)
    network = Recipe(space, resolve_target("cpu"), args.threads, {}).compile(MRMS_GENOTYPE)
    rounds: list[tuple[list[float], list[float]]] = []
    with LocalDevice(args.threads).open(network.artifact) as session:
        for _ in range(args.rounds):
            rounds.append((in_network_us(session, 30), isolated_us(session, 60)))
    rows: list[dict[str, Any]] = [
        {
            "entry": str(key),
            "in_network_us": median(inside[place] for inside, _ in rounds),
            "isolated_us": median(alone[place] for _, alone in rounds),
        }
        for place, key in enumerate(network.calls)
    ]
    inside, alone = (sum(row[name] for row in rows) for name in ("in_network_us", "isolated_us"))
    for row in rows:
        ratio = row["isolated_us"] / row["in_network_us"]
        print(f"{row['in_network_us']:8.1f} {row['isolated_us']:8.1f} {ratio:5.2f}  {row['entry']}")
    print(f"{inside:8.1f} {alone:8.1f} {alone / inside:5.2f}  sum")
    if args.json:
        provenance = {
            "machine": host.cpu_model(),
            "threads": args.threads,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "resolution": args.resolution,
            "width": args.width,
        }
        args.json.write_text(json.dumps(provenance | {"rows": rows}, indent=1) + "\n")
    if args.figure:
        title = f"MRMS width {args.width:g}, {args.resolution}, {args.threads} threads"
        draw(rows, title, args.figure)


if __name__ == "__main__":
    run_main(main)
