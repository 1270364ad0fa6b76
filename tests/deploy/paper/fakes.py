"""Records that were never measured, for what only reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.paper.jobs import Job
from deploy.paper.networks import count, refuses
from deploy.paper.records import Record, Setting
from deploy.resolution import parse_resolution
from lut.provenance import Provenance

DATE = "2026-11-30T10:00:00+00:00"


def setting(cpu: str = "Chip 1", date: str = DATE, **changes: Any) -> Setting:
    fields = {
        "cpu": cpu, "architecture": "x86_64", "cores": 2, "pinning": "none", "emulated": False,
        "versions": {"torch": "2"}, "kernels_version": 1, "schedules": "rule", "protocol": "calls",
        "date": date,
    }  # fmt: skip
    return Setting("{}", "cpu", 2, "this machine", Provenance(**fields | changes))


def record(
    network: str, size: str = "64x128", *, classes: int = 19, profiled: bool = False,
    on: Setting | None = None, failed: str = "", absent: Mapping[str, str] | None = None,
    profile: Mapping[str, Any] | None = None, left: Mapping[str, float] | None = None,
    counts: tuple[int, int] | None = None, **samples_ms: Sequence[Sequence[float]],
) -> Record:  # fmt: skip
    """`samples_ms` by side: rounds of milliseconds. `counts`: other than today's."""
    job = Job(network, parse_resolution(size), classes, profiled)
    result = None
    if not failed:
        ns = {
            side: [[int(ms * 1e6) for ms in calls] for calls in rounds]
            for side, rounds in samples_ms.items()
        }
        result = {"samples_ns": ns, "absent": dict(absent or {}), "profile": profile}
        if left is not None:
            result["left_to_tvm"] = dict(left)
    macs, parameters = (0, 0) if refuses(job) else counts or count(job)
    seconds = {"open": 3.0, "compile": 60.0, "time": 1.0}
    return Record(job, on or setting(), macs, parameters, "random", DATE, seconds, result, failed)
