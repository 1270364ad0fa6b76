"""Where a table's figures come from."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lut.json_text import checked, texts_by_name


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
        texts_by_name("versions", known["versions"])
        return Provenance(**known)
