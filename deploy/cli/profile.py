"""hmseg-deploy profile."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli import options, places
from deploy.cli.console import print_json, print_table, say, step
from deploy.cli.groups import grouped
from lut.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.metadata import Metadata
    from deploy.profile import Profile

EMULATED = "EMULATED: this says nothing of the latency on any ARM processor"


@grouped
def profile(
    *,
    artifact: Annotated[Path, typer.Argument(help="An artifact made by hmseg-deploy compile.")],
    repeat: Annotated[int, typer.Option(min=1, help="Frames to time.")] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write a roofline plot, PNG.")
    ] = None,
    place: places.PlaceOptions,
    as_json: options.Json = False,
) -> None:
    """Time each kernel of a frame against the machine's ceilings.

    On this machine, or with --device or --rpc-key on a device.
    """
    if out:
        check_writable(out)
    workers, remote = place.read()
    from deploy.artifact_file import load_artifact
    from deploy.backends import backend_of
    from deploy.profile import profile as run_profile
    from deploy.profile import require_timed

    built = load_artifact(artifact)
    require_timed(built, str(artifact))
    where = f" on {remote.place.name}" if remote else ""
    with step(f"timing {repeat} frames and the ceilings{where}") as progress:
        devices = backend_of(built.target).devices(workers, remote)
        result, includes = devices.use(
            built, lambda session: (run_profile(session, workers, repeat), session.includes)
        )
        if result.ceilings:
            progress.result = f"{result.ceilings} with {workers} threads"
    metadata = built.metadata
    if out:
        from deploy.roofline import draw_roofline

        draw_roofline(result, title_of(metadata, result.threads, result.machine), out)
        say(f"roofline: {out}")
    if as_json:
        print_json({"model": metadata.model, "resolution": str(metadata.resolution)}
                   | result.to_json())  # fmt: skip
    else:
        print_profile(metadata, result)
        say(f"the frame's time includes {includes}")
    if result.emulated:
        say(EMULATED)


def title_of(
    metadata: "Metadata", threads: int, machine: "Mapping[str, Any]", note: str = ""
) -> str:
    """The network, the threads, of which a GPU has none, and the machine (`Session.machine`), and
    whether that one is emulated."""
    mark = "EMULATED, " if machine["emulated"] is True else ""
    what = f", {threads} threads" if threads else ""
    return f"{metadata.model} {metadata.resolution}{what}{note}, {mark}{machine['machine']}"


def print_profile(metadata: "Metadata", result: "Profile") -> None:
    """The table of kernels and the share of the ceiling, if there is one."""
    from lut.words import kernel_in_words

    rows = []
    for kernel in result.kernels:
        share = kernel.share_of_ceiling(result.ceilings)
        rows.append(
            (
                kernel_in_words(kernel.spec) or kernel.name,
                f"{kernel.median_ms:.3f}",
                f"{kernel.median_ms / result.frame_ms:.1%}",
                f"{kernel.gflops:.1f}",
                f"{kernel.gbytes_per_s:.1f}",
                "" if share is None else f"{share:.0%}",
                f"{kernel.name} x{kernel.calls}",
            )
        )
    columns = ("what", "ms", "of frame", "GFLOP/s", "GB/s", "of ceiling", "kernel")
    print_table(title_of(metadata, result.threads, result.machine), columns, rows)
    if result.ceilings:
        print(
            f"frame {result.frame_ms:.2f} ms; its MACs at {result.ceilings} "
            f"would take {result.fma_share:.0%} of that"
        )
    else:
        print(
            f"frame {result.frame_ms:.2f} ms; no share of a ceiling: the probes need AVX2, AVX-512 "
            "or NEON"
        )
