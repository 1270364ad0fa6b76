"""OpenCL for phones' GPUs: source and plan are written, and run nowhere yet."""

from collections.abc import Callable
from typing import Any, TypeVar

from deploy.artifact import Artifact
from deploy.backends.base import Built, CannotRunError, Job, OnStep
from deploy.backends.cuda import CudaBackend
from deploy.devices.network import Remote
from deploy.gpu.pipeline import CompiledSource
from deploy.gpu.program import GpuProgram
from deploy.measure.device import Devices
from deploy.runtime import Network
from deploy.target import Target
from deploy.trials.bench import TuningBench
from lut.errors import UserError

T = TypeVar("T")


class OpenClBackend(CudaBackend):
    """As CUDA's, but for what runs it."""

    def tunes(self, target: Target) -> bool:
        """Nothing measures it."""
        return False

    def versions(self) -> dict[str, str]:
        """The device's own driver compiles it."""
        return {}

    def _program(self, compiled: CompiledSource, job: Job, on_step: OnStep) -> GpuProgram:
        lowered = compiled.lowered
        return GpuProgram(lowered.plan, lowered.constants, opencl=lowered.source)

    def try_out(
        self, built: Built, work: Callable[[Network, bool], T], remote: Remote | None,
        on_step: OnStep,
    ) -> tuple[T, dict[str, Any]]:  # fmt: skip
        """Nowhere."""
        raise CannotRunError("no OpenCL GPU runs artifacts in this version")

    def measured_target(self, target: Target, text: str) -> Target:
        """Nowhere."""
        raise UserError(f"target {text}: this version runs OpenCL on no device")

    def devices(self, threads: int, remote: Remote | None) -> Devices:
        """None."""
        raise UserError("this version runs OpenCL on no device")

    def tuning_bench(
        self, job: Job, rule: Artifact, threads: int, remote: Remote | None, *, emulated: bool
    ) -> TuningBench:
        """None."""
        raise UserError("this version runs OpenCL on no device")

    def where(self, target: Target) -> str:
        """Nowhere."""
        return ""
