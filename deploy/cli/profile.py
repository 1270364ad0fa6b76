"""hmseg-deploy profile."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli import options
from deploy.cli.console import print_json, print_table, say, step
from lut.errors import UserError
from lut.files import check_writable

if TYPE_CHECKING:
    from deploy.profile import Profile


def profile(
    artifact: Annotated[Path, typer.Argument(help="An artifact made by hmseg-deploy compile.")],
    threads: options.Threads = None,
    repeat: Annotated[int, typer.Option(help="Frames to time.")] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a roofline plot, PNG.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Time each kernel of a frame against this machine's ceilings."""
    if repeat < 1:
        raise UserError(f"--repeat {repeat}: it must be at least 1")
    if out:
        check_writable(out)
    workers = options.read_threads(threads)
    from deploy.measure.ceilings import probe_ceilings
    from deploy.pipeline import isa_of
    from deploy.profile import profile as run_profile
    from deploy.runtime import load
    from deploy.targets import host_target

    network = load(artifact, threads=workers)
    host = host_target()
    # The ceiling is this machine's, also for a binary that was compiled for less.
    isa = isa_of(host)
    if isa is None:
        raise UserError("profile: this CPU has no AVX2; there is no probe for it")
    with step("probing this machine's ceilings") as progress:
        ceilings = probe_ceilings(host, isa, workers)
        progress.result = f"{ceilings.fma_gflops:.0f} GFLOP/s with {workers} threads"
    with step(f"timing {repeat} frames"):
        result = run_profile(
            network, network.artifact.golden_input, ceilings, time.perf_counter_ns, repeat=repeat
        )
    metadata = network.metadata
    title = f"{metadata.model} {metadata.resolution}, {workers} threads"
    if out:
        from deploy.roofline import draw_roofline

        draw_roofline(result, title, out)
        say(f"roofline: {out}")
    if as_json:
        print_json({"model": metadata.model, "resolution": str(metadata.resolution)}
                   | result.to_json())  # fmt: skip
    else:
        _print(title, result)


def _print(title: str, result: "Profile") -> None:
    rows = [
        (
            f"{kernel.name} x{kernel.calls}",
            f"{kernel.median_ms:.3f}",
            f"{kernel.median_ms / result.frame_ms:.1%}",
            f"{kernel.gflops:.1f}",
            f"{kernel.gbytes_per_s:.1f}",
            f"{kernel.share_of_ceiling(result.ceilings):.0%}",
            kernel.spec,
        )
        for kernel in result.kernels
    ]
    columns = ("kernel", "ms", "of frame", "GFLOP/s", "GB/s", "of ceiling", "what")
    print_table(title, columns, rows)
    print(
        f"frame {result.frame_ms:.2f} ms; its MACs at {result.ceilings.fma_gflops:.0f} GFLOP/s "
        f"would take {result.fma_share:.0%} of that"
    )
