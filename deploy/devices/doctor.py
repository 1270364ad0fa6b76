"""Walk the chain from here to a device, link by link, up to the first one that is broken."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deploy.cpu.targets import ARCHITECTURES
from deploy.devices.adb import check_phone
from deploy.devices.describe import Description, check_version
from deploy.devices.fitting import fitting_target
from deploy.devices.kernels import kernel_library, remote_kernels
from deploy.devices.place import DeviceSession, Place
from deploy.devices.session import Farm
from deploy.devices.tracker import require_key, states
from deploy.target import Target
from deploy.targets import resolve_target
from lut.errors import HmsegError, UserError, WorkError

MIN_MIB = 256  # a network at 1024x2048, its buffers and TVM's runtime
SHARED = 1.5  # time with all threads over time with one; more, and they share a core
STEADY = 1.25  # slow runs of the probe over fast ones; more is a clock that changes
_PROBES, _STEPS = 40, 20000

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """One link of the chain. A note is a doubt about what will be measured, not a fault."""

    link: str
    state: State
    detail: str


def diagnose(
    place: Place, *, target: str | None = None, threads: int | None = None, phone: bool = False
) -> Iterator[Finding]:
    """The links in order; the last one is broken, with its cure, or all of them hold.

    `target` is what will be compiled for the device, by default what fits the architecture that it
    names; `phone` looks at adb first.
    """
    link = "adb"
    try:
        if isinstance(place, Farm):
            if phone:
                port = place.tracker.port
                yield Finding(link, "ok", f"{check_phone(place.tracker)}, port {port}")
            link = "tracker"
            keys = states(place.tracker)
            yield Finding(link, "ok", f"{place.tracker}, {len(keys)} keys")
            link = "key"
            state = require_key(place.tracker, place.key)
            found = f"{len(state.devices)} devices, {state.free} free"
            yield Finding(link, "ok", f"{place.key}: {found}")
        link = "connection"
        with place.open() as session:
            yield Finding(link, "ok", session.name)
            device = session.describe()
            if isinstance(place, Farm):
                link = "TVM version"
                yield Finding(link, *_version(device, session.name))
            link = "memory"
            yield Finding(link, *_memory(device))
            link = "architecture"
            wanted = _target(target, device)
            yield Finding(link, *_architecture(wanted, device))
            link = "tiny kernel"
            wanted_threads = threads or (device.cores if device else 1)
            probe = _Probe(session, wanted, wanted_threads)
            yield Finding(link, "ok", probe.check())
            link = "threads"
            yield Finding(link, *_threads(probe, device))
            link = "clock"
            yield Finding(link, *_clock(probe, device))
    except HmsegError as error:
        yield Finding(link, "broken", str(error))


def _version(device: Description | None, name: str) -> tuple[State, str]:
    ours = version("apache-tvm")
    if device is None:
        return "note", (
            f"not known: its server is TVM's own; make sure that it is {ours}, or start it with "
            "hmseg-deploy device serve"
        )
    check_version(device, name)
    return "ok", ours


def _memory(device: Description | None) -> tuple[State, str]:
    if device is None:
        return "note", "not known: its server does not say"
    if device.available_mib < MIN_MIB:
        raise WorkError(
            f"{device.available_mib} MiB free, {MIN_MIB} are needed; end other programs there"
        )
    return "ok", f"{device.available_mib} MiB free"


def _target(text: str | None, device: Description | None) -> Target:
    if text is not None:
        target = resolve_target(text)
        if target.architecture not in ARCHITECTURES:
            raise UserError(f"--target {text}: devices behind RPC run CPU code only")
        return target
    if device is None:
        raise UserError("its server does not say what it is; name it: --target arm or android")
    return resolve_target(fitting_target(device))


def _architecture(target: Target, device: Description | None) -> tuple[State, str]:
    mcpu = target.config["mcpu"]
    if device is None:
        return "note", f"not known; trying {mcpu}"
    if device.architecture != target.architecture:
        raise UserError(
            f"it is {device.architecture}, the target {target.name} is {target.architecture}; "
            "name another with --target"
        )
    mark = ", EMULATED: good for correctness, not for latencies" if device.emulated else ""
    return "ok", f"{device.architecture}, {device.cpu}{mark}"


class _Probe:
    """Multiply-adds in one thread and in several, on a device."""

    def __init__(self, session: DeviceSession, target: Target, threads: int) -> None:
        from deploy.cpu.isa import AVX2
        from deploy.cpu.pipeline import isa_of
        from deploy.cpu.probe import FmaProbeSpec, emit_fma

        self._isa = isa_of(target) or AVX2  # LLVM splits vectors where the target has shorter ones
        self._mcpu, self.threads = target.config["mcpu"], threads
        specs = {f"probe{n}": FmaProbeSpec(n, _STEPS) for n in {1, threads}}
        probes = {name: emit_fma(spec, self._isa) for name, spec in specs.items()}
        session.set_threads(threads)
        self._kernels = remote_kernels(session, kernel_library(probes, target))

    def check(self) -> str:
        """Chains start at 0, 1, 2 ... and each step adds 1: their sum is known exactly."""
        seed, out = np.ones(2, np.float32), self._out(1)
        found = self._kernels.run("probe1", [seed], out)
        chains = self._isa.registers - 4  # of the probe
        if not (found == chains * (chains - 1) / 2 + chains * _STEPS).all():
            raise WorkError(
                f"a kernel for {self._mcpu} gives a wrong result there ({found[0, 0]:g}); "
                "the target does not fit the device"
            )
        return f"compiled for {self._mcpu}, uploaded, right result"

    def times_ns(self, threads: int) -> list[int]:
        """Many runs with so many threads, each doing the same work."""
        arrays = (np.ones(2, np.float32), self._out(threads))
        return self._kernels.time(f"probe{threads}", arrays, _PROBES)

    def _out(self, threads: int) -> NDArray[np.float32]:
        return np.full((threads, self._isa.lanes), -1, np.float32)


def _threads(probe: _Probe, device: Description | None) -> tuple[State, str]:
    cores = f" on {device.cores} cores" if device else ""
    if probe.threads == 1:
        return "ok", f"1{cores}"
    one, many = (float(np.median(probe.times_ns(n))) for n in (1, probe.threads))
    detail = f"{probe.threads}{cores} do {probe.threads * one / many:.1f} times the work of one"
    if many > SHARED * one:
        advice = "choose --threads to fit its idle cores, or set TVM_NUM_THREADS there"
        return "note", f"{detail}; {advice}"
    return "ok", detail


def _clock(probe: _Probe, device: Description | None) -> tuple[State, str]:
    fast, slow = np.percentile(probe.times_ns(1), [10, 90])
    governors = f"governor {', '.join(device.governors)}" if device and device.governors else ""
    top = f"up to {max(device.max_mhz)} MHz" if device and device.max_mhz else ""
    words = ", ".join(word for word in (governors, top) if word) or "its governor is not shown"
    detail = f"slow probes take {slow / fast:.2f} times as long as fast ones; {words}"
    if slow > STEADY * fast:
        return "note", f"{detail}; set the governor performance, cool it, end other programs"
    return "ok", detail
