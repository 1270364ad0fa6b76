"""The latency table of this machine's GPU, within what is left of benchmarks/gpu.sh's minutes.

The table is of TinyMRMS's space (width 0.5) at 256x512, measured as `hmseg-deploy lut build
--target cuda` does, into a file beside the other results. Each visit is on disk as it is made, so
that what the minutes did not suffice for goes on at the next start.
"""

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from lut.errors import HmsegError

if TYPE_CHECKING:
    from deploy.measure.build_table import Progress

RESOLUTION, WIDTH = "256x512", 0.5


class _TimeIsUpError(Exception):
    pass


def table_path(folder: Path, name: str) -> Path:
    """The table of the GPU called `name`."""
    return folder / f"lut-{name}-{RESOLUTION}-width{WIDTH:g}.jsonl"


def measure_table(precision: str, path: Path, end: float) -> dict[str, Any]:
    """Build the table, or go on with it, until it is complete or `time.monotonic` passes `end`.
    Returns its file's name and size, and in words what is left out.

    A table that cannot be gone on with, such as one of another driver or of schedules that are no
    longer chosen, is left out too, and so is what a failure leaves unmeasured.
    """
    from deploy.gpu.device import GpuDevice
    from deploy.gpu.driver import Driver
    from deploy.measure.build_table import Plan, build_table
    from deploy.measure.visit import protocol_for
    from deploy.resolution import parse_resolution
    from deploy.targets import resolve_target
    from hmseg.operators import Space
    from lut.table import load_table

    target = resolve_target("cuda", Driver().architecture, precision)
    space = Space(parse_resolution(RESOLUTION), WIDTH)
    plan = Plan(space, target, 0, protocol=protocol_for(target))
    left = ""

    def tell(now: "Progress") -> None:
        nonlocal left
        left = ""
        if now.done < now.total:
            left = f"{now.total - now.done} visits of the latency table, the time was up"
        if left and monotonic() > end:
            raise _TimeIsUpError

    if monotonic() > end:
        return {"left_out": "the latency table, the time was up"}
    try:
        build_table(plan, GpuDevice(), path, tell)
    except _TimeIsUpError:
        pass  # `left` says how much
    except HmsegError as error:  # the other results are not lost with it
        return {"left_out": f"the latency table: {error}"}
    table = load_table(path)
    return {
        "file": path.name, "entries": len(table.entries), "visits": len(table.visits),
        "left_out": left,
    }  # fmt: skip
