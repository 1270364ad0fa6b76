"""A target as data: what a binary is compiled for and what a machine must have to run it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.precision import FP32, Precision


@dataclass(frozen=True)
class Target:
    """A named compilation target.

    `config` is TVM's own JSON form; `architecture` as ``uname -m`` prints it; `features` the CPU
    features, in LLVM's names, that the generated code may use. Of a GPU, `architecture` is ``cuda``
    or ``opencl``, and `features` are the architectures that machine code is made for.
    """

    name: str
    config: dict[str, Any] = field(hash=False)
    architecture: str
    features: tuple[str, ...]
    precision: Precision = FP32

    @property
    def key(self) -> str:
        """A short text that identifies equal code generation: records are filtered by it."""
        config = self.config
        if self.precision is not FP32:
            config = config | {"precision": self.precision.name}
        return json.dumps(config, sort_keys=True, separators=(",", ":"))

    @property
    def machine(self) -> str:
        """What code is made for, in a word or two."""
        return str(self.config.get("mcpu") or ", ".join(self.features) or self.name)

    def to_json(self) -> dict[str, Any]:
        """As an artifact's manifest holds it."""
        return asdict(self) | {"precision": self.precision.name}
