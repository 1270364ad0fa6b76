"""Which schedule a kernel gets: the rule of its module."""

from dataclasses import dataclass
from typing import Any

from deploy.kernels import emit, module_of
from deploy.kernels.isa import Isa


@dataclass(frozen=True)
class Chooser:
    """Chooses for one instruction set and number of threads."""

    isa: Isa
    threads: int

    def schedule(self, spec: Any) -> Any:  # noqa: ANN401
        """The schedule to emit `spec` with."""
        return module_of(spec).default_schedule(spec, self.isa, self.threads)

    def emit(self, spec: Any) -> Any:  # noqa: ANN401
        """The PrimFunc of `spec` with the schedule chosen for it."""
        return emit(spec, self.isa, schedule=self.schedule(spec))
