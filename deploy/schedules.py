"""Schedules, what changes only a kernel's speed, as the fields that files hold."""

from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeAlias

from lut.errors import UserError

Fields: TypeAlias = dict[str, Any]  # a schedule as JSON holds it
TRACE = "trace"  # the one field of a loop nest's of TVM: MetaSchedule's trace, as JSON


def schedule_fields(schedule: Any) -> Fields:  # noqa: ANN401 - any Schedule
    """A schedule as JSON fields."""
    return asdict(schedule)


def with_fields(rule: Any, values: Fields) -> Any:  # noqa: ANN401 - any Schedule
    """A schedule of the rule's kind from JSON fields; raises UserError where they do not fit."""
    names = {field.name for field in fields(rule)}
    if set(values) != names:
        raise UserError(
            f"a tuning record for {type(rule).__name__} has the fields {sorted(values)}, not "
            f"{sorted(names)}; delete it and tune again"
        )
    return type(rule)(**{name: _typed(getattr(rule, name), values[name], name) for name in names})


def _typed(rule: Any, value: Any, name: str) -> Any:  # noqa: ANN401 - of a field
    """A field that is a dataclass itself, such as a tile, is a dictionary in JSON."""
    if is_dataclass(type(rule)) and isinstance(value, dict):
        return with_fields(rule, value)
    if type(value) is not type(rule):
        raise UserError(
            f"a tuning record has {value!r:.40} for {name}, where {rule!r:.40} would be one; "
            "delete it and tune again"
        )
    return value
