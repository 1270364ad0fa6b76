"""The latency table of this machine's GPU, within what is left of benchmarks/gpu.sh's minutes.

The table is of TinyMRMS's space (width 0.5) at 256x512, measured as `hmseg-deploy lut build
--target cuda` does, into a file beside the other results. Each visit is on disk as it is made, so
that what the minutes did not suffice for goes on at the next start.
"""

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from lut.errors import HmsegError, UserError

if TYPE_CHECKING:
    from deploy.tables.build import Plan, Progress

RESOLUTION, WIDTH = "256x512", 0.5
UP = "the time was up"


class _TimeIsUpError(Exception):
    pass


def table_path(folder: Path, name: str) -> Path:
    """The table of the GPU called `name`."""
    return folder / f"lut-{name}-{RESOLUTION}-width{WIDTH:g}.jsonl"


def measure_table(precision: str, path: Path, end: float) -> dict[str, Any]:
    """Build the table, or go on with it, until it is complete or `time.monotonic` passes `end`.
    Returns its file's name and size, and in words what is left out.

    A table that cannot be gone on with, such as one of another driver or of schedules that are no
    longer chosen, is left out too, and so is what a failure leaves unmeasured; but not one with
    every planned visit, of which `note` then says why it is not gone on with.
    """
    from deploy.backends import backend_of
    from deploy.gpu.driver import Driver
    from deploy.resolution import parse_resolution
    from deploy.tables.build import Plan, build_table
    from deploy.targets import resolve_target
    from hmseg.operators import Space

    target = resolve_target("cuda", Driver().architecture, precision)
    space = Space(parse_resolution(RESOLUTION), WIDTH)
    backend = backend_of(target)
    plan = Plan(space, target, 0, protocol=backend.protocol)
    left = ""

    def tell(now: "Progress") -> None:
        nonlocal left
        left = ""
        if now.done < now.total:
            left = f"{now.total - now.done} visits, {UP}"
        if left and monotonic() > end:
            raise _TimeIsUpError

    if monotonic() > end:
        left = UP
    else:
        try:
            build_table(plan, backend.devices(1, None), path, tell)
        except _TimeIsUpError:
            pass  # `left` says how much
        except HmsegError as error:
            left = str(error)
        except Exception as error:  # the other results are not lost with it
            left = f"{type(error).__name__}: {error}"
    return describe(plan, path, left)


def describe(plan: "Plan", path: Path, left: str) -> dict[str, Any]:
    """What the results say of the table: its file, where there is one that can be read, and what
    is left out unless every planned visit is in it."""
    from deploy.tables.build import visits_left
    from lut.table_file import load_table

    try:
        table = load_table(path)
    except UserError as error:
        return {"left_out": left or str(error)}
    whole = table.identity == plan.identity and not visits_left(plan.networks(), table)
    return {
        "file": path.name, "entries": len(table.entries), "visits": len(table.visits),
        "left_out": "" if whole else left, "note": left if whole else "",
    }  # fmt: skip
