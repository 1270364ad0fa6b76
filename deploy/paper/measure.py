"""Measuring one network of the paper: compiled, checked, and timed beside its peers."""

import errno
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.backends import backend_of
from deploy.bench import bench
from deploy.build import TOOLS, build_source, tuned_for
from deploy.devices.network import Remote
from deploy.object_cache import ObjectCache
from deploy.paper.jobs import Job, describe_protocol, protocol_of
from deploy.paper.networks import NoRoomError, count, open_network
from deploy.paper.records import HERE, Record, Setting
from deploy.reading.text import one_line
from deploy.tables.provenance import now, provenance_now
from deploy.target import Target
from lut.errors import HmsegError, WorkError

OPTIONAL = ("openvino",)  # peers that are timed where they are installed
# A network's file, its graph in memory's copies, machine code: in the temporary folder.
_COPIES, _SPARE_BYTES = 4, 64 << 20


@dataclass(frozen=True)
class Bench:
    """Where everything is measured: as the options of the command say."""

    target: Target
    threads: int
    remote: Remote | None
    cache: ObjectCache | None
    rounds: int

    def setting(self) -> Setting:
        """What the latencies of this run depend on. Asks the device; raises UserError and WorkError
        as `Backend.devices`."""
        backend, target = backend_of(self.target), self.target
        device = backend.devices(self.threads, self.remote).info
        provenance = provenance_now(
            device, target, tuned_for(target, self.threads), describe_protocol(self.rounds),
            tools=TOOLS, others=_optional_versions() if self.remote is None else {},
        )  # fmt: skip
        place = self.remote.place.name if self.remote else HERE
        threads = backend.record_threads(self.threads)
        return Setting(target.key, target.name, threads, place, provenance)


def measure(job: Job, bench_: Bench, setting: Setting, on_step: Callable[[str], None]) -> Record:
    """One record, of a result or of what failed, in whatever way; `on_step` is told what is being
    done.

    Raises NoRoomError.
    """
    macs = parameters = 0
    seconds: dict[str, float] = {}
    weights, failed = "", ""
    result = None
    try:
        macs, parameters = count(job)
        _require_room(parameters)
        weights, result = _measure(job, bench_, macs, seconds, on_step)
    except NoRoomError:
        raise
    except HmsegError as error:
        failed = str(error)
    except Exception as error:  # a mistake of ours, or a peer's: the other networks are measured
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise NoRoomError(
                f"no room on the disk while {job} was measured ({error.filename or error.strerror})"
                "; free the disk, and the same command goes on"
            ) from error
        failed = unexpected(error)
    return Record(job, setting, macs, parameters, weights, now(), seconds, result, failed)


def unexpected(error: Exception) -> str:
    """In a line what no one foresaw, and where it happened."""
    if isinstance(error, MemoryError):
        return "out of memory"
    where = traceback.extract_tb(error.__traceback__)[-1]
    try:
        said = f": {one_line(error)}" if str(error).strip() else ""
    except MemoryError:  # what it was about
        return "out of memory"
    return f"{type(error).__name__}{said} (at {Path(where.filename).name}:{where.lineno})"


def _measure(
    job: Job, on: Bench, macs: int, seconds: dict[str, float], on_step: Callable[[str], None]
) -> tuple[str, dict[str, object]]:
    start = time.perf_counter()

    def done(part: str) -> None:
        nonlocal start
        now = time.perf_counter()
        seconds[part], start = round(now - start, 1), now

    on_step("exporting")
    source = open_network(job)
    done("open")
    artifact, comparisons = build_source(
        source, on.target, threads=on.threads, remote=on.remote, cache=on.cache, on_step=on_step
    )
    if not comparisons:
        raise WorkError(f"cannot time it here: {artifact.parity['reason']}")
    done("compile")
    protocol = protocol_of(macs, on.rounds)
    result = bench(
        artifact, source, artifact.golden.image, protocol, threads=on.threads, remote=on.remote,
        profiled=job.profiled, all_peers=True, memory=False, shares=True,
        on_round=lambda n: on_step(f"timing, round {n} of {protocol.rounds}"),
    )  # fmt: skip
    done("time")
    return source.weights, result.to_json() | {"parity": artifact.parity}


def _require_room(parameters: int) -> None:
    folder = Path(tempfile.gettempdir())
    needed, free = _COPIES * 4 * parameters + _SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoomError(
            f"{folder} has {free / 1e6:.0f} MB free, a network of this size needs "
            f"{needed / 1e6:.0f} MB; free the disk or name another folder in TMPDIR, and the same "
            "command goes on"
        )


def _optional_versions() -> dict[str, str]:
    found = {}
    for package in OPTIONAL:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
