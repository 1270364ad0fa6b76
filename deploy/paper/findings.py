"""What the paper claims and what the measurements here say of it, in a sentence or two."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from deploy.bench import OURS
from deploy.paper.cells import frames_text, ratio
from deploy.paper.checks import PEERS
from deploy.paper.claims import Timed
from deploy.paper.parts import ENLARGED, Share


def of_speeds(timed: Iterable[Timed]) -> list[str]:
    """Who is fastest, and whether ours is faster than onnxruntime; nothing for fewer than two."""
    ranked = sorted(timed, key=lambda each: each.ms)
    if len(ranked) < 2:
        return []
    first = ", ".join(f"{each.row.label} ({frames_text(each.ms)})" for each in ranked[:3])
    found = [f"Fastest here, of {len(ranked)}: {first}."]
    for peer in PEERS:
        ratios = [ratio(each.record, peer).median for each in ranked if peer in each.record.samples]
        if not ratios:
            continue
        wins = sum(value > 1 for value in ratios)
        found.append(
            f"{OURS} is faster than {peer} in {wins} of {len(ratios)}, by a factor of "
            f"{min(ratios):.2f} to {max(ratios):.2f}."
        )
    return found


def of_spread(timed: Iterable[Timed]) -> list[str]:
    """How equal latencies are that should be."""
    times = [each.ms for each in timed]
    if len(times) < 2:
        return []
    return [f"The slowest takes {max(times) / min(times) - 1:.1%} longer than the fastest."]


def of_sizes(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """Of each network's (megapixels, milliseconds), who is the fastest at each size, and whether
    time goes with the pixels."""
    by_size: dict[float, list[tuple[float, str]]] = {}
    for label, own in points.items():
        for size, ms in own:
            by_size.setdefault(size, []).append((ms, label))
    firsts = Counter(min(several)[1] for several in by_size.values() if len(several) > 1)
    fastest = ", ".join(f"{label} at {n} of {firsts.total()}" for label, n in firsts.most_common())
    return [*([f"Fastest at each size: {fastest}."] if fastest else []), *_of_growth(points)]


def _of_growth(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    found = []
    for label, own in points.items():
        (least, fast), (most, slow) = min(own), max(own)
        if most > least:
            found.append(f"{label} {slow / fast:.1f} times for {most / least:.1f} times the pixels")
    return [f"A frame takes longer: {'; '.join(found)}."] if found else []


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
