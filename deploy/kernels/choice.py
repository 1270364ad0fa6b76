"""Which schedule a kernel gets: the template's rule."""

from dataclasses import dataclass
from typing import Any, Protocol

from deploy.kernels.isa import Isa


class Template(Protocol):
    """A module of this package: a kind of kernel for any shape and instruction set."""

    def default_schedule(self, spec: Any, isa: Isa, threads: int) -> Any:  # noqa: ANN401
        """The rule's schedule for a spec."""

    def emit(self, spec: Any, schedule: Any, isa: Isa) -> Any:  # noqa: ANN401
        """The PrimFunc; its parameters are the inputs, the constants and the output."""


@dataclass(frozen=True)
class Chooser:
    """Chooses for one instruction set and number of threads."""

    isa: Isa
    threads: int

    def schedule(self, template: Template, spec: Any) -> Any:  # noqa: ANN401
        """The schedule to emit `spec` with."""
        return template.default_schedule(spec, self.isa, self.threads)
