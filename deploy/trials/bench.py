"""The seam between tuning and what measures: one candidate of a kernel beside the rule's."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from deploy.artifact import TVM, Artifact
from deploy.schedules import Fields, schedule_fields
from lut.ops import Operation, parse_operation

ROUNDS, FRAMES = 5, 8  # per candidate: rounds, and frames of each side in a round
TOLERANCE = 1e-4  # relative to the largest output of the kernel


@dataclass(frozen=True)
class Candidate:
    """A schedule to measure for an operation, as text; of a loop nest of TVM's its fields."""

    text: str
    schedule: Any

    @property
    def fields(self) -> Fields:
        """As records hold it."""
        return self.schedule if isinstance(self.schedule, dict) else schedule_fields(self.schedule)


@dataclass(frozen=True)
class Measurement:
    """What a machine says of a candidate: medians of the kernel's time in each round, with the
    rule's schedule and with the candidate, in nanoseconds; none where it was refused."""

    machine: str
    rule_ns: tuple[int, ...] = ()
    candidate_ns: tuple[int, ...] = ()
    refused: str = ""


Keep: TypeAlias = Callable[[Candidate, Measurement], None]


class TunedKernels(Protocol):
    """Kernels with their schedules."""

    def rule(self, operation: Operation) -> Any:  # noqa: ANN401 - a Schedule
        """The schedule that is chosen without measuring."""

    def alternatives(self, operation: Operation, best: Any) -> Iterator[Any]:  # noqa: ANN401
        """What is worth measuring while `best` is the fastest schedule known."""


class TuningBench(Protocol):
    """Measures candidates of a network's `kernels`.

    `times_ns` are a frame's kernels by their text, all calls of each together: an operation of
    ours, whose object is in `operations`, or a loop nest of TVM's, in `nests`. `at_once` candidates
    are measured together, of one kernel at most `per_kernel`.
    """

    kernels: TunedKernels
    operations: Mapping[str, Operation]
    nests: Mapping[str, Any] = {}
    times_ns: Mapping[str, int]
    at_once: int
    per_kernel: int

    def measure(self, batch: Sequence[Candidate], keep: Keep, end: float) -> None:
        """Measure candidates; `keep` gets each as it is measured. None is begun once
        `time.monotonic` has passed `end`. Raises WorkError where what measures fails for good."""


def operations_of(artifact: Artifact, texts: Iterable[str]) -> dict[str, Operation]:
    """The operations among the texts of an artifact's kernels: those of ours."""
    ours = {info.spec for info in artifact.kernels if info.template != TVM}
    return {text: parse_operation(text) for text in texts if text in ours}


def refusal(error: BaseException) -> str:
    """Why a candidate could not be used, in one line: one that does not fit its kernel can fail
    anywhere in its emission or compilation."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


UNFIT = (
    ValueError, TypeError, ZeroDivisionError, IndexError, AssertionError, RuntimeError,
)  # fmt: skip
