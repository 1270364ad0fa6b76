"""Measuring one network of the paper: compiled, checked, and timed beside its peers."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.backends import backend_of
from deploy.bench import bench
from deploy.build import TOOLS, build_source, tuned_for
from deploy.devices.network import Remote
from deploy.object_cache import ObjectCache
from deploy.paper.jobs import Job, describe_protocol, protocol_of
from deploy.paper.networks import NoRoomError, count, open_network
from deploy.paper.records import Record, Setting
from deploy.tables.schedules import digest
from deploy.target import Target
from lut.errors import HmsegError, WorkError
from lut.provenance import Provenance

OPTIONAL = ("openvino",)  # peers that are timed where they are installed
HERE = "this machine"
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
        versions = {tool: version(tool) for tool in TOOLS} | device.versions | backend.versions()
        if self.remote is None:
            versions |= _optional_versions()
        provenance = Provenance(
            cpu=device.cpu,
            architecture=device.architecture,
            cores=device.cores,
            pinning=device.pinning,
            emulated=device.emulated,
            versions=versions,
            kernels_version=backend.kernels_version,
            schedules=digest(dict(tuned_for(target, self.threads))),
            protocol=describe_protocol(self.rounds),
            date=_now(),
        )
        place = self.remote.place.name if self.remote else HERE
        threads = backend.record_threads(self.threads)
        return Setting(target.key, target.name, threads, place, provenance)


def measure(job: Job, bench_: Bench, setting: Setting, on_step: Callable[[str], None]) -> Record:
    """One record, of a result or of what failed; `on_step` is told what is being done.

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
    except MemoryError:
        failed = "out of memory"
    return Record(job, setting, macs, parameters, weights, _now(), seconds, result, failed)


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
        profiled=job.profiled, all_peers=True, memory=False,
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
