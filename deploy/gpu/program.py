"""What an artifact for a GPU holds instead of a library: plan, constants, and code. No TVM."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deploy.arena import Region
from deploy.gpu.parameters import (
    parameters_in_cubin,
    parameters_in_opencl,
    parameters_in_ptx,
    wrong_launch,
)
from deploy.gpu.plan import Plan
from deploy.metadata import Metadata
from lut.errors import UserError

PREFIX = "gpu/"
_PLAN, _CONSTANTS, _OPENCL = "gpu/plan.json", "gpu/constants.bin", "gpu/kernels.cl"
_CUBIN = re.compile(r"gpu/(sm_\d+)\.cubin")
_PTX = re.compile(r"gpu/(compute_\d+)\.ptx")

_BOARDS = {53, 62, 72, 87, 101}


@dataclass(frozen=True)
class GpuProgram:
    """A network for GPUs.

    `cubins` are machine code by architecture (``sm_61``), `ptx` what the driver of a later
    architecture compiles, by the least architecture (``compute_90``), `opencl` the source for an
    OpenCL driver; a program has code for CUDA or for OpenCL.
    """

    compressed: ClassVar[bool] = True

    plan: Plan
    constants: bytes
    cubins: Mapping[str, bytes] = field(default_factory=dict)
    ptx: Mapping[str, bytes] = field(default_factory=dict)
    opencl: str = ""

    def members(self) -> dict[str, bytes]:
        """Files of the artifact by name."""
        code = {f"{PREFIX}{name}.cubin": data for name, data in self.cubins.items()}
        code |= {f"{PREFIX}{name}.ptx": data for name, data in self.ptx.items()}
        if self.opencl:
            code[_OPENCL] = self.opencl.encode()
        return {_PLAN: self.plan.to_json().encode(), _CONSTANTS: self.constants, **code}

    @staticmethod
    def is_member(name: str) -> bool:
        """Whether an artifact's file is this code's."""
        fixed = name in (_PLAN, _CONSTANTS, _OPENCL)
        return fixed or bool(_CUBIN.fullmatch(name) or _PTX.fullmatch(name))

    @staticmethod
    def from_members(members: Mapping[str, bytes]) -> "GpuProgram":
        """The inverse of `members`; raises UserError where a file is missing or unknown, and where
        the plan gives a kernel more or fewer arguments than it has parameters."""
        unknown = [name for name in members if not GpuProgram.is_member(name)]
        if unknown or not {_PLAN, _CONSTANTS} <= set(members):
            raise UserError(f"not the files of a GPU program: {sorted(members)}")
        plan = Plan.from_json(members[_PLAN].decode())
        constants = members[_CONSTANTS]
        if len(constants) != plan.constant_bytes:
            raise UserError("the GPU program's constants are not those of its plan")
        program = GpuProgram(
            plan,
            constants,
            {m[1]: data for name, data in members.items() if (m := _CUBIN.fullmatch(name))},
            {m[1]: data for name, data in members.items() if (m := _PTX.fullmatch(name))},
            members.get(_OPENCL, b"").decode(),
        )
        program._check_launches()
        return program

    def check_ends(self, metadata: Metadata) -> None:
        """Raise UserError unless it takes and gives as many bytes as a network with this
        metadata."""
        sizes: list[tuple[Region, tuple[int, ...], Any]] = [
            (self.plan.input, metadata.input_shape, metadata.input_dtype),
            (self.plan.entries["main"].output, metadata.output_shape, metadata.output_dtype),
        ]
        if scores := self.plan.entries.get("logits"):
            wanted = (metadata.num_scores, *metadata.resolution)
            sizes.append((scores.output, wanted, np.float32))
        for region, shape, kind in sizes:
            if region.size != math.prod(shape) * np.dtype(kind).itemsize:
                raise UserError(f"the GPU program takes or gives {region.size} bytes, not {shape}")

    def _check_launches(self) -> None:
        launches: dict[str, set[int]] = {}
        for entry in self.plan.entries.values():
            for launch in entry.launches:
                launches.setdefault(launch.kernel, set()).add(len(launch.arguments))
        codes: list[Mapping[str, int | None]] = [
            *(parameters_in_cubin(data) for data in self.cubins.values()),
            *(parameters_in_ptx(data.decode()) for data in self.ptx.values()),
            parameters_in_opencl(self.opencl),
        ]
        for code in codes:
            if wrong := wrong_launch(launches, code):
                raise UserError(f"the plan of the GPU's launches is not sound ({wrong})")


def result_of(raw: NDArray[np.uint8], entry: str, metadata: Metadata) -> NDArray[Any]:
    """The bytes that an entry has written as what the network gives, or as class scores
    (K, H, W)."""
    if entry == "main":
        return raw.view(metadata.output_dtype).reshape(metadata.output_shape)
    return raw.view(np.float32).reshape(metadata.num_scores, *metadata.resolution)


def number_of(architecture: str) -> int:
    """61 of ``sm_61`` and of ``compute_61``."""
    return int(architecture.rpartition("_")[2])


def choose_code(program: GpuProgram, capability: int) -> tuple[str, bytes]:
    """The name and the bytes of the code that a GPU of this compute capability (61 for 6.1) gets:
    machine code of its generation, else PTX of an earlier one. Raises UserError for neither."""
    cubins = [name for name in program.cubins if _runs(number_of(name), capability)]
    if cubins:
        best = max(cubins, key=number_of)
        return best, program.cubins[best]
    ptx = [name for name in program.ptx if number_of(name) <= capability]
    if ptx:
        best = max(ptx, key=number_of)
        return best, program.ptx[best]
    has = ", ".join([*program.cubins, *program.ptx]) or "OpenCL only"
    raise UserError(
        f"the artifact has no code for this GPU, sm_{capability} (it has {has}); compile it with "
        f"--target cuda --arch sm_{capability}"
    )


def _runs(built: int, capability: int) -> bool:
    # Machine code runs on its own generation, from the minor number that it was made for; on
    # NVIDIA's own boards (Jetson), which no other code is promised to run on, only theirs.
    if {built, capability} & _BOARDS:
        return built == capability
    return built // 10 == capability // 10 and built <= capability
