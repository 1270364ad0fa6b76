"""What the paper claims and what the measurements here say of it, in a sentence or two."""

from collections.abc import Mapping, Sequence

from deploy.bench import OURS, PEER
from deploy.paper.cells import median_ms, ratio
from deploy.paper.parts import ENLARGED, Share
from deploy.paper.records import Record


def of_speeds(records: Mapping[str, Record | None]) -> list[str]:
    """Of the records of a table, by the rows' labels: who is fastest, and whether ours is faster
    than onnxruntime. Nothing for fewer than two networks that were timed."""
    times = {label: ms for label, record in records.items() if (ms := median_ms(record))}
    if len(times) < 2:
        return []
    ranked = sorted(times, key=lambda label: times[label])
    first = ", ".join(f"{label} ({1000 / times[label]:.3g} FPS)" for label in ranked[:3])
    found = [f"Fastest here, of {len(ranked)}: {first}."]
    ratios = {
        label: ratio(record, PEER)
        for label, record in records.items()
        if record and PEER in record.samples
    }
    if ratios:
        wins = [label for label, value in ratios.items() if value.median > 1]
        lost = [f"{label} ({ratios[label].median:.2f})" for label in ratios if label not in wins]
        found.append(
            f"{OURS} is faster than {PEER} in {len(wins)} of {len(ratios)}"
            + (f"; not in {', '.join(lost)}." if lost else ".")
        )
    return found


def of_spread(records: Sequence[Record | None]) -> list[str]:
    """How equal latencies are that should be."""
    times = [ms for record in records if (ms := median_ms(record)) is not None]
    if len(times) < 2:
        return []
    return [f"The slowest takes {max(times) / min(times) - 1:.1%} longer than the fastest."]


def of_parts(shares: Mapping[str, tuple[Share, Share]]) -> list[str]:
    """Whether the head is the heavy part, as the paper says of typical networks."""
    heavy = [label for label, (backbone, head) in shares.items() if head.macs > backbone.macs]
    if not heavy:
        return [f"The head counts for less than the backbone in all {len(shares)}."]
    return [
        f"The head counts for more than the backbone in {len(heavy)} of {len(shares)}: "
        f"{', '.join(heavy)}. So it depends on the variant: with a heavier backbone or a lighter "
        "pyramid the same design is not."
    ]


def of_stages(times: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Of each network at a size, how much of the frame its early stages take."""
    found = []
    for label, own in times.items():
        total = sum(own.values())
        early = sum(ms for name, ms in own.items() if name in ("1/1", "1/2", "1/4", "1/8"))
        joined = own.get(ENLARGED, 0.0)
        found.append(f"{label}: {early / total:.0%} down to 1/8, {joined / total:.0%} {ENLARGED}")
    return ["Of the frame: " + "; ".join(found) + "."] if found else []
