"""How one network of a table is measured: kernel by kernel and whole, beside the reference."""

from collections import Counter, defaultdict
from datetime import UTC, datetime

from deploy.measure.device import Session
from deploy.measure.rounds import VisitProtocol, steady_rounds
from deploy.tables.networks import TimedNetwork
from lut.ops import Operation
from lut.record import EntrySamples, Role, Visit


def measure_visit(
    session: Session, reference: Session, network: TimedNetwork, role: Role, protocol: VisitProtocol
) -> Visit:
    """Measure one network, kernel by kernel and whole, beside the reference."""

    def measure() -> tuple[list[list[int]], list[int]]:
        session.time_frames(protocol.warmup)
        return session.time_kernels(protocol.frames), session.time_frames(protocol.frames)

    rounds = steady_rounds(measure, reference, protocol)
    return Visit(
        network=str(network.genotype),
        role=role,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        reference_us=tuple(_microseconds(r.reference) for r in rounds),
        whole_us=tuple(_microseconds(r.measured[1]) for r in rounds),
        entries=_entries(network, [r.measured[0] for r in rounds]),
    )


def _entries(network: TimedNetwork, rounds: list[list[list[int]]]) -> dict[Operation, EntrySamples]:
    """The samples of each entry: microseconds of one call."""
    places: dict[Operation, list[int]] = defaultdict(list)
    for place, key in enumerate(network.calls):
        places[key].append(place)
    calls = Counter(network.keys)
    return {
        key: EntrySamples(
            calls[key],
            tuple(
                _microseconds([sum(frame[i] for i in own) / calls[key] for frame in frames])
                for frames in rounds
            ),
        )
        for key, own in places.items()
    }


def _microseconds(nanoseconds: list[int] | list[float]) -> tuple[float, ...]:
    return tuple(round(ns / 1000, 3) for ns in nanoseconds)
