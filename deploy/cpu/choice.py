"""Which schedule a kernel gets: a measured winner where there is one, else its module's rule."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from deploy.cpu.isa import Isa, Tile
from deploy.cpu.kernels import emit, module_of
from lut.errors import UserError

Fields = dict[str, Any]  # a schedule as JSON holds it


@dataclass(frozen=True)
class Chooser:
    """Chooses for one instruction set and number of threads.

    `measured` holds the fields of schedules by spec; deploy.tuning fills it. `emitted` collects
    every spec that was asked for, by its text.
    """

    isa: Isa
    threads: int
    measured: Mapping[str, Fields] = field(default_factory=dict)
    emitted: dict[str, Any] = field(default_factory=dict)

    def rule(self, spec: Any) -> Any:  # noqa: ANN401
        """What the kernel's module chooses without measuring."""
        return module_of(spec).default_schedule(spec, self.isa, self.threads)

    def schedule(self, spec: Any) -> Any:  # noqa: ANN401
        """The schedule to emit `spec` with."""
        rule, values = self.rule(spec), self.measured.get(repr(spec))
        return rule if values is None else with_fields(rule, values)

    def emit(self, spec: Any) -> Any:  # noqa: ANN401
        """The PrimFunc of `spec` with the schedule chosen for it."""
        self.emitted[repr(spec)] = spec
        return emit(spec, self.isa, schedule=self.schedule(spec))


def schedule_fields(schedule: Any) -> dict[str, Any]:  # noqa: ANN401 - any Schedule
    """A schedule as JSON fields."""
    return asdict(schedule)


def with_fields(rule: Any, values: dict[str, Any]) -> Any:  # noqa: ANN401 - any Schedule
    """A schedule of the rule's kind from JSON fields; raises UserError where they do not fit."""
    names = {field.name for field in fields(rule)}
    if set(values) != names:
        raise UserError(
            f"a tuning record for {type(rule).__name__} has the fields {sorted(values)}, not "
            f"{sorted(names)}; delete it and tune again"
        )
    typed = {
        name: Tile(**value) if isinstance(getattr(rule, name), Tile) else value
        for name, value in values.items()
    }
    return type(rule)(**typed)
