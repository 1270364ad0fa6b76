"""Where a table's figures come from."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lut.errors import UserError


@dataclass(frozen=True)
class Provenance:
    """The device, the software and the protocol of a run of measurements.

    `pinning` says how threads are bound to cores, `protocol` how samples were taken and what was
    done about drift; `schedules` is "rule" or a digest of the tuning records that the kernels used.
    Two provenances are equal whatever their dates.
    """

    cpu: str
    architecture: str
    cores: int
    pinning: str
    emulated: bool
    versions: dict[str, str] = field(hash=False)
    kernels_version: int
    schedules: str
    protocol: str
    date: str = field(compare=False)  # ISO 8601, UTC, of the first measurement

    def differences(self, other: "Provenance") -> list[str]:
        """Names of the fields, other than the date, in which two differ."""
        return [
            f.name for f in fields(self)
            if f.compare and getattr(self, f.name) != getattr(other, f.name)
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON fields."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Provenance":
        """Read `to_json`'s fields; raises UserError naming one that is wrong."""
        known = checked(Provenance, values)
        versions = known["versions"]
        if not isinstance(versions, dict) or not all(isinstance(v, str) for v in versions.values()):
            raise UserError(f"versions are {versions!r:.40}, not texts by name")
        return Provenance(**known)


def checked(kind: type, values: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """The fields of a dataclass, each of its type; raises UserError naming one that is not.

    Only plain types are checked; the caller looks into what is nested.
    """
    wanted = {f.name: f.type for f in fields(kind)}
    if not isinstance(values, dict):
        raise UserError(f"expected a JSON object, not {values!r:.40}")
    missing, unknown = wanted.keys() - values.keys(), values.keys() - wanted.keys()
    if missing:
        raise UserError(f"the field {min(missing)!r} is missing")
    if unknown:
        raise UserError(f"unknown field {min(unknown)!r}; a newer program may have written it")
    for name, kind_of in wanted.items():
        if isinstance(kind_of, type) and kind_of in (str, int, bool, float):
            value = values[name]
            allowed = (int, float) if kind_of is float else (kind_of,)
            wrong = not isinstance(value, allowed)
            wrong = wrong or (kind_of is not bool and isinstance(value, bool))
            if wrong or (kind_of is float and not math.isfinite(value)):
                raise UserError(f"the field {name!r} is {value!r:.40}, not {kind_of.__name__}")
    return dict(values)
