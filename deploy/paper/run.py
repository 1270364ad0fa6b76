"""Measuring what some views still lack: killed anywhere, the same call goes on."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.paper.current import current
from deploy.paper.jobs import Job
from deploy.paper.measure import Bench, measure
from deploy.paper.networks import NoRoomError, absent, count, refuses
from deploy.paper.records import Records, Setting
from deploy.paper.views import View
from lut.errors import WorkError

# What a network costs besides its calls, in the unit of 1e9 multiply-adds: exporting, compiling.
_FIXED = 15.0
_RECORD_BYTES = 1 << 18


@dataclass(frozen=True)
class Progress:
    """What is done now, and about how long the rest takes; None before anything is known."""

    number: int
    total: int
    job: Job
    step: str
    left_s: float | None
    lasting: bool = False  # worth a line of its own where there is no terminal

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", about {self.left_s / 60:.0f} min left"
        return f"{self.number} of {self.total}, {self.job}: {self.step}{left}"


def jobs_of(views: Sequence[View]) -> list[Job]:
    """What the views need, each once, in their order; what this version has no network for is left
    out, and so are, where a figure goes through the sizes, those that a network does not take. A
    profiled job stands for the same without a profile."""
    jobs = [
        job
        for view in views
        for row in view.rows
        for job in view.jobs(row)
        if not absent(job.network) and not (view.kind == "resolutions" and refuses(job))
    ]
    profiled = {(j.network, j.resolution, j.classes) for j in jobs if j.profiled}
    wanted = [
        Job(j.network, j.resolution, j.classes, (j.network, j.resolution, j.classes) in profiled)
        for j in jobs
    ]
    return list(dict.fromkeys(wanted))


def measure_views(
    views: Sequence[View], bench: Bench, setting: Setting, records: Records,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[str]:  # fmt: skip
    """Measure what the records do not hold on this setting, of the networks as they are today; each
    is on disk when the next begins. What failed before is tried again.

    Returns a line for each network that failed. Raises NoRoomError for a full disk.
    """
    jobs = jobs_of(views)
    own = records.of(setting)
    todo = [job for job in jobs if not current(own, job).newest(job, failed=False)]
    clock = _Clock({job: _work(job) for job in todo})
    failures = []
    for number, job in enumerate(todo, len(jobs) - len(todo) + 1):

        def tell(step: str, *, lasting: bool = False, number: int = number, job: Job = job) -> None:
            on_progress(Progress(number, len(jobs), job, step, clock.left_s(), lasting))

        _require_room(records.path)
        tell("begins", lasting=True)
        record = measure(job, bench, setting, tell)
        records.append(record)
        if record.failed:
            failures.append(f"{job}: {record.failed}")
            tell(f"failed: {record.failed}", lasting=True)
        clock.finish(job)
    return failures


def _require_room(file: Path) -> None:
    """Before the work, not after it: a line of records, a table and its picture have to fit."""
    if file.parent.exists() and shutil.disk_usage(file.parent).free < _RECORD_BYTES:
        raise NoRoomError(
            f"no room on the disk for {file}; free the disk, and the same command goes on"
        )


def _work(job: Job) -> float:
    try:
        return _FIXED + count(job)[0] / 1e9
    except WorkError:  # it will fail, and say so, when its turn comes
        return _FIXED


class _Clock:
    """How long the rest takes, by how long what is done took."""

    def __init__(self, work: dict[Job, float]) -> None:
        self._left, self._done, self._begin = dict(work), 0.0, time.monotonic()

    def finish(self, job: Job) -> None:
        self._done += self._left.pop(job)

    def left_s(self) -> float | None:
        """None before the first job is done; that which is under way counts whole."""
        if not self._done:
            return None
        return (time.monotonic() - self._begin) / self._done * sum(self._left.values())
