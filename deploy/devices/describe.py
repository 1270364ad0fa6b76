"""What a device is, as it says itself; `describe` runs there, with TVM's Python package and nothing
else."""

import json
import os
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy import host
from deploy.devices.emulated import EMULATED
from lut.errors import UserError, WorkError
from lut.json_text import parse_json

FUNCTION = "hmseg.describe_device"  # the global function by which a server of ours tells it
SIZE_POOL = "hmseg.size_pool"  # that sets the number of threads and says how they are bound
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Description:
    """A machine that serves. `cores` are those that the server may use, `max_mhz` and `governors`
    what Linux says of them (empty in most virtual machines)."""

    tvm_version: str | None  # of a server of TVM's RPC
    architecture: str
    cpu: str
    cores: int
    flags: tuple[str, ...]
    available_mib: int
    governors: tuple[str, ...]
    max_mhz: tuple[int, ...]
    emulated: bool

    @staticmethod
    def from_json(text: str) -> "Description":
        """What `describe` returned; raises WorkError for another shape."""
        try:
            values: dict[str, Any] = parse_json(text)
            known = {field.name for field in fields(Description)}
            values = {name: value for name, value in values.items() if name in known}
            for name in ("flags", "governors", "max_mhz"):
                values[name] = tuple(values[name])
            return Description(**values)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise WorkError(f"the device's description cannot be read ({error})") from error


def describe() -> str:
    """This machine as a Description in JSON."""
    import tvm

    cores = os.sched_getaffinity(0)
    policies = [_CPUS / f"cpu{core}" / "cpufreq" for core in sorted(cores)]
    maxima = (_read(policy / "cpuinfo_max_freq") for policy in policies)
    return json.dumps(asdict(Description(
        tvm_version=tvm.__version__,
        architecture=host.architecture(),
        cpu=host.cpu_model(),
        cores=len(cores),
        flags=tuple(sorted(host.cpu_flags())),
        available_mib=available_mib(),
        governors=tuple(sorted({_read(p / "scaling_governor") for p in policies} - {""})),
        max_mhz=tuple(sorted({int(khz) // 1000 for khz in maxima if khz.isdecimal()})),
        emulated=bool(os.environ.get(EMULATED)),
    )))  # fmt: skip


def check_version(device: Description, name: str) -> None:
    """Raise UserError where the device has TVM, of another version than this machine's."""
    ours = version("apache-tvm")
    if device.tvm_version not in (None, ours):
        raise UserError(
            f"device {name} has TVM {device.tvm_version}, this machine {ours}; install "
            f"apache-tvm=={ours} there"
        )


def available_mib(text: str | None = None) -> int:
    """Memory that programs can still get, by this machine's /proc/meminfo or another's `text`."""
    text = Path("/proc/meminfo").read_text() if text is None else text
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) // 1024
    raise WorkError("/proc/meminfo has no MemAvailable")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
