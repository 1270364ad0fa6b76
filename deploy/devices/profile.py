"""Profiling a network on a device."""

from typing import Any

from numpy.typing import NDArray

from deploy.cpu.pipeline import isa_of
from deploy.devices.kernels import RemoteKernels, kernel_library
from deploy.devices.measuring import RemoteMeasuring
from deploy.devices.network import RemoteNetwork
from deploy.measure.ceilings import Ceilings, probe_ceilings
from deploy.profile import FRAMES, Profile, time_network
from deploy.targets import Target


def profile_there(
    network: RemoteNetwork, given: NDArray[Any], threads: int, frames: int = FRAMES
) -> Profile:
    """`deploy.profile.profile_here` on a device; the image is in its memory already."""
    kernels, frame_ms = time_network(RemoteMeasuring(network, given), network.artifact, frames)
    ceilings = _ceilings(network, threads)
    return Profile(kernels, frame_ms, ceilings, threads, network.report())


def _ceilings(network: RemoteNetwork, threads: int) -> Ceilings | None:
    """Of the instructions that the artifact was compiled for: what else the device has is not
    known in LLVM's words."""
    session, compiled_for = network.library.session, network.artifact.target
    target = Target(
        compiled_for.name, compiled_for.config, compiled_for.architecture, compiled_for.features
    )
    isa = isa_of(target)
    if isa is None:
        return None
    return probe_ceilings(
        lambda functions: RemoteKernels(session, kernel_library(functions, target)), isa, threads
    )
