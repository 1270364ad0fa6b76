"""What is measured now, on which device and with what: the provenance of every kind of record."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from deploy.backends import backend_of
from deploy.measure.device import DeviceInfo
from deploy.schedules import Fields
from deploy.tables.schedules import digest
from deploy.target import Target
from lut.provenance import Provenance

TOOLS = ("hmseg", "apache-tvm", "apache-tvm-ffi", "torch")  # what makes a kernel, and counts it


def provenance_now(
    device: DeviceInfo, target: Target, schedules: Mapping[str, Fields], protocol: str, *,
    tools: Sequence[str] = TOOLS, others: Mapping[str, str] | None = None,
) -> Provenance:  # fmt: skip
    """Of a run that begins now: the versions of `tools`, of what the device and the backend say,
    and of `others`; `schedules` are those that the measured kernels use, `protocol` is in words."""
    backend = backend_of(target)
    versions = {tool: version(tool) for tool in tools} | device.versions | backend.versions()
    return Provenance(
        cpu=device.cpu,
        architecture=device.architecture,
        cores=device.cores,
        pinning=device.pinning,
        emulated=device.emulated,
        versions=versions | dict(others or {}),
        kernels_version=backend.kernels_version,
        schedules=digest(dict(schedules)),
        protocol=protocol,
        date=now(),
    )


def now() -> str:
    """ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
